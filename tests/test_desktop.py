"""The desktop: what it keeps from the host, what it shows, and that only real work is paid."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.desktop.desktop import Desktop
from envs.desktop.office.document_judge import Judge
from envs.desktop.office.documents import letter, sheet
from envs.desktop.office.spares import Spares
from envs.desktop.office.tasks import FAMILIES, FUNCTIONS, DesktopTask
from envs.desktop.office.world import DesktopOffice
from envs.desktop.programs import programs
from experience.errors import EnvironmentFailure, MissingPartError


@pytest.fixture(scope="module")
def world() -> Iterator[DesktopOffice]:
    try:
        programs()
    except MissingPartError as missing:
        pytest.skip(" ".join(str(missing).split()))
    world = DesktopOffice()
    yield world
    world.close()
    Spares.close()
    Judge.shared().close()


def test_a_program_started_at_once_shows_its_window() -> None:
    """openbox sets its name before it listens: 13 of 20 windows that asked in between were never
    shown."""
    try:
        programs()
    except MissingPartError as missing:
        pytest.skip(" ".join(str(missing).split()))
    for _ in range(6):
        with closing(Desktop({})) as desktop:
            assert "LXTerminal" in desktop.launch("lxterminal", "LXTerminal").title


def errand(world: DesktopOffice, family: str, seed: int = 0) -> DesktopTask:
    rng = np.random.default_rng(seed)
    return next(task for task in iter(lambda: world.draw(rng), None) if task.family == family)


def test_a_task_keeps_its_signature_whatever_its_class_is_called() -> None:
    world = DesktopOffice.__new__(DesktopOffice)  # a signature needs no desktop
    task = DesktopTask("cell", ("tea", "ink"), (3.0,))
    wanted = "Errand(family='cell', words=('tea', 'ink'), numbers=(3.0,))"
    assert world.signature(task) == wanted


def began(world: DesktopOffice, task: DesktopTask) -> str:
    world.tasks = lambda split, rng: task  # type: ignore[method-assign]
    return world.reset(seed=0)[0]


def paid(world: DesktopOffice, actions: list[str]) -> tuple[float, dict[str, Any]]:
    for action in actions:
        _, _, terminated, _, info = world.step(action)
        assert not terminated
    _, _, terminated, _, info = world.step("done")
    assert terminated
    return info["signals"]["done"][0], info["signals"]


def by_hand(world: DesktopOffice) -> list[str]:
    """Does all actions of the expert but the last one, `done`; leaves none to do."""
    while (action := world.oracle_action()) != "done":
        world.step(action)
    return []


def test_a_formula_is_paid_and_the_number_that_it_gives_is_not(world: DesktopOffice) -> None:
    task = errand(world, "formula")
    seen = began(world, task)
    assert re.search(r"table cell B2 = \d+ @\d+,\d+", seen) and "(active)" in seen
    assert paid(world, by_hand(world))[0] == 1.0
    began(world, task)
    last = len(task.numbers) + 2
    value = {"sum": sum, "largest": max, "smallest": min, "average": lambda n: sum(n) / len(n)}[
        task.words[0]
    ](task.numbers)
    done, signals = paid(
        world,
        ["hotkey ctrl+shift+t", f"typing B{last}\\n", f"typing {value:g}\\n", "hotkey ctrl+s"],
    )
    assert done == 0.0 and "does not follow" in signals["done"][1]


def test_the_names_and_the_form_of_osworlds_actions_are_read(world: DesktopOffice) -> None:
    began(world, errand(world, "close"))
    _, _, _, _, info = world.step('{"action_type": "CLICK", "parameters": {"x": 5, "y": 700}}')
    assert "invalid_action" not in info["signals"] and world.desktop.mouse.position() == (5, 700)
    assert set(world.tools) == {
        "move_to",
        "click",
        "mouse_down",
        "mouse_up",
        "right_click",
        "double_click",
        "drag_to",
        "scroll",
        "typing",
        "press",
        "key_down",
        "key_up",
        "hotkey",
        "wait",
        "fail",
        "done",
    }
    seen, _, _, _, info = world.step("press hyper")
    assert info["signals"]["invalid_action"][0] == 1 and "no key 'hyper'" in seen


def test_what_an_office_shows_late_is_waited_for(world: DesktopOffice) -> None:
    """Undo is offered 0.3 s after something was typed that can be undone."""
    assert "Undo" in (before := began(world, errand(world, "cell")))
    seen = world.step("typing tea\\n")[0]
    assert re.search(r"Undo @\d+,\d+ \(disabled\)", before) and re.search(
        r"Undo @\d+,\d+$", seen, re.MULTILINE
    )


def test_a_key_that_is_held_is_one_letter_however_long(world: DesktopOffice) -> None:
    began(world, errand(world, "note"))
    world.step("key_down q")
    time.sleep(1.5)
    world.step("key_up q")
    world.step("hotkey ctrl+s")
    assert (world.desktop.home.read("notes.txt") or b"").count(b"q") == 1


def test_a_screenshot_shows_what_the_windows_show(world: DesktopOffice) -> None:
    began(world, errand(world, "note"))
    before = world.desktop.framebuffer.png()
    world.step("typing xyz")
    assert before.startswith(b"\x89PNG") and before != world.desktop.framebuffer.png()


def test_nothing_of_the_host_is_reached_from_a_terminal_and_no_link_is_followed_out(
    world: DesktopOffice, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("host\n")
    began(world, errand(world, "count"))
    for line in (
        f"cat {secret} > got.txt",
        "ln -s /etc/hostname linked.txt",
        "ln -s / folder",
        "mkfifo pipe.txt",
        "cat /proc/net/dev > net.txt",
        "echo end > end.txt",
    ):
        world.step(f"typing {line}\\n")
    home = world.desktop.home
    assert home.read("end.txt") == b"end\n" and not home.read("got.txt")
    assert home.read("linked.txt") is None and home.read("pipe.txt") is None
    assert home.read("folder/etc/hostname") is None and home.listing("folder") is None
    assert home.read("../../etc/hostname") is None
    cards = {
        line.split(":")[0].strip()
        for line in (home.read("net.txt") or b"").decode().splitlines()[2:]
    }
    assert cards <= {"lo"}


def test_a_desktop_that_is_killed_is_a_failure_and_never_a_zero(world: DesktopOffice) -> None:
    began(world, errand(world, "count"))
    with pytest.raises(EnvironmentFailure):
        for _ in range(3):
            world.step("typing kill -9 -1\\n")
    assert "count" in began(world, errand(world, "count"))


def test_a_document_that_cannot_be_read_is_worth_nothing_and_the_judge_goes_on(
    world: DesktopOffice,
) -> None:
    judge = Judge.shared()
    assert judge.cells(b"no document") is None and judge.cells(letter(["a letter"])) in (None, {})
    assert judge.cells(sheet([[1.0, 2.0, "of:=[.A1]+[.B1]"]]), {"A1": 5.0}) == {
        "A1": 5.0,
        "B1": 2.0,
        "C1": 7.0,
    }
    assert judge.paragraphs(letter(["<b>", "& more"])) == ["<b>", "& more"]


def test_closing_a_desktop_leaves_no_process(world: DesktopOffice) -> None:
    desktop = Desktop({"a.txt": b"a"})
    pids = desktop.processes.pids()
    assert len(pids) > 5 and desktop.home.read("a.txt") == b"a"
    desktop.close()
    until = time.monotonic() + 300
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_expert_is_paid_in_every_family_and_no_wrong_but_plausible_work_is(
    family: str, world: DesktopOffice
) -> None:
    for seed in range(3):
        began(world, errand(world, family, seed))
        assert paid(world, by_hand(world))[0] == 1.0
    task = errand(world, family)
    wrong = WRONG[family](task)
    assert len(wrong) >= 5
    for work in wrong:
        began(world, task)
        if isinstance(work, dict):
            world.desktop.put(work)
            actions = []
        elif work.startswith("$ "):
            world.desktop.run(work[2:])
            actions = ["wait"]
        else:
            actions = [line for line in work.split("; ") if line]
        done, signals = paid(world, actions)
        assert done == 0.0, (work, signals)


def _formula(task: DesktopTask) -> list[Any]:
    count, name = len(task.numbers), FUNCTIONS[task.words[0]]
    rows = [["item", "price"], *map(list, zip(task.words[1:], task.numbers, strict=False))]
    other = next(f for f in FUNCTIONS.values() if f != name)
    value = {"SUM": sum, "MAX": max, "MIN": min, "AVERAGE": lambda n: sum(n) / len(n)}[name](
        task.numbers
    )

    def ends(cell: Any, of: Any = rows) -> dict[str, bytes]:
        return {"prices.ods": sheet([*of, ["", cell]])}

    return [
        ends(value),
        ends(f"of:={name}([.B2:.B{count}])"),
        ends(f"of:={name}([.B3:.B{count + 1}])"),
        ends(f"of:={other}([.B2:.B{count + 1}])"),
        ends(f"={name}(B2:B{count + 1})"),
        {"prices.ods": sheet([*rows, [f"of:={name}([.B2:.B{count + 1}])"]])},
        ends(f"of:={name}([.B2:.B{count + 1}])", [*rows[:-1], [rows[-1][0], 1.0]]),
        ends(f"of:={value:g}+0*[.B2]"),
        ends(f"of:=IF([.B2]={task.numbers[0]:g};{value:g};0)"),
        "wait",
    ]


def _cell(task: DesktopTask) -> list[Any]:
    word, row = task.words[0], int(task.numbers[-1])
    rows = [["item", "price"], *map(list, zip(task.words[1:], task.numbers, strict=False))]

    def at(text: str, row: int, column: int = 3, more: Any = ()) -> dict[str, bytes]:
        cells = [[*[*r, ""][:2], "", "", ""] for r in [*rows, *[[""]] * 12]]
        cells[row - 1][column] = text
        for r, c, v in more:
            cells[r][c] = v
        return {"prices.ods": sheet(cells)}

    return [
        at(word, row + 1),
        at(word, row, 2),
        at(word.upper(), row),
        at(word + ".", row),
        at("", row),
        at(word, row, 3, [(1, 1, 1.0)]),
        at(word, row, 3, [(11, 4, "x")]),
        {"prices.ods": b"D"},
    ]


def _replace(task: DesktopTask) -> list[Any]:
    old, new = task.words[:2]
    lines = [
        f"Dear {task.words[2]},",
        f"we have no {old} now.",
        f"More {old} will come on day {task.numbers[0]:g}.",
        "Yours, Ann",
    ]
    right = [line.replace(old, new) for line in lines]
    return [
        {"letter.odt": letter(text)}
        for text in (
            [lines[0], right[1], *lines[2:]],
            [*right, new],
            right[:3],
            [line.upper() for line in right],
            [*lines, *right],
            [line.replace(old, old + new) for line in lines],
            right[::-1],
            [],
        )
    ] + ["wait"]


def _note(task: DesktopTask) -> list[Any]:
    had, word = list(task.words[1:]), task.words[0]
    return [
        {"notes.txt": "".join(f"{line}\n" for line in lines).encode()}
        for lines in (
            had,
            [word, *had],
            [word],
            [*had, word, word],
            [*had, word.upper()],
            [*had, "", word],
            [*had[1:], word],
        )
    ] + [{"note.txt": "\n".join([*had, word]).encode()}]


def _rename(task: DesktopTask) -> list[Any]:
    a, b, other = task.words[:3]
    return [
        f"$ cp {a}.txt {b}.txt",
        f"$ mv {a}.txt {b}",
        f"$ mv {a}.txt {b}.TXT",
        f"$ rm {a}.txt",
        f"$ mv {other}.txt {b}.txt; rm {a}.txt",
        f"$ rm {a}.txt; ln -s {other}.txt {b}.txt",
        f"$ mv {a}.txt {b}.txt; rm {other}.txt",
        f"$ mkdir {b}.txt; mv {a}.txt {b}.txt/",
        "wait",
    ]


def _move(task: DesktopTask) -> list[Any]:
    a, folder, other = task.words[:3]
    return [
        f"$ cp {a}.txt {folder}/",
        f"$ rm {a}.txt",
        f"$ mv {other}.txt {folder}/",
        f"$ mv {a}.txt {folder}/{a}",
        f"$ mv {a}.txt {folder}/old.txt",
        f"$ mv {a}.txt {folder}/; rm {folder}/old.txt",
        f"$ rm {a}.txt; touch {folder}/{a}.txt",
        f"$ mv {folder} new; mkdir {folder}; mv {a}.txt {folder}/",
        "wait",
    ]


def _calculate(task: DesktopTask) -> list[Any]:
    a, b = task.numbers[:2]
    return [
        {"answer.txt": text.encode()}
        for text in (
            f"{a + b:g}",
            f"{a * b + 1:g}",
            f"= {a * b:g}",
            f"{a:g}*{b:g}",
            f"{a * b:g}\n{a * b:g}",
            f"{a * b:g} ",
            f"{a * b:.1f}",
        )
    ] + [{"answers.txt": f"{a * b:g}".encode()}]


def _count(task: DesktopTask) -> list[Any]:
    word, lines = task.words[0], task.words[1:]
    right = lines.count(word)
    return [
        {"count.txt": text.encode()}
        for text in (
            f"{right + 1}",
            f"{right - 1}",
            f"{right} log.txt",
            f"{len(lines)} in all",
            f"{word}: {right}",
            "",
            "many",
        )
    ] + [{"counts.txt": str(right).encode()}, f"$ echo {right} > count.txt; rm log.txt"]


def _maximise(task: DesktopTask) -> list[Any]:
    other = "plan.txt" if task.words[0] == "notes.txt" else "notes.txt"
    return [
        "wait",
        f"$ echo {task.words[0]} maximised",
        "$ killall mousepad",
        f"$ mousepad --disable-server /home/{other}",
        "hotkey alt+f4",
        "click 640 700",
    ]


def _close(task: DesktopTask) -> list[Any]:
    return [
        "wait",
        "$ killall mousepad galculator",
        "hotkey alt+f4; hotkey alt+f4",
        "$ galculator",
        "hotkey alt+f4; hotkey alt+f4; hotkey alt+f4",
        "click 640 700",
    ]


WRONG: dict[str, Callable[[DesktopTask], list[Any]]] = {
    "formula": _formula,
    "cell": _cell,
    "replace": _replace,
    "note": _note,
    "rename": _rename,
    "move": _move,
    "calculate": _calculate,
    "count": _count,
    "maximise": _maximise,
    "close": _close,
}
