"""How a task finds its desktop: the files in the home and the windows that are open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envs.desktop.desktop import Desktop
from envs.desktop.office.documents import Cell, letter, sheet
from envs.desktop.office.tasks import DesktopTask
from envs.desktop.windows import Window


@dataclass(frozen=True)
class Scene:
    """A task, the desktop on which it is done, and what was there at the start."""

    task: DesktopTask
    desktop: Desktop
    files: Mapping[str, bytes]
    """Path below the home -> bytes."""
    windows: tuple[Window, ...]

    @property
    def target_window(self) -> Window:
        """The window that the task names."""
        return next(window for window in self.windows if self.task.words[0] in window.title)


def set_up(task: DesktopTask, desktop: Desktop) -> Scene:
    """Writes the task's files into the home and starts its programs, one after another."""
    files = files_of(task)
    desktop.put(files)
    windows = []
    for command, title in programs_of(task):
        windows.append(desktop.launch(command, title))
        desktop.settle()
    return Scene(task, desktop, files, tuple(windows))


def files_of(task: DesktopTask) -> dict[str, bytes]:
    """The files (path below the home -> bytes) that the task starts with."""
    words = task.words
    match task.family:
        case "formula" | "cell":
            return {"prices.ods": _prices(task)}
        case "replace":
            return {"letter.odt": _letter(task)}
        case "note":
            return {"notes.txt": _lines(words[1:])}
        case "rename":
            return _one_file_each((words[0], *words[2:]))
        case "move":
            return {**_one_file_each((words[0], *words[2:])), f"{words[1]}/old.txt": b"old\n"}
        case "calculate":
            return {"answer.txt": b""}
        case "count":
            return {"log.txt": _lines([f"{word} {i}" for i, word in enumerate(words[1:])])}
    return {"notes.txt": b"nothing\n", "plan.txt": b"nothing\n"}


def programs_of(task: DesktopTask) -> list[tuple[str, str]]:
    """(command, word in its window's title) of each program that is open at the start."""
    match task.family:
        case "formula" | "cell":
            return [("soffice --norestore --nologo /home/prices.ods", "prices.ods")]
        case "replace":
            return [("soffice --norestore --nologo /home/letter.odt", "letter.odt")]
        case "note":
            return [("mousepad /home/notes.txt", "notes.txt")]
        case "rename" | "move":
            return [("pcmanfm /home", "home")]
        case "calculate":
            return [("mousepad /home/answer.txt", "answer.txt"), ("galculator", "galculator")]
        case "count":
            return [("lxterminal", "")]
    return [
        ("mousepad /home/notes.txt", "notes.txt"),
        # Without the option, the editor that runs already would open this file too.
        ("mousepad --disable-server /home/plan.txt", "plan.txt"),
        ("galculator", "galculator"),
    ]


def _prices(task: DesktopTask) -> bytes:
    items = zip(task.words[1:], task.numbers, strict=False)
    rows: list[tuple[Cell, ...]] = [("item", "price"), *items]
    return sheet(rows)


def _letter(task: DesktopTask) -> bytes:
    old, _, name = task.words
    return letter(
        [
            f"Dear {name},",
            f"we have no {old} now.",
            f"More {old} will come on day {task.numbers[0]:g}.",
            "Yours, Ann",
        ]
    )


def _lines(lines: list[str] | tuple[str, ...]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _one_file_each(words: tuple[str, ...]) -> dict[str, bytes]:
    return {f"{word}.txt": f"about {word}\n".encode() for word in words}
