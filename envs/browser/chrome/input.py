"""The mouse and the keyboard of a page on the fast path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envs.browser.chrome.devtools import Session

MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
"""The bits of the DevTools protocol."""
KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, "\t"),
    "Backspace": (8, ""),
    "Delete": (46, ""),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "Space": (32, " "),
}
"""Key -> (its Windows virtual key code, which pages see as `keyCode`; the text that it writes)."""

_DRAG_SHARES = (0.25, 0.5, 0.75, 1.0)
_DRAG_MILLISECONDS = 20  # of the page's clock, after each part of a drag


class Mouse:
    """The mouse of a page. Positions are in pixels of its viewport."""

    def __init__(self, session: Session, advance: Callable[[float], None]) -> None:
        """`advance` lets the page's clock run on by some milliseconds."""
        self._session = session
        self._advance = advance

    def move(self, x: float, y: float) -> None:
        self._event("mouseMoved", x, y)

    def click(self, x: float, y: float, times: int = 1) -> None:
        self.move(x, y)
        for count in range(1, times + 1):
            self._event("mousePressed", x, y, "left", count)
            self._event("mouseReleased", x, y, "left", count)

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Drags in a few parts: many pages take one jump for no drag."""
        self.move(x, y)
        self._event("mousePressed", x, y, "left", 1)
        for share in _DRAG_SHARES:
            self._event("mouseMoved", x + share * (to_x - x), y + share * (to_y - y), "left")
            self._advance(_DRAG_MILLISECONDS)
        self._event("mouseReleased", to_x, to_y, "left", 1)

    def scroll(self, x: float, y: float, pixels: float) -> None:
        """Turns the wheel while the mouse is at a position."""
        self._session.send_while_drawing(
            "Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=pixels
        )

    def _event(self, kind: str, x: float, y: float, button: str = "none", count: int = 0) -> None:
        event: dict[str, Any] = {
            "type": kind,
            "x": x,
            "y": y,
            "button": button,
            "clickCount": count,
            # The buttons that are held after the event: the left one's bit is 1.
            "buttons": 1 if button == "left" and kind != "mouseReleased" else 0,
        }
        if kind == "mouseMoved":
            self._session.send_while_drawing("Input.dispatchMouseEvent", **event)
        else:
            self._session.send("Input.dispatchMouseEvent", **event)


class Keyboard:
    """The keyboard of a page. What is typed goes to the element that has the focus."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def type(self, text: str) -> None:
        """Types key by key, so that the page hears the events of a person's typing."""
        for character in text:
            self._event("keyDown", text=character, key=character)
            self._event("keyUp", key=character)

    def press(self, combination: str) -> None:
        """Presses a key, with modifiers before it: Enter, a, Control+a.

        Raises ValueError for an unknown key or modifier.
        """
        *held, key = combination.split("+") if combination != "+" else ["+"]
        if any(m not in MODIFIERS for m in held) or (key not in KEYS and len(key) != 1):
            raise ValueError(f"no key {combination[:20]}: a character, or one of {', '.join(KEYS)}")
        bits = sum(MODIFIERS[m] for m in held)
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        key_of_event = {"key": key, "modifiers": bits, "windowsVirtualKeyCode": code}
        # The event names the editing command that its keys stand for.
        commands = ["selectAll"] if key.lower() == "a" and held == ["Control"] else []
        if text and not bits:
            self._event("keyDown", **key_of_event, commands=commands, text=text)
        else:
            # The protocol's name for a key that writes no text.
            self._event("rawKeyDown", **key_of_event, commands=commands)
        self._event("keyUp", **key_of_event)

    def _event(self, kind: str, **fields: Any) -> None:
        self._session.send("Input.dispatchKeyEvent", type=kind, **fields)
