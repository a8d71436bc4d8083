"""The mouse and the keyboard of a desktop. Programs get their events as from real devices."""

from __future__ import annotations

from collections.abc import Sequence

from envs.desktop.display import Display

BUTTONS = {"left": 1, "middle": 2, "right": 3}
_WHEEL_BUTTONS = {(0, -1): 5, (0, 1): 4, (-1, 0): 6, (1, 0): 7}
"""(right, up) -> the button that X has for a step of the wheel."""
_MOST_WHEEL_STEPS = 50
# Numbers of the X protocol's events.
_KEY_DOWN = 2
_KEY_UP = 3
_BUTTON_DOWN = 4
_BUTTON_UP = 5
_MOTION = 6

_KEYSYMS = {
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
"""Name of a key -> its keysym, as in X11's keysymdef.h."""
_CONTROL_CHARACTERS = {"\n": _KEYSYMS["enter"], "\t": _KEYSYMS["tab"]}


class Mouse:
    """The pointer of a display, its buttons and its wheel."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def move(self, x: int, y: int) -> None:
        self._display.send_input(_MOTION, 0, x, y)

    def press(self, button: str) -> None:
        self._display.send_input(_BUTTON_DOWN, BUTTONS[button])

    def release(self, button: str) -> None:
        self._display.send_input(_BUTTON_UP, BUTTONS[button])

    def position(self) -> tuple[int, int]:
        at = self._display.ask(self._display.core.QueryPointer(self._display.root))
        return at.root_x, at.root_y

    def turn_wheel(self, right: int, up: int) -> None:
        """Turns the wheel by that many steps; negative ones are to the left and down."""
        for (x, y), button in _WHEEL_BUTTONS.items():
            steps = max(right * x, up * y, 0)
            for _ in range(min(steps, _MOST_WHEEL_STEPS)):
                self._display.send_input(_BUTTON_DOWN, button)
                self._display.send_input(_BUTTON_UP, button)


class Keyboard:
    """The keys of a display.

    A key is a single character or one of the names that the error of an unknown key lists: every
    method raises ValueError for another one, before any event is sent.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._keys = self._mapping()

    def press(self, name: str) -> None:
        code, _ = self._key(name)
        self._display.send_input(_KEY_DOWN, code)

    def release(self, name: str) -> None:
        code, _ = self._key(name)
        self._display.send_input(_KEY_UP, code)

    def stroke(self, name: str) -> None:
        """Presses and releases a key, with Shift if the keyboard has the character there."""
        code, needs_shift = self._key(name)
        shift, _ = self._key("shift")
        if needs_shift:
            self._display.send_input(_KEY_DOWN, shift)
        self._display.send_input(_KEY_DOWN, code)
        self._display.send_input(_KEY_UP, code)
        if needs_shift:
            self._display.send_input(_KEY_UP, shift)

    def type(self, text: str) -> None:
        for character in text:
            self._key(character)  # an unknown one is found before anything is typed
        for character in text:
            self.stroke(character)

    def chord(self, names: Sequence[str]) -> None:
        """Presses the keys one after another, and releases them in the reverse order."""
        for name in names:
            self._key(name)
        for name in names:
            self.press(name)
        for name in reversed(names):
            self.release(name)

    def _key(self, name: str) -> tuple[int, bool]:
        """(keycode, whether Shift is needed) of a key."""
        keysym = _keysym(name)
        if keysym not in self._keys:
            raise ValueError(
                f"no key {name[:20]!r}; keys are single characters and: "
                f"{', '.join(sorted(_KEYSYMS))}"
            )
        return self._keys[keysym]

    def _mapping(self) -> dict[int, tuple[int, bool]]:
        """keysym -> (keycode, whether Shift is needed), from the display's own keyboard map."""
        low = self._display.setup.min_keycode
        count = self._display.setup.max_keycode - low + 1
        reply = self._display.ask(self._display.core.GetKeyboardMapping(low, count))
        found: dict[int, tuple[int, bool]] = {}
        for i in range(count):
            first = i * reply.keysyms_per_keycode
            # The first keysym of a key is without Shift, the second is with Shift. The first key
            # found for a keysym is kept.
            found.setdefault(reply.keysyms[first], (low + i, False))
            found.setdefault(reply.keysyms[first + 1], (low + i, True))
        return found


def _keysym(name: str) -> int:
    """The keysym of a key, or -1 for an unknown name. A Latin-1 character is its own keysym."""
    if name in _CONTROL_CHARACTERS:
        return _CONTROL_CHARACTERS[name]
    if len(name) == 1:
        return ord(name)
    return _KEYSYMS.get(name.lower(), -1)
