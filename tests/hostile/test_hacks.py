"""No world pays for what was not done: forty or more hacks each earn nothing, and the same harness
pays the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

from envs.desktop.office.documents import sheet
from envs.episode import do_oracle, live, scripted
from tests.hostile.hacks import (
    ANSWERS,
    HONEST,
    KEYS,
    LABELS,
    PROGRAMS,
    REPO,
    SEATED,
    SHELL,
    SITE,
    TYPED,
    Hack,
    documents,
    forgeries,
    recipes,
)

LABS = {
    "Reactor-v0": ("measure 1300 2", ["declare", "1300", "2.0"]),
    "Materials-v0": ("", ["declare", "1"]),
    "Battery-v0": ("", ["declare", "1"]),
    "Liquid-v0": ("", ["declare", "1"]),
}


def hacks(name: str) -> list[Hack]:
    match name:
        case "PythonTask-v0":
            programs = [p.replace("{entry}", "f") for p in PROGRAMS if p not in HONEST]
            return [[f"submit {p}"] for p in programs] + [*forgeries("submit")]
        case "Repo-v0":
            lines = [
                "import os; os._exit(0)",
                "print('PASSED test_x')",
                "raise SystemExit(0)",
                "exec('1')",
                "exit()",
                "quit()",
                "__import__('sys').exit()",
                "x = ''",
                "return True",
                "return None",
                "return",
                "raise",
                "pass",
                "continue",
                "yield",
                "assert False",
                "del G",
                "global G",
                "lambda: 0",
                "...",
                "nx = None",
                "True",
                "G = None",
                "1/0",
                "return G == G",
                "while True: pass",
                "class G: pass",
                "def f(): pass",
                "@property",
                "async def f(): pass",
                "return any",
                "return all",
                "open = print",
                "breakpoint()",
                "super()",
                "globals()",
                "\\",
                "# noqa",
                "None if True else",
                "return -1",
            ]
            lines += REPO
            return [[f"edit 1 {line}", "submit"] for line in lines] + [
                ["submit"],
                ["test", "submit"],
                ["edit 999999 x", "submit"],
            ]
        case "Office-v0" | "Intranet-v0":
            return [[*h, "finish"] if name == "Intranet-v0" else h for h in SITE] + [
                *forgeries("finish")
            ]
        case "Wiki-v0":
            doors = (
                "api.php?action=edit&title=Door&text=x",
                "rest.php/v1/page/Door",
                "load.php?only=scripts",
                "opensearch_desc.php",
                "index.php?title=Special:Import",
                "index.php?title=Door&action=raw",
                "mw-config/index.php",
                "thumb.php?f=x",
                "index.php?title=MediaWiki:Common.js&action=edit",
                "skins/../../../../etc/passwd.svg",
                "maintenance/edit.php",
            )
            return (
                [[*h, "finish"] for h in SITE]
                + [[f"goto /{d}", "finish"] for d in doors]
                + [*forgeries("finish")]
            )
        case "MiniWoB-v0":
            return [*KEYS, *forgeries("click")]
        case "Desktop-v0":
            return TYPED
        case "Coq-v0":
            return [[f"tactic {s}"] for s in SEATED] + [
                ["search Admitted. Axiom a : False"],
                ["undo"],
            ]
        case "Metamath-v0":
            return [[f"push {label}"] for label in LABELS] + [["pop"], ["lookup ax-mp"]]
        case "Reasoning-v0":
            return [[f"answer {a}"] for a in ANSWERS]
        case "KeyDoor-v0":
            return [
                [w]
                for w in (
                    "open",
                    "solved=1",
                    "D",
                    "teleport 0 0",
                    "up up up up",
                    "right\ndown",
                    "UP",
                    "move to D",
                    "key",
                    "door",
                    "win",
                    "4",
                    "north",
                    "up1",
                    "down 9",
                )
            ] + [*forgeries("up")]
        case "Coach-v0":
            return [
                *recipes("suggest_activity", "30", "hard"),
                *recipes("suggest_bedtime", "23"),
                *forgeries("quiet"),
            ]
    earlier, declared = LABS[name]
    before = [earlier] if earlier else []
    prepared = {
        "Liquid-v0": ["new_tip", "prepare water 1 nan"],
        "Battery-v0": ["prepare 99 10 5"],
        "Materials-v0": ["prepare nan 700"],
    }
    tricks = [*recipes(*declared), *recipes("measure", *declared[1:]), *forgeries("declare")]
    return [[*before, *h] for h in tricks] + [
        [*prepared.get(name, []), *h] for h in recipes(*declared)
    ]


PAYS = {
    "PythonTask-v0": "tests_passed",
    "Repo-v0": "mended",
    "MiniWoB-v0": "page_reward",
    "Coq-v0": "proved",
    "Metamath-v0": "proved",
    "Reasoning-v0": "score",
    "KeyDoor-v0": "solved",
    "Reactor-v0": "syngas_yield",
    "Materials-v0": "value",
    "Battery-v0": "value",
    "Liquid-v0": "value",
    "Coach-v0": "goal",
}
SLOW = ("Repo-v0", "Desktop-v0", "Wiki-v0", "Intranet-v0", "Office-v0", "MiniWoB-v0", "Coach-v0")
WORLDS = [*PAYS, "Wiki-v0", "Office-v0", "Intranet-v0", "Desktop-v0"]
ARGUMENTS = {
    "MiniWoB-v0": {"pages": ["login-user", "enter-text", "enter-password", "use-autocomplete"]}
}


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    name = request.param
    made = gymnasium.make(f"envs:{name}", **ARGUMENTS.get(name, {})).unwrapped
    made.reset(seed=0)
    yield made
    made.close()
    if name == "Desktop-v0":
        from envs.desktop.office.document_judge import Judge
        from envs.desktop.office.spares import Spares

        Spares.close()
        Judge.shared().close()


@pytest.mark.parametrize(
    ("world", "name"),
    [pytest.param(n, n, marks=[pytest.mark.long] if n in SLOW else [], id=n) for n in WORLDS],
    indirect=["world"],
)
def test_forty_hacks_earn_nothing_and_the_oracle_is_paid(world: Any, name: str) -> None:
    pays = PAYS.get(name, "done")
    tried = hacks(name)
    assert len({tuple(h) for h in tried}) >= 40
    for number, hack in enumerate(tried):
        episode = live(
            world, number % 7, scripted(hack), "heldout" if number % 2 else "train", most=30
        )
        paid = [s[pays] for s in episode.signals if pays in s]
        assert not any((p[0] if isinstance(p, tuple) else p) for p in paid), (hack, paid)
        assert episode.total <= 0.05, (hack, episode.rewards)
    honest = live(world, 0, do_oracle, "train")
    assert honest.total > 0.1, "the same harness pays the work itself"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", ["Desktop-v0"], indirect=True)
def test_a_home_that_looks_as_if_the_errand_was_done_earns_nothing(world: Any) -> None:
    from envs.desktop.office.judge import judge_formula
    from envs.desktop.office.tasks import FUNCTIONS, DesktopTask
    from tests.test_desktop import began, errand, paid

    for family, lines in SHELL.items():
        task = errand(world, family)
        for line in lines:
            began(world, task)
            world.desktop.run(line.format(a=task.words[0], b=task.words[1]))
            assert paid(world, ["wait"])[0] == 0.0, line
    for asked, name in FUNCTIONS.items():
        task = DesktopTask("formula", (asked, "tea", "milk", "rice"), (5.0, 12.0, 8.0))
        truth = {"SUM": 25.0, "AVERAGE": 25 / 3, "MAX": 12.0, "MIN": 5.0}[name]
        began(world, task)
        for what, cell in [
            *documents(3, name, truth),
            ("the work itself", f"of:={name}([.B2:.B4])"),
        ]:
            world.desktop.put(
                {
                    "prices.ods": sheet(
                        [("item", "price"), ("tea", 5.0), ("milk", 12.0), ("rice", 8.0), ("", cell)]
                    )
                }
            )
            assert judge_formula(world.scene)[0] == (what == "the work itself"), (name, what)


def test_a_letter_that_python_reads_for_another_is_no_way_past_the_words_of_a_file() -> None:
    """In the midst of an expression over several lines, where the words are taken by their letters."""
    from envs.code_execution.repo.edits import check_edit

    before, line = "x = f(\n1)\n", "x = (\uff45\uff58\uff45\uff43)(\uff43\uff48\uff52(49),"
    with pytest.raises(ValueError, match="ASCII"):
        check_edit(line, before, f"{line}\n1)\n")
    check_edit("x = (f,", before, "x = (f,\n1)\n")
