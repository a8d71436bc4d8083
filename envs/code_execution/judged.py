"""Programs judged by a problem's own tests, on plain values.

Such tests call `check(candidate)` in one process with the candidate, where an object that equals
everything would pass them all. Here three programs run, one after another:

1. the tests with the reference solution, once for a problem, to record the calls that they make;
2. the agent's program, which answers these calls in a sandbox and is dead afterwards;
3. the tests again, in a second sandbox, with a candidate that only hands out the answers.

Answers are plain values. An exception is handed out as the builtin one of its name and text.
Covers: objects that equal everything, a test library or a `check` changed by the agent's program,
an exit before the tests. Does not cover: a wrong program that the problem's tests do not notice.
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
"""Packs values into JSON that keeps their types. Only Python's own plain types are packed.

An instance of a subclass is refused: it could answer `==` as it likes.
"""

_ANSWER = (
    PLAIN
    + """
def _xp_answer(*packed):
    return _xp_pack({entry}(*[_xp_unpack(p) for p in packed]))
"""
)
# Arguments are copied before the call, since the solution may change them. The random numbers of
# the tests start alike here and in _JUDGE, so that both make the same calls.
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
# The candidate has one answer for each recorded call, in order. Tests that call otherwise, or less
# often, do not pass.
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
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(text)
        raise AssertionError(answer[1])
    _xp_random.seed(0)
    check(candidate)
    return next(left, None) is None
"""
)


@dataclass(frozen=True)
class Problem:
    """A task with its tests: `test` defines check(candidate).

    `solution` is a whole program that defines the function `entry`.
    """

    name: str
    prompt: str
    entry: str
    solution: str
    test: str


@lru_cache(maxsize=512)
def asked(problem: Problem) -> list[Any]:
    """The calls that a problem's tests make, recorded with the reference solution.

    Raises EnvironmentFailure if the reference solution fails its own tests.
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
    """(whether `code` passes the problem's tests, how it ended)."""
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
    if judged.answers == (("value", True),):
        return True, "all tests pass"
    said = judged.answers[0][1] if judged.answers else judged.ending
    return False, str(said)[:120]


class JudgedProblems(ToolWorld[Problem]):
    """A world where one program is submitted whole. Subclasses give `tasks`."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "passed": SignalKind("fraction", "verifier")
    }
    reward_weights: ClassVar[dict[str, float]] = {"passed": 1.0}
    briefing: ClassVar[str] = (
        "Complete a Python function. Hidden tests call it and compare its results."
    )
    reply: ClassVar[str] = (
        "Reply with one action and nothing else, no explanation. It may have several lines:"
    )
    forms: ClassVar[dict[str, str]] = {
        "submit": "Hand in CODE, a whole Python program that defines the function. Ends the task."
    }
    meanings: ClassVar[dict[str, str]] = {"passed": "if all hidden tests pass"}
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

    def describe(self) -> str:
        asked = self.task.prompt.strip("\n")
        return f"Write the function {self.task.entry}. This is its beginning:\n\n{asked}"

    def example(self) -> str:
        return f"submit def {self.task.entry}(*arguments): return NotImplemented"

    @action
    def submit(self, code: str) -> Outcome:
        """Give the whole program, with the function."""
        passed, how = verdict(self.task, code)
        return {"passed": (float(passed), how)}, True

    def oracle_action(self) -> str:
        return f"submit {self.task.solution}"

    def random_action(self, rng: np.random.Generator) -> str:
        value = rng.choice(["None", "0", "[]", "True", repr("")])
        return f"submit {self.task.prompt}    return {value}"
