"""Programs judged by a problem's own tests, on plain values.

Such tests call `check(candidate)` in one process with the candidate, where an object that equals
everything passes them all. Here the tests are run once with the reference solution to learn what
they ask; the agent's program answers those calls in a sandbox, and is dead; its answers, as plain
values, are put to the same tests in a second sandbox, by a candidate that only hands them out. An
exception is handed out as the builtin one of its name and text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.sandbox.cage import Sandbox, tier
from experience.errors import EnvironmentFailure

PLAIN = """
def _xp_pack(x):
    kind = type(x)
    if x is None or kind in (bool, int, str):
        return x
    if kind is float:
        return {"float": repr(x)}
    if kind in (list, tuple, set):
        return {kind.__name__: [_xp_pack(v) for v in (sorted(x, key=repr) if kind is set else x)]}
    if kind is dict:
        return {"dict": [[_xp_pack(k), _xp_pack(v)] for k, v in x.items()]}
    raise TypeError("not a plain value: " + kind.__name__)


def _xp_unpack(x):
    if type(x) is not dict:
        return x
    (kind, held), = x.items()
    if kind == "float":
        return float(held)
    if kind == "dict":
        return {_xp_unpack(k): _xp_unpack(v) for k, v in held}
    return {"list": list, "tuple": tuple, "set": set}[kind](_xp_unpack(v) for v in held)
"""
"""Values as JSON that keeps their types; anything else than Python's plain types is refused."""

_ANSWER = (
    PLAIN
    + """
def _xp_answer(*packed):
    return _xp_pack({entry}(*[_xp_unpack(p) for p in packed]))
"""
)
_RECORD = (
    PLAIN
    + """
import copy as _xp_copy, random as _xp_random
_xp_asked = []
def _xp_record(real={entry}):
    def candidate(*given):
        _xp_asked.append([_xp_pack(_xp_copy.deepcopy(g)) for g in given])
        return real(*given)
    _xp_random.seed(0)
    check(candidate)
    return _xp_asked
"""
)
_JUDGE = (
    PLAIN
    + """
import builtins as _xp_builtins, random as _xp_random
def _xp_judge(asked, answers):
    left = iter(zip(asked, answers))
    def candidate(*given):
        expected, answer = next(left)
        if [_xp_pack(g) for g in given] != expected:
            raise AssertionError("no answer to that")
        if answer[0] == "value":
            return _xp_unpack(answer[1])
        name, _, text = answer[1].partition(": ")
        kind = getattr(_xp_builtins, name, None)
        raise kind(text) if isinstance(kind, type) and issubclass(kind, Exception) else AssertionError(answer[1])
    _xp_random.seed(0)
    check(candidate)
    return next(left, None) is None
"""
)


@dataclass(frozen=True)
class Problem:
    """`test` defines check(candidate); `solution` is a whole program with `entry`."""

    name: str
    prompt: str
    entry: str
    solution: str
    test: str


@lru_cache(maxsize=512)
def asked(problem: Problem) -> list[Any]:
    """The calls that a problem's tests make, learned from the reference solution.

    Raises EnvironmentFailure.
    """
    outcome = _sandbox().run(
        problem.solution + "\n" + problem.test + _RECORD.replace("{entry}", problem.entry),
        [[]],
        "_xp_record",
        wall_seconds=10.0,
        cpu_seconds=10,
    )
    if not outcome.answers or outcome.answers[0][0] != "value":
        raise EnvironmentFailure(
            f"{problem.name}: the reference solution could not be asked: {outcome}"
        )
    calls: list[Any] = outcome.answers[0][1]
    return calls


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


def verdict(problem: Problem, code: str) -> tuple[bool, str]:
    """Whether `code` passes the problem's tests, and how it ended."""
    calls = asked(problem)
    answered = _sandbox().run(
        code + _ANSWER.replace("{entry}", problem.entry),
        calls,
        "_xp_answer",
        wall_seconds=5.0,
        cpu_seconds=4,
    )
    if len(answered.answers) != len(calls):
        return False, answered.ending
    judged = _sandbox().run(
        problem.solution + "\n" + problem.test + _JUDGE,
        [[calls, list(answered.answers)]],
        "_xp_judge",
        wall_seconds=5.0,
        cpu_seconds=4,
    )
    passed = judged.answers == (("value", True),)
    return passed, "all tests pass" if passed else str(
        (judged.answers or ((judged.ending,),))[0][-1]
    )[:120]


class JudgedProblems(ToolWorld[Problem]):
    """One program a task, submitted whole. Subclasses give `tasks`."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "passed": SignalKind("fraction", "verifier")
    }
    reward_weights: ClassVar[dict[str, float]] = {"passed": 1.0}
    max_turns = 2
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 1.0
    cheats = (
        "submit import os; os._exit(0)",
        "submit class E:\n  def __eq__(s, o): return True\n",
        "submit pass",
        "submit def check(c): pass\n",
        "submit import sys; sys.exit(0)",
        "submit print('all tests passed')",
    )

    def __init__(self) -> None:
        super().__init__()
        self.sandbox_tier = tier()

    def signature(self, task: Problem) -> str:
        return task.name

    def begin(self) -> None: ...

    def observe(self) -> str:
        return self.task.prompt

    @action
    def submit(self, code: str) -> Outcome:
        """Give the whole program, with the function."""
        passed, how = verdict(self.task, code)
        return {"passed": (float(passed), how)}, True

    def oracle_action(self) -> str:
        return f"submit {self.task.solution}"

    def random_action(self, rng: np.random.Generator) -> str:
        return f"submit {self.task.prompt}    return {rng.choice(['None', '0', '[]', 'True', repr('')])}"
