"""Work that looks right and is not: at least five kinds for each family of tasks, none accepted;
the right one is."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.browser.miniwob_experts import EXPERTS
from envs.code_execution.operations import OPERATIONS, compose
from envs.code_execution.python_task import PythonTask, beyond_a_constant


def made(name: str, **arguments: Any) -> Any:
    return gymnasium.make(f"envs:{name}", **arguments).unwrapped


def begun(world: Any, task: Any) -> str:
    world.tasks = lambda split, rng: task
    return str(world.reset(seed=0)[0])


def ends(world: Any, actions: list[str], pays: str) -> float:
    """What the paying signal was when those actions ended the episode."""
    for action in actions:
        _, _, terminated, truncated, info = world.step(action)
        if pays in info["signals"]:
            value = info["signals"][pays]
            return float(value[0] if isinstance(value, tuple) else value)
        assert not terminated and not truncated
    return 0.0


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_program_that_is_nearly_right_is_not_paid_as_right(kind: str) -> None:
    world, tried = made("PythonTask-v0"), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        task = world.draw(rng)
        if task.kind != kind:
            continue
        a, b = task.first, task.second
        some = [o for o in OPERATIONS[kind] if o not in (a, b)]
        other = some[int(rng.integers(len(some)))]
        wrong = {
            "in the other order": compose(b, a),
            "the first alone": f"f=lambda x:{a.python.format('x')}",
            "the second alone": f"f=lambda x:{b.python.format('x')}",
            "the first twice": compose(a, a),
            "another first": compose(other, b),
            "another second": compose(a, other),
            "the input": "f=lambda x:x",
            "the example by heart": f"f=lambda x:{task.truth(task.inputs[0])!r}",
            "as text": f"f=lambda x:str(({compose(a, b).removeprefix('f=lambda x:')}))",
        }
        for name, code in wrong.items():
            space: dict[str, Any] = {}
            exec(code, space)
            right = [
                space["f"](x) == task.truth(x) and type(space["f"](x)) is type(task.truth(x))
                for x in task.inputs[1:]
            ]
            if all(right):
                continue  # as good: a + b in the other order
            begun(world, task)
            paid = ends(world, [f"submit {code}"], "tests_passed")
            assert paid < 1 and paid == pytest.approx(
                beyond_a_constant(sum(right), [task.truth(x) for x in task.inputs[1:]])
            ), name
            tried += 1
        begun(world, task)
        assert ends(world, [f"submit {compose(a, b)}"], "tests_passed") == 1
    assert tried > 100


def test_one_answer_to_all_is_paid_nothing() -> None:
    assert beyond_a_constant(3, [1, 1, 1, 2]) == 0 and beyond_a_constant(4, [1, 1, 1, 2]) == 1
    assert (
        beyond_a_constant(2, [1, 2, 3, 4]) == pytest.approx(1 / 3)
        and beyond_a_constant(0, ["", "a"]) == 0
    )


INTRANET: dict[str, Callable[[list[str]], list[list[str]]]] = {
    "order": lambda c: [
        [*c[:2], "type Quantity 77", c[3]],
        ["goto /shop", c[2], c[3]] if c[1] != "select Item tea" else c[:3],
        c[:3],
        [*c, *c],
        [c[0], c[1], "type Quantity two", c[3]],
        [c[0], c[1], c[3]],
        [c[0], c[1], c[2] + "0", c[3]],
    ],
    "put": lambda c: [
        c[:-1],
        [c[0], "type Title other", *c[2:]],
        [*c, *c],
        [c[0], *c[2:]],
        [c[0], c[1], c[4]],
        [c[0], c[1] + "s", *c[2:]],
    ],
    "close": lambda c: [
        c[:-1],
        c[:2],
        [*c, "goto /tickets", *again(c)],
        [*c, "select State open", "click Save"],
        [c[0], other(c[1]), *c[2:]],
    ],
    "assign": lambda c: [
        c[:-1],
        c[:2],
        [*c, "select Assignee Gus", "click Save", "select Assignee Hal", "click Save"],
        [c[0], other(c[1]), *c[2:]],
        [*c[:2], "select State closed", c[3]],
        [*c[:3], "select State closed", c[3]],
    ],
    "write": lambda c: [
        c[:-1],
        [c[0], c[1] + "x", c[2]],
        [c[0], "type Text ", c[2]],
        ["goto /wiki/nowhere"],
        [c[0], c[1], c[2], c[1] + " too", c[2]],
        [c[0], c[1].upper().replace("TYPE TEXT", "type Text"), c[2]],
    ],
}


def other(click: str) -> str:
    return "click lamp" if click != "click lamp" else "click door"


def again(clicks: list[str]) -> list[str]:
    return [other(clicks[1]), *clicks[2:]]


@pytest.mark.long
@pytest.mark.parametrize("family", INTRANET)
def test_an_errand_done_almost_is_not_done(family: str) -> None:
    world = made("Intranet-v0")
    try:
        for seed in range(3):
            rng = np.random.default_rng([seed, len(family)])
            task = next(
                t
                for t in (world.draw(rng) for _ in range(999))
                if t.wanted.words.startswith(family) and not t.by_mail and not t.hostile
            )
            begun(world, task)
            right = [*world._clicks]
            wrong = INTRANET[family](right)
            assert len(wrong) >= 5
            for clicks in wrong:
                begun(world, task)
                for click in clicks:
                    world.step(click)
                info = world.step("finish")[4]
                signals = info["signals"]
                assert not (signals["done"][0] == 1 and signals["wrong_changes"] == 0), (
                    task.goal,
                    clicks,
                )
            begun(world, task)
            for click in right:
                world.step(click)
            signals = world.step("finish")[4]["signals"]
            assert signals["done"][0] == 1 and signals["wrong_changes"] == 0, (task.goal, signals)
    finally:
        world.close()


@pytest.mark.long
def test_a_small_errand_done_almost_is_not_done() -> None:
    world = made("Office-v0")
    tried = dict.fromkeys(("order", "name", "open", "vote"), 0)
    try:
        for seed in range(40):
            task = world.draw(np.random.default_rng(seed))
            last = task.wanted[-1]
            others = [c for c in task.choices if c not in task.wanted]
            wrong = {
                "order": [
                    ["click Order"],
                    [f"select Item {task.wanted[1]}", "click Order"]
                    if last != "1"
                    else ["click Order"],
                    [f"type Qty {last}0", f"select Item {task.wanted[1]}", "click Order"],
                    [f"select Item {others[0]}", f"type Qty {last}", "click Order"]
                    if others
                    else [],
                    [f"select Item {task.wanted[1]}", f"type Qty -{last}", "click Order"],
                    [f"select Item {task.wanted[1]}", f"type Qty {last}.0", "click Order"],
                ]
                if task.family == "order"
                else [],
                "name": [
                    ["click Save"],
                    [f"type Name {last}x", "click Save"],
                    [f"type Name {last.lower()}", "click Save"],
                    [f"type Name {last} {last}", "click Save"],
                    ["click Help"],
                    ["type Name Zed", "click Save"],
                ],
                "open": [[f"click {c}"] for c in others]
                + [[f"goto /{last.lower()}"], ["goto /Nowhere"], ["goto /vote"], ["scroll 100"]],
                "vote": [[f"click {c}"] for c in others]
                + [[f"goto /vote?pick={last}"], [f"goto /{last}"], ["goto /"], ["scroll 100"]],
            }[task.family]
            for clicks in filter(None, wrong):
                begun(world, task)
                assert ends(world, clicks, "done") < 1, (task.goal, clicks)
                tried[task.family] += 1
            begun(world, task)
            while (done := ends(world, [world.oracle_action()], "done")) == 0:
                pass
            assert done == 1
        assert min(tried.values()) >= 25
    finally:
        world.close()


needs_coq = pytest.mark.skipif(shutil.which("coqtop") is None, reason="./xp setup worlds")


def _nearly(plan: list[str], shown: list[int]) -> list[list[str]]:
    """Plans with one thing wrong: a step left out, another element, another text, nothing but the
    end of it."""
    wrong = [plan[:i] + plan[i + 1 :] for i in range(len(plan))] if len(plan) > 1 else []
    for i, step in enumerate(plan):
        verb, _, rest = step.partition(" ")
        element, _, text = rest.partition(" ")
        if text:
            texts = [text[:-1], text + text[-1], text.swapcase(), text[::-1], f"{text} {text}", "x"]
            wrong += [
                [*plan[:i], f"{verb} {element} {t}", *plan[i + 1 :]]
                for t in texts
                if t.strip() not in ("", text)
            ]
        if i == len(plan) - 1 or len(plan) == 2:
            wrong += [
                [*plan[:i], f"click {other}", *plan[i + 1 :]]
                for other in shown
                if str(other) != element
            ]
    others = [
        "press Escape",
        "click_at 1 1",
        "click_at 330 212",
        "scroll 100",
        "noop",
        "press Tab",
        "press ArrowDown",
    ]
    return [*wrong, *([other] for other in others), list(reversed(plan))[:-1]]


@pytest.mark.long
@pytest.mark.parametrize("page", EXPERTS)
def test_a_page_used_almost_as_asked_pays_nothing(page: str) -> None:
    world = made("MiniWoB-v0", pages=[page], in_place=True)
    most = 0.99 if page == "click-checkboxes" else 0.0  # which pays by the box
    refused: set[str] = set()
    for seed in range(4):
        seen = begun(world, (page, seed))
        names = {line.partition("]")[0][1:]: line.partition("]")[2] for line in seen.splitlines()}
        plan = EXPERTS[page](world.shown)
        if page == "choose-list" and f"= {plan[0].split(None, 2)[2]}" in seen:
            continue  # it is chosen from the start
        same = [
            n for n in names if names[n] == names.get(plan[-1].split()[-1]) and n not in plan[-1]
        ]
        for wrong in filter(None, _nearly(plan, world.shown.numbers())):
            if wrong[-1] in [f"click {n}" for n in same] or (
                page == "focus-text" and wrong == ["press Tab"]
            ):
                continue  # right too
            begun(world, (page, seed))
            paid = [
                world.step(step)[4]["signals"].get("page_reward", (0,))[0]
                for step in itertools.takewhile(lambda _: not world._ended, wrong)
            ]
            assert max(paid) <= most, (world.shown.utterance, wrong)
            refused.add(" / ".join(wrong))
        begun(world, (page, seed))
        assert ends(world, plan, "page_reward") > 0, plan
    world.close()
    assert len(refused) >= 5, refused


@needs_coq
@pytest.mark.long
@pytest.mark.parametrize("family", range(5))
def test_a_proof_that_is_nearly_one_is_none(family: int) -> None:
    from envs.proof.coq.families import FAMILIES
    from envs.proof.coq.judge import judge

    tried = 0
    for seed in range(8):
        lemma = FAMILIES[family](np.random.default_rng([family, seed]))
        proof = list(lemma.proof)
        wrong = [proof[:i] + proof[i + 1 :] for i in range(len(proof))] + [
            [],
            ["idtac."],
            ["reflexivity."],
            ["trivial."],
            ["intros."],
            [*proof[:-1], "idtac."],
            ["discriminate."],
            ["simpl."],
            [*proof, "exact I."],
        ]
        for steps in wrong:
            if judge(lemma, steps) == "":
                assert steps not in (
                    [],
                    ["idtac."],
                    ["intros."],
                    ["simpl."],
                    [*proof, "exact I."],
                ), (lemma, steps)
            else:
                tried += 1
        assert judge(lemma, proof) == "", lemma
    assert tried >= 40


@pytest.mark.skipif(shutil.which("metamath") is None, reason="./xp setup worlds")
def test_a_metamath_proof_with_a_step_changed_dropped_or_twice_is_none() -> None:
    from envs.proof.metamath_kernel import Proof

    world = made("Metamath-v0")
    tried = 0
    for seed in range(12):
        world.reset(seed=seed)
        steps = list(world.task[1])
        for i, label in itertools.product(range(len(steps)), ("", "ax-mp", "wn", "wi")):
            changed = steps[:i] + ([label] if label else []) + steps[i + 1 :]
            if changed == steps:
                continue
            proof = Proof(world.database, world.goal)
            try:
                for step in changed:
                    proof.push(step)
                assert not proof.complete, (world.task[0], changed)
            except (ValueError, KeyError):
                pass
            tried += 1
    assert tried > 60


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "basic_arithmetic", "gcd", "lcm", "count_bits", "letter_counting"]
)
def test_an_answer_that_is_nearly_right_is_wrong(dataset: str) -> None:
    world = made("Reasoning-v0", dataset=dataset)
    for seed in range(10):
        world.reset(seed=seed)
        right = int(world._entry(world.task)["answer"])
        for wrong in (
            right + 1,
            right - 1,
            -right if right else 7,
            right * 10 + 1,
            f"{right}.5",
            right + 100,
            f"-{abs(right) + 1}",
        ):
            world.reset(seed=seed)
            assert ends(world, [f"answer {wrong}"], "score") < 0.2, (world.observe(), wrong)
        world.reset(seed=seed)
        assert ends(world, [f"answer {right}"], "score") == 1


@pytest.mark.long
def test_a_line_mended_wrongly_is_not_mended() -> None:
    from envs.code_execution.repo.edits import faults

    world = made("Repo-v0")
    for seed in range(3):
        world.reset(seed=seed)
        task, tried = world.task, 0
        assert ends(world, ["submit"], "mended") == 0, "as it was found"
        for fault in faults(task.module):
            if tried == 6:
                break
            if fault.line == task.line or not world.failing(fault):
                continue
            begun(world, task)
            assert (
                ends(
                    world,
                    [world.oracle_action(), f"edit {fault.line} {fault.text.strip()}", "submit"],
                    "mended",
                )
                == 0
            )
            tried += 1
        begun(world, task)
        assert tried >= 5 and ends(world, [world.oracle_action(), "submit"], "mended") == 1


def test_no_program_is_paid_for_what_it_prints() -> None:
    world = made("PythonTask-v0")
    assert isinstance(world, PythonTask)
    world.reset(seed=0)
    truths = [world.task.truth(x) for x in world.task.inputs]
    assert ends(world, [f"submit print({truths!r}); f=lambda x: print(x)"], "tests_passed") == 0
