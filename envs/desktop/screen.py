"""One X display seen and touched from outside its place: pictures, windows, pointer and keys.

Pictures are read from the file that Xvfb draws into, with `pread`: a program inside that cuts the
file short makes a short read, which is an error here, not a crash. Pointer and keys go through
XTEST, as from real devices.
"""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from experience.errors import EnvironmentFailure, MissingPartError

WIDTH, HEIGHT = 1280, 720
BUTTONS = {"left": 1, "middle": 2, "right": 3}
_WHEEL = {(0, -1): 5, (0, 1): 4, (-1, 0): 6, (1, 0): 7}
_KEY_DOWN, _KEY_UP, _BUTTON_DOWN, _BUTTON_UP, _MOTION = 2, 3, 4, 5, 6
_NAMED = {
    "enter": 0xFF0D,
    "return": 0xFF0D,
    "tab": 0xFF09,
    "esc": 0xFF1B,
    "escape": 0xFF1B,
    "backspace": 0xFF08,
    "delete": 0xFFFF,
    "del": 0xFFFF,
    "insert": 0xFF63,
    "home": 0xFF50,
    "left": 0xFF51,
    "up": 0xFF52,
    "right": 0xFF53,
    "down": 0xFF54,
    "pageup": 0xFF55,
    "pagedown": 0xFF56,
    "end": 0xFF57,
    "menu": 0xFF67,
    "shift": 0xFFE1,
    "ctrl": 0xFFE3,
    "capslock": 0xFFE5,
    "alt": 0xFFE9,
    "win": 0xFFEB,
    "space": 0x20,
    **{f"f{n}": 0xFFBD + n for n in range(1, 13)},
}


@dataclass(frozen=True)
class Window:
    """A window that the window manager manages: where it is, in pixels, and whether it is maximised
    or hidden."""

    id: int
    title: str
    active: bool
    x: int
    y: int
    width: int
    height: int
    states: frozenset[str]


class Screen:
    """A display. Raises EnvironmentFailure from every method once the display is gone."""

    def __init__(self, connected: socket.socket, frame: io.FileIO) -> None:
        try:
            import xcffib
            import xcffib.xproto
            import xcffib.xtest
        except ImportError as missing:
            raise MissingPartError(
                f"a desktop needs xcffib: {missing}", "./xp setup worlds"
            ) from missing
        self._frame = frame
        self._x = xcffib.Connection(fd=connected.detach())
        self._test = self._x(xcffib.xtest.key)
        setup = self._x.get_setup()
        self._root = setup.roots[0].root
        self._atoms: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._asking: int | None = None
        self._keys = self._keyboard(setup.min_keycode, setup.max_keycode)
        self._picture_start, self._row = self._layout()

    def close(self) -> None:
        import xcffib

        with suppress(xcffib.ConnectionException):  # it may have died with the display
            self._x.disconnect()
        self._frame.close()

    def sync(self) -> None:
        """Until the display has done what was sent."""
        self._ask(self._x.core.GetInputFocus())

    # ── pictures

    def _layout(self) -> tuple[int, int]:
        head = os.pread(self._frame.fileno(), 100, 0)
        if len(head) < 100:
            raise EnvironmentFailure("the display draws no picture", "the desktop is built anew")
        order = ">" if struct.unpack(">I", head[4:8])[0] == 7 else "<"
        fields = struct.unpack(order + "25I", head)
        header, width, height, row, colours = (
            fields[0],
            fields[4],
            fields[5],
            fields[12],
            fields[19],
        )
        if (width, height) != (WIDTH, HEIGHT):
            raise EnvironmentFailure(f"the display is {width}x{height}, not {WIDTH}x{HEIGHT}")
        return header + 12 * colours, row

    def pixels(self) -> bytes:
        """The picture now: 32 bits a pixel, blue first, row by row."""
        data = os.pread(self._frame.fileno(), self._row * HEIGHT, self._picture_start)
        if len(data) != self._row * HEIGHT:
            raise EnvironmentFailure(
                "the display's picture was cut short", "the desktop is built anew"
            )
        return data

    def png(self) -> bytes:
        from PIL import Image

        out = io.BytesIO()
        Image.frombuffer("RGB", (WIDTH, HEIGHT), self.pixels(), "raw", "BGRX", self._row, 1).save(
            out, "png", compress_level=1
        )
        return out.getvalue()

    # ── pointer and keys

    def move(self, x: int, y: int) -> None:
        self._send(_MOTION, 0, x, y)

    def button(self, name: str, down: bool) -> None:
        self._send(_BUTTON_DOWN if down else _BUTTON_UP, BUTTONS[name])

    def pointer(self) -> tuple[int, int]:
        at = self._ask(self._x.core.QueryPointer(self._root))
        return at.root_x, at.root_y

    def wheel(self, right: int, up: int) -> None:
        for (x, y), number in _WHEEL.items():
            for _ in range(min(max(right * x, up * y, 0), 50)):
                self._send(_BUTTON_DOWN, number)
                self._send(_BUTTON_UP, number)

    def key(self, name: str, down: bool) -> None:
        code, _ = self._code(name)
        self._send(_KEY_DOWN if down else _KEY_UP, code)

    def stroke(self, name: str) -> None:
        """One key or character, with Shift where the keyboard has it there."""
        code, shifted = self._code(name)
        shift, _ = self._code("shift")
        if shifted:
            self._send(_KEY_DOWN, shift)
        self._send(_KEY_DOWN, code)
        self._send(_KEY_UP, code)
        if shifted:
            self._send(_KEY_UP, shift)

    def type(self, text: str) -> None:
        """Raises ValueError, having typed nothing, for a character that the keyboard does not have."""
        for character in text:
            self._code(character)
        for character in text:
            self.stroke(character)

    def chord(self, names: Sequence[str]) -> None:
        """Keys pressed one after another and let go in the other order."""
        for name in names:
            self._code(name)
        for name in names:
            self.key(name, True)
        for name in reversed(names):
            self.key(name, False)

    def _code(self, name: str) -> tuple[int, bool]:
        symbol = {"\n": 0xFF0D, "\t": 0xFF09}.get(name) or (
            ord(name) if len(name) == 1 else _NAMED.get(name.lower(), -1)
        )
        if symbol not in self._keys:
            raise ValueError(
                f"no key {name[:20]!r}; keys are single characters and: {', '.join(sorted(_NAMED))}"
            )
        return self._keys[symbol]

    def _keyboard(self, low: int, high: int) -> dict[int, tuple[int, bool]]:
        """keysym -> (keycode, whether with Shift), from the display's own map."""
        reply = self._ask(self._x.core.GetKeyboardMapping(low, high - low + 1))
        found: dict[int, tuple[int, bool]] = {}
        for i in range(high - low + 1):
            for shifted in (False, True):
                found.setdefault(
                    reply.keysyms[i * reply.keysyms_per_keycode + shifted], (low + i, shifted)
                )
        return found

    def _send(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        import xcffib

        try:
            self._test.FakeInput(kind, detail, 0, self._root, x, y, 0)
            self._x.flush()
        except xcffib.ConnectionException as gone:
            raise EnvironmentFailure("the display is gone", "the desktop is built anew") from gone

    # ── windows

    def managed(self) -> bool | None:
        """True once the window manager answers what is asked of it, None before. Its name on the
        root window is not enough: openbox sets that first, and a window that asks to be shown
        between the two is never shown."""
        if self._asking is None:
            self._asking = self._x.generate_id()
            self._x.core.CreateWindow(0, self._asking, self._root, -1, -1, 1, 1, 0, 0, 0, 0, [])
        if self._property(self._root, "_NET_SUPPORTING_WM_CHECK"):
            self._request(self._asking, "_NET_REQUEST_FRAME_EXTENTS")
        if not self._holds(self._asking, "_NET_FRAME_EXTENTS"):
            return None
        self._x.core.DestroyWindow(self._asking)
        self._asking = None
        return True

    def windows(self) -> list[Window]:
        """In the order in which they came."""
        active = (self._property(self._root, "_NET_ACTIVE_WINDOW") or [0])[0]
        return [
            one
            for window in self._property(self._root, "_NET_CLIENT_LIST")
            if (one := self._window(window, window == active)) is not None
        ]

    def _window(self, window: int, active: bool) -> Window | None:
        """None for a window that has just gone."""
        import xcffib.xproto

        try:
            title = self._text(window, "_NET_WM_NAME") or self._text(window, "WM_NAME")
            size = self._ask(self._x.core.GetGeometry(window))
            at = self._ask(self._x.core.TranslateCoordinates(window, self._root, 0, 0))
            states = frozenset(self._name(a) for a in self._property(window, "_NET_WM_STATE"))
        except (xcffib.xproto.WindowError, xcffib.xproto.DrawableError):
            return None
        return Window(window, title, active, at.dst_x, at.dst_y, size.width, size.height, states)

    def _property(self, window: int, name: str) -> list[int]:
        reply = self._ask(self._x.core.GetProperty(False, window, self._atom(name), 0, 0, 1024))
        return list(reply.value.to_atoms()) if reply.format == 32 else []

    def _holds(self, window: int, name: str) -> bool:
        return bool(
            self._ask(self._x.core.GetProperty(False, window, self._atom(name), 0, 0, 1)).type
        )

    def _request(self, window: int, name: str) -> None:
        """Asks the window manager for `name` (a message of EWMH without data) about a window."""
        from xcffib.xproto import ClientMessageData, ClientMessageEvent, EventMask

        told = ClientMessageEvent.synthetic(
            32, window, self._atom(name), ClientMessageData.synthetic([0] * 5, "I" * 5)
        )
        self._x.core.SendEvent(
            False,
            self._root,
            EventMask.SubstructureNotify | EventMask.SubstructureRedirect,
            told.pack(),
        )

    def _text(self, window: int, name: str) -> str:
        reply = self._ask(self._x.core.GetProperty(False, window, self._atom(name), 0, 0, 64))
        return bytes(reply.value.buf()).decode("utf-8", "replace") if reply.format == 8 else ""

    def _atom(self, name: str) -> int:
        if name not in self._atoms:
            self._atoms[name] = self._ask(self._x.core.InternAtom(False, len(name), name)).atom
        return self._atoms[name]

    def _name(self, atom: int) -> str:
        if atom not in self._names:
            self._names[atom] = bytes(self._ask(self._x.core.GetAtomName(atom)).name.buf()).decode()
        return self._names[atom]

    def _ask(self, cookie: Any) -> Any:
        import xcffib

        try:
            return cookie.reply()
        except xcffib.ConnectionException as gone:
            raise EnvironmentFailure("the display is gone", "the desktop is built anew") from gone
