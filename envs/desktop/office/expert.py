"""The actions that do each task of desktop/office, mostly by keyboard shortcuts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envs.desktop.nodes import Node
from envs.desktop.office.scene import Scene
from envs.desktop.office.tasks import FUNCTIONS, last_row
from envs.desktop.windows import Window

_SAVE = "hotkey ctrl+s"
_TO_THE_NAME_BOX = "hotkey ctrl+shift+t"
"""Calc's key for the field that holds the cell's name: what is typed there is gone to."""
_REPLACE_FIELD_PIXELS = 300
"""From the middle of the label "Replace:" to its field, which has no name of its own."""


def plan(scene: Scene, nodes: Sequence[Node]) -> list[str]:
    """All actions but the last one, `done`. Clicks are at positions of the present `nodes`."""
    w = scene.task.words
    n = scene.task.numbers
    match scene.task.family:
        case "formula":
            last = last_row(scene.task)
            formula = f"={FUNCTIONS[w[0]]}(B2:B{last})"
            return [_TO_THE_NAME_BOX, f"typing B{last + 1}\\n", f"typing {formula}\\n", _SAVE]
        case "cell":
            return [_TO_THE_NAME_BOX, f"typing D{int(n[-1])}\\n", f"typing {w[0]}\\n", _SAVE]
        case "replace":
            return [
                "hotkey ctrl+h",
                f"typing {w[0]}",
                _click(nodes, "Replace:", right=_REPLACE_FIELD_PIXELS),
                f"typing {w[1]}",
                _click(nodes, "Replace All"),
                "press esc",
                _SAVE,
            ]
        case "note":
            return ["hotkey ctrl+end", f"typing {w[0]}\\n", _SAVE]
        case "rename":
            name = _click(nodes, f"{w[0]}.txt")
            return [name, "press f2", "hotkey ctrl+a", f"typing {w[1]}.txt\\n"]
        case "move":
            name = _click(nodes, f"{w[0]}.txt")
            folder = _click(nodes, w[1])
            return [name, "hotkey ctrl+x", folder, "press enter", "hotkey ctrl+v"]
        case "calculate":
            editor = next(window for window in scene.windows if "answer" in window.title)
            to_editor = f"click {_title_bar(editor, right=150)}"
            return [f"typing {n[0]:g}*{n[1]:g}\\n", to_editor, f"typing {n[0] * n[1]:g}", _SAVE]
        case "count":
            return [f"typing grep -c {w[0]} log.txt > count.txt\\n"]
        case "maximise":
            return [f"double_click {_title_bar(scene.target_window)}"]
    return [f"click {_title_bar(scene.target_window)}", "hotkey alt+f4"]


def _click(nodes: Iterable[Node], label: str, right: int = 0) -> str:
    """A click on the node with that name or text, or some pixels to its right; else `wait`."""
    for window in nodes:
        for node in window.walk():
            if label in (node.name, node.text) and node.box[2] > 0:
                x, y = node.middle
                return f"click {x + right} {y}"
    return "wait"


def _title_bar(window: Window, right: int = 60) -> str:
    """A pixel of a window's title bar, which is above the window's own area."""
    return f"{window.x + right} {window.y - 8}"
