"""The connection to a desktop's X display, from outside its place."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from experience.errors import EnvironmentFailure, MissingPartError

WIDTH = 1280
HEIGHT = 720


class Display:
    """One X display.

    Every method raises EnvironmentFailure once the display is gone.
    """

    def __init__(self, connected: socket.socket) -> None:
        try:
            import xcffib
            import xcffib.xproto
            import xcffib.xtest
        except ImportError as missing:
            raise MissingPartError(
                f"a desktop needs xcffib: {missing}", "./xp setup worlds"
            ) from missing
        self._connection = xcffib.Connection(fd=connected.detach())
        self._xtest = self._connection(xcffib.xtest.key)
        self._atoms: dict[str, int] = {}
        self._atom_names: dict[int, str] = {}
        self.setup = self._connection.get_setup()
        self.root: int = self.setup.roots[0].root

    @property
    def core(self) -> Any:
        """The requests of the X protocol. Each returns a cookie for `ask`."""
        return self._connection.core

    def close(self) -> None:
        import xcffib

        with suppress(xcffib.ConnectionException):  # it may have died with the display
            self._connection.disconnect()

    def ask(self, cookie: Any) -> Any:
        """The reply to a request."""
        import xcffib

        try:
            return cookie.reply()
        except xcffib.ConnectionException as gone:
            raise EnvironmentFailure("the display is gone", "the desktop is built anew") from gone

    def sync(self) -> None:
        """Returns once the display has done what was sent so far."""
        # Requests are done in order, so the reply to any request tells that those before are done.
        self.ask(self.core.GetInputFocus())

    def new_id(self) -> int:
        return int(self._connection.generate_id())

    def send_input(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        """Sends an event of a mouse or keyboard through XTEST."""
        import xcffib

        try:
            self._xtest.FakeInput(kind, detail, 0, self.root, x, y, 0)
            self._connection.flush()
        except xcffib.ConnectionException as gone:
            raise EnvironmentFailure("the display is gone", "the desktop is built anew") from gone

    def atom(self, name: str) -> int:
        """The number by which the display knows a name."""
        if name not in self._atoms:
            self._atoms[name] = self.ask(self.core.InternAtom(False, len(name), name)).atom
        return self._atoms[name]

    def atom_name(self, atom: int) -> str:
        if atom not in self._atom_names:
            name = self.ask(self.core.GetAtomName(atom)).name
            self._atom_names[atom] = bytes(name.buf()).decode()
        return self._atom_names[atom]
