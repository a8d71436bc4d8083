"""The windows of a desktop, as its window manager lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.desktop.display import Display


@dataclass(frozen=True)
class Window:
    """A window that the window manager manages: its place and size are in pixels.

    `states` are names of EWMH, e.g. _NET_WM_STATE_HIDDEN.
    """

    id: int
    title: str
    active: bool
    x: int
    y: int
    width: int
    height: int
    states: frozenset[str]


class WindowManager:
    """What the window manager of a display tells about the windows, by the EWMH standard.

    Every method raises EnvironmentFailure once the display is gone.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._trial: int | None = None
        """A window of ours with which `ready` tries whether the manager answers."""

    def ready(self) -> bool | None:
        """True once the window manager answers a request, None before.

        Its name on the root window is not enough: openbox sets that first, and a window that asks
        to be shown between the two is never shown.
        """
        core = self._display.core
        if self._trial is None:
            self._trial = self._display.new_id()
            core.CreateWindow(0, self._trial, self._display.root, -1, -1, 1, 1, 0, 0, 0, 0, [])
        if self._property(self._display.root, "_NET_SUPPORTING_WM_CHECK"):
            self._request(self._trial, "_NET_REQUEST_FRAME_EXTENTS")
        if not self._has_property(self._trial, "_NET_FRAME_EXTENTS"):
            return None
        core.DestroyWindow(self._trial)
        self._trial = None
        return True

    def windows(self) -> list[Window]:
        """The windows in the order in which they were first shown."""
        root = self._display.root
        active = (self._property(root, "_NET_ACTIVE_WINDOW") or [0])[0]
        listed = self._property(root, "_NET_CLIENT_LIST")
        windows = [self._window(window, window == active) for window in listed]
        return [window for window in windows if window is not None]

    def _window(self, window: int, active: bool) -> Window | None:
        """None for a window that has closed since it was listed."""
        import xcffib.xproto

        ask = self._display.ask
        core = self._display.core
        try:
            title = self._text(window, "_NET_WM_NAME") or self._text(window, "WM_NAME")
            size = ask(core.GetGeometry(window))
            at = ask(core.TranslateCoordinates(window, self._display.root, 0, 0))
            atoms = self._property(window, "_NET_WM_STATE")
        except (xcffib.xproto.WindowError, xcffib.xproto.DrawableError):
            return None
        states = frozenset(self._display.atom_name(atom) for atom in atoms)
        return Window(window, title, active, at.dst_x, at.dst_y, size.width, size.height, states)

    def _request(self, window: int, name: str) -> None:
        """Sends the window manager a message of EWMH about a window."""
        from xcffib.xproto import ClientMessageData, ClientMessageEvent, EventMask

        no_data = ClientMessageData.synthetic([0] * 5, "I" * 5)
        message = ClientMessageEvent.synthetic(32, window, self._display.atom(name), no_data)
        # Messages to the window manager go to the root window, with the two masks that only a
        # window manager selects.
        to_manager = EventMask.SubstructureNotify | EventMask.SubstructureRedirect
        self._display.core.SendEvent(False, self._display.root, to_manager, message.pack())

    def _property(self, window: int, name: str) -> list[int]:
        """The numbers of a property; none if it is not set."""
        reply = self._get(window, name, 1024)
        return list(reply.value.to_atoms()) if reply.format == 32 else []

    def _text(self, window: int, name: str) -> str:
        reply = self._get(window, name, 64)
        return bytes(reply.value.buf()).decode("utf-8", "replace") if reply.format == 8 else ""

    def _has_property(self, window: int, name: str) -> bool:
        return bool(self._get(window, name, 1).type)

    def _get(self, window: int, name: str, most_words: int) -> Any:
        """The reply about a property, of which at most that many words of 32 bits are read."""
        core = self._display.core
        atom = self._display.atom(name)
        return self._display.ask(core.GetProperty(False, window, atom, 0, 0, most_words))
