"""The actions of a world that is worked by mouse and keys, named as in OSWorld's `computer_13`."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Generic, Literal

from envs.authoring import Outcome, Range, ToolWorld, action
from envs.contract import Task
from envs.desktop.desktop import Desktop
from envs.desktop.display import HEIGHT, WIDTH

_X = Annotated[int, Range(0, WIDTH - 1)]
_Y = Annotated[int, Range(0, HEIGHT - 1)]
_Button = Literal["left", "middle", "right"]
_Steps = Annotated[int, Range(-20, 20)]
_ACTED: Outcome = ({"actions": 1.0}, False)
_DRAG_STEPS = (0.25, 0.5, 0.75, 1.0)
_DRAG_SECONDS = 0.2


class Computer13(ToolWorld[Task], Generic[Task]):
    """A world whose agent works a desktop.

    A subclass gives `desktop`, and `judged`: the outcome of an agent that says it is done or gives
    up.
    """

    forms: ClassVar[dict[str, str]] = {
        "click": "Click at a pixel, or without X and Y where the pointer is",
        "double_click": "Double-click at a pixel, or where the pointer is",
        "right_click": "Click with the right button",
        "typing": r"Type TEXT into the active window; \n in it is Enter and \t is Tab",
        "press": "Press a key, e.g. press enter, press f2 or press down",
        "hotkey": "Press keys together, e.g. hotkey ctrl+s",
        "scroll": "Turn the wheel, to the right by DX and up by DY",
        "move_to": "Move the pointer to a pixel",
        "drag_to": "Drag from the pointer to a pixel with the left button",
        "mouse_down": "Press a mouse button and hold it",
        "mouse_up": "Let a mouse button go",
        "key_down": "Press a key and hold it",
        "key_up": "Let a key go",
        "wait": "Do nothing for a moment",
        "done": "Say that the errand is done. It is judged then, so do this last",
        "fail": "Give up, because it cannot be done",
    }

    @property
    def desktop(self) -> Desktop:
        raise NotImplementedError

    def judged(self) -> Outcome:
        raise NotImplementedError

    def read(self, text: str) -> tuple[str, dict[str, Any]]:
        """Reads OSWorld's own form {"action_type": "CLICK", "parameters": {...}} as well."""
        if text.startswith("{") and "action_type" in text:
            try:
                written = json.loads(text)
                name = str(written["action_type"]).lower()
                text = json.dumps({"name": name, "arguments": written.get("parameters", {})})
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ValueError(
                    'write {"action_type": "CLICK", "parameters": {"x": 10, "y": 20}}'
                ) from None
        return super().read(text)

    @action
    def move_to(self, x: _X, y: _Y) -> Outcome:
        """Move the pointer to a pixel."""
        self.desktop.mouse.move(x, y)
        return _ACTED

    @action
    def click(
        self,
        x: _X = -1,
        y: _Y = -1,
        button: _Button = "left",
        num_clicks: Annotated[int, Range(1, 3)] = 1,
    ) -> Outcome:
        """Click at a pixel, or where the pointer is."""
        if x >= 0 and y >= 0:
            self.desktop.mouse.move(x, y)
        for _ in range(num_clicks):
            self.desktop.mouse.press(button)
            self.desktop.mouse.release(button)
        return _ACTED

    @action
    def mouse_down(self, button: _Button = "left") -> Outcome:
        """Press a mouse button and hold it."""
        self.desktop.mouse.press(button)
        return _ACTED

    @action
    def mouse_up(self, button: _Button = "left") -> Outcome:
        """Let a mouse button go."""
        self.desktop.mouse.release(button)
        return _ACTED

    @action
    def right_click(self, x: _X = -1, y: _Y = -1) -> Outcome:
        """Click with the right button."""
        return self.click(x, y, "right")

    @action
    def double_click(self, x: _X = -1, y: _Y = -1) -> Outcome:
        """Click twice."""
        return self.click(x, y, "left", 2)

    @action
    def drag_to(self, x: _X, y: _Y) -> Outcome:
        """Drag from the pointer to a pixel with the left button."""
        mouse = self.desktop.mouse
        mouse.press("left")
        # Programs begin a drag only if they see the pointer move; one jump is not enough.
        for share in _DRAG_STEPS:
            from_x, from_y = mouse.position()
            mouse.move(round(from_x + (x - from_x) * share), round(from_y + (y - from_y) * share))
            self.desktop.settle(_DRAG_SECONDS)
        mouse.release("left")
        return _ACTED

    @action
    def scroll(self, dx: _Steps, dy: _Steps) -> Outcome:
        """Turn the wheel: right by dx, up by dy."""
        self.desktop.mouse.turn_wheel(dx, dy)
        return _ACTED

    @action
    def typing(self, text: str) -> Outcome:
        r"""Type a text; \n is Enter and \t is Tab."""
        self.desktop.keyboard.type(text.replace("\\n", "\n").replace("\\t", "\t"))
        return _ACTED

    @action
    def press(self, key: str) -> Outcome:
        """Press a key, e.g. enter, tab, f2, down."""
        self.desktop.keyboard.stroke(key)
        return _ACTED

    @action
    def key_down(self, key: str) -> Outcome:
        """Press a key and hold it."""
        self.desktop.keyboard.press(key)
        return _ACTED

    @action
    def key_up(self, key: str) -> Outcome:
        """Let a key go."""
        self.desktop.keyboard.release(key)
        return _ACTED

    @action
    def hotkey(self, keys: str) -> Outcome:
        """Press keys together, e.g. ctrl+s."""
        self.desktop.keyboard.chord(keys.replace("+", " ").split())
        return _ACTED

    @action
    def wait(self) -> Outcome:
        """Do nothing for a moment."""
        return _ACTED

    @action
    def fail(self) -> Outcome:
        """Give up: it cannot be done."""
        return self.judged()

    @action
    def done(self) -> Outcome:
        """Say that the errand is done, which ends it."""
        return self.judged()
