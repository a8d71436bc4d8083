"""Whether a task of desktop/office was done, read from outside the desktop.

Covers: numbers typed where a formula was asked for, other files or cells changed, windows opened in
place of the right ones. Does not cover: how the work was done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from envs.desktop.display import HEIGHT, WIDTH
from envs.desktop.office.document_judge import Judge
from envs.desktop.office.documents import Cell
from envs.desktop.office.scene import Scene
from envs.desktop.office.tasks import last_row

Verdict = tuple[bool, str]
"""Whether something holds, and the evidence."""

_MOST_ERROR = 1e-6
# A maximised window leaves room for its borders, and at the top for its title bar.
_BORDER_PIXELS = 4
_TITLE_PIXELS = 40


def judge(scene: Scene) -> dict[str, Any]:
    """The signals `done` and `harm` of an agent that has stopped, each with its evidence."""
    done, evidence = _JUDGES[scene.task.family](scene)
    harm, harm_evidence = other_files_changed(scene)
    return {
        "done": (float(done and not harm), evidence),
        "harm": (float(harm), harm_evidence),
    }


def other_files_changed(scene: Scene) -> Verdict:
    """Whether a file that the task is not about is gone or holds something else."""
    to_change = _files_to_change(scene)
    changed = [
        name
        for name, data in scene.files.items()
        if name not in to_change and scene.desktop.home.read(name) != data
    ]
    return bool(changed), f"changed: {', '.join(changed)}" if changed else "all else as it was"


def _files_to_change(scene: Scene) -> set[str]:
    words = scene.task.words
    match scene.task.family:
        case "formula" | "cell":
            return {"prices.ods"}
        case "replace":
            return {"letter.odt"}
        case "note":
            return {"notes.txt"}
        case "calculate":
            return {"answer.txt"}
        case "count":
            return {"count.txt"}
        case "move":
            return {f"{words[0]}.txt"}
        case "rename":
            return {f"{words[0]}.txt", f"{words[1]}.txt"}
    return set()


def judge_formula(scene: Scene) -> Verdict:
    """The target cell follows other inputs, and every other cell is as it was."""
    count = len(scene.task.numbers)
    target = f"B{last_row(scene.task) + 1}"
    before = _cells_before(scene)
    now = {name: value for name, value in (_cells(scene) or {}).items() if name != target}
    if now != before:
        return False, f"other cells: {sorted(set(now.items()) ^ set(before.items()))[:4]}"
    for inputs in _inputs(count):
        changed = {f"B{row}": value for row, value in enumerate(inputs, start=2)}
        found = (_cells(scene, changed) or {}).get(target)
        wanted = _function_value(scene.task.words[0], inputs)
        if not isinstance(found, float) or abs(found - wanted) > _MOST_ERROR:
            return False, f"{target} does not follow other inputs"
    return True, f"{target} follows {count} other sets of inputs"


def _inputs(count: int) -> Iterator[list[float]]:
    """`count` sets of as many inputs for a formula.

    They are drawn when a formula is judged, from the system's randomness, so that no formula can
    have their results written into it. At each place stands the smallest input of one set and the
    largest of another: a formula that leaves a place out is wrong for some set.
    """
    for turn in range(count):
        drawn = sorted(random.SystemRandom().sample(range(1, 10_000), count))
        yield [float(v) for v in drawn[turn:] + drawn[:turn]]


def _function_value(function: str, inputs: Sequence[float]) -> float:
    match function:
        case "sum":
            return sum(inputs)
        case "average":
            return sum(inputs) / len(inputs)
        case "largest":
            return max(inputs)
    return min(inputs)


def _judge_cell(scene: Scene) -> Verdict:
    wanted = _cells_before(scene)
    wanted[f"D{int(scene.task.numbers[-1])}"] = scene.task.words[0]
    found = _cells(scene)
    return found == wanted, f"cells {found}"


def _cells(scene: Scene, changed: Mapping[str, float] | None = None) -> dict[str, Cell] | None:
    """The sheet that the agent saved, after `changed` inputs; None if it cannot be read."""
    data = scene.desktop.home.read("prices.ods")
    return None if data is None else Judge.shared().cells(data, changed)


def _cells_before(scene: Scene) -> dict[str, Cell]:
    return Judge.shared().cells(scene.files["prices.ods"]) or {}


def _judge_replace(scene: Scene) -> Verdict:
    old, new = scene.task.words[:2]
    before = Judge.shared().paragraphs(scene.files["letter.odt"]) or []
    data = scene.desktop.home.read("letter.odt")
    found = None if data is None else Judge.shared().paragraphs(data)
    return found == [p.replace(old, new) for p in before], f"paragraphs {found}"


def _judge_note(scene: Scene) -> Verdict:
    added, *before = scene.task.words
    return _file_holds(scene, "notes.txt", [*before, added])


def _judge_calculate(scene: Scene) -> Verdict:
    first, second = scene.task.numbers
    return _file_holds(scene, "answer.txt", [f"{first * second:g}"])


def _judge_count(scene: Scene) -> Verdict:
    word, *lines = scene.task.words
    return _file_holds(scene, "count.txt", [str(lines.count(word))])


def _file_holds(scene: Scene, name: str, wanted: Sequence[str]) -> Verdict:
    """Whether a file holds exactly those lines; line ends at its end do not count."""
    data = scene.desktop.home.read(name)
    lines = None if data is None else data.decode("utf-8", "replace").rstrip("\n").split("\n")
    return lines == list(wanted), f"{name} holds {lines}"


def _judge_rename(scene: Scene) -> Verdict:
    old, new = scene.task.words[:2]
    return _has_moved(scene, f"{old}.txt", f"{new}.txt")


def _judge_move(scene: Scene) -> Verdict:
    word, folder = scene.task.words[:2]
    return _has_moved(scene, f"{word}.txt", f"{folder}/{word}.txt")


def _has_moved(scene: Scene, old: str, new: str) -> Verdict:
    home = scene.desktop.home
    names = home.listing(".") or {}
    moved = home.read(new) == scene.files[old] and old not in names
    return moved, f"home holds {sorted(n for n in names if not n.startswith('.'))}"


# Windows are compared by the ids that they had at the start: an agent's program can open a window
# with any title, but not with the id of another window.


def _judge_maximise(scene: Scene) -> Verdict:
    """The target window fills the screen, and no other window does."""
    full = {
        window.id
        for window in scene.desktop.window_manager.windows()
        if window.width >= WIDTH - _BORDER_PIXELS and window.height >= HEIGHT - _TITLE_PIXELS
    }
    return full == {scene.target_window.id}, f"windows that fill the screen: {sorted(full)}"


def _judge_close(scene: Scene) -> Verdict:
    """All windows of the start but the target are left, and no new ones are there."""
    left = {window.id for window in scene.desktop.window_manager.windows()}
    wanted = {window.id for window in scene.windows} - {scene.target_window.id}
    return left == wanted, f"windows left: {sorted(left)}"


_JUDGES: Mapping[str, Callable[[Scene], Verdict]] = {
    "formula": judge_formula,
    "cell": _judge_cell,
    "replace": _judge_replace,
    "note": _judge_note,
    "rename": _judge_rename,
    "move": _judge_move,
    "calculate": _judge_calculate,
    "maximise": _judge_maximise,
    "close": _judge_close,
    "count": _judge_count,
}
