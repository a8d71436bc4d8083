"""code/python: write a Python function for a task, try it and submit it; hidden tests judge it.

Tasks are compositions of two small operations (`operations`). Cells are a notebook: what a cell
defines is there in later cells, runs and the submission. The agent's code runs in the cage, after
the cells before it, which run again. What it returns crosses as plain JSON values. Only this
process, which the code never touches, compares them with the expected values; these never enter the
cage.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from envs.code_execution.operations import (
    OPERATIONS,
    PythonProblem,
    compose,
    drawn,
    in_a_sentence,
)
from envs.contract import INVALID, Outcome, World
from envs.refused import Refused
from envs.sandbox.cage import Outcome as CageOutcome
from envs.sandbox.cage import Sandbox, tier
from experience.signal import SignalKind
from experience.step import Step

MOST_SHOWN = 400
"""The most characters that an agent sees of what a cell printed."""
_MOST_TRIED = 40
_ARGUMENTS = {"int": "an integer", "str": "a string", "list": "a list of integers"}


def same(expected: Any, got: Any) -> bool:
    """Whether two plain JSON values are equal, in their types too: 1 is not True."""
    # As text: `==` would ask an object of the agent's own type, if one ever came this far.
    return json.dumps(expected) == json.dumps(got)


def _printing(code: str) -> str:
    """`code` with its last expression printed, as a notebook shows it. Raises SyntaxError."""
    tree = ast.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        # The expression replaces the 0, so that it is evaluated once.
        shown = ast.parse("(lambda it: None if it is None else print(repr(it)))(0)").body[0]
        assert isinstance(shown, ast.Expr) and isinstance(shown.value, ast.Call)
        shown.value.args = [last.value]
        tree.body[-1] = shown
    return ast.unparse(tree)


def beyond_a_constant(correct: int, expected: Sequence[Any]) -> float:
    """The fraction of tests passed, of those that no constant answer passes.

    1 if all tests pass, 0 for what a constant reaches. At least two of the `expected` must differ.
    """
    by_constant = max(Counter(json.dumps(value) for value in expected).values())
    return max(0.0, (correct - by_constant) / (len(expected) - by_constant))


class PythonTask(World[PythonProblem]):
    env_version: ClassVar[str] = "2"
    goes_back: ClassVar[bool] = True
    cheats = (
        "submit import os; os._exit(0)",
        "submit raise SystemExit(0)",
        "submit print('all tests passed'); f=lambda x: None",
        "submit f=type('E',(),{'__call__':lambda s,x:s,'__eq__':lambda s,o:True})()",
        "submit f=lambda x: type('I',(int,),{'__eq__':lambda s,o:True})(0)",
        "submit import gc; f=lambda x: [o for o in gc.get_objects() if isinstance(o, list)][-1:]",
        "submit import json; json.dumps=lambda *a: '[[\"value\",1]]'; f=lambda x: 1",
        "submit import sys; f=lambda x: sys._getframe(1).f_locals.get('expected')",
        "submit f=lambda x: float('nan')",
        "submit import os; os.write(3, b'[[\"value\", 0]]'); os._exit(0)",
    )
    briefing: ClassVar[str] = (
        "Write a Python function f that takes one argument x and returns the result of two steps, "
        "done one after the other. Hidden tests call f with values that you do not see."
    )
    reply: ClassVar[str] = (
        "Reply with one action and nothing else, no explanation. CODE is Python code that defines "
        "f, e.g. by a def, or by f = lambda x: ... The action is one of:"
    )
    forms: ClassVar[dict[str, str]] = {
        "submit CODE": "hand in f. The hidden tests judge it, and the task ends.",
        "run CODE": "try f on one example; you are shown the result and the right one.",
        "cell CODE": "run code whose definitions are kept for later actions, and show its value.",
    }
    meanings: ClassVar[dict[str, str]] = {
        "tests_passed": "times the share of hidden tests that the submitted f passes; a constant "
        "result counts as none",
        "runs": "for each run or cell",
    }
    instructions: ClassVar[str] = (
        "Reply with one line: `run CODE` to try, or `submit CODE` to finish. CODE is Python "
        "that defines f, e.g. `submit f=lambda x:x+1`. `cell CODE` keeps what it defines"
    )
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "tests_passed": SignalKind("fraction", "verifier"),
        "example_passed": SignalKind("fraction", "verifier"),
        "runs": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"tests_passed": 1.0, "runs": -0.05, INVALID: -0.1}
    _sandbox: ClassVar[Sandbox | None] = None

    def __init__(self, max_turns: int = 3) -> None:
        super().__init__()
        self.max_turns = max_turns
        self.sandbox_tier = tier()

    def draw(self, rng: np.random.Generator) -> PythonProblem:
        """A problem whose hidden tests want more than one answer."""
        while True:
            problem = drawn(rng)
            if len({json.dumps(problem.truth(x)) for x in problem.inputs[1:]}) > 1:
                return problem

    def signature(self, task: PythonProblem) -> str:
        return f"{task.kind}: {task.first.words}, {task.second.words}"

    def begin(self) -> None:
        self._tried = ""
        self._shown = ""
        self._cells: list[str] = []
        if PythonTask._sandbox is None:
            PythonTask._sandbox = Sandbox()

    def observe(self) -> str:
        lines = [f"f({self.task.kind}): {self.task.first.words}, {self.task.second.words}"]
        if self._shown:
            lines.append(f"[{len(self._cells)}] {self._shown}")
        if self._tried:
            example = self.task.inputs[0]
            expected = json.dumps(self.task.truth(example))
            lines.append(f"f({json.dumps(example)})={self._tried} want {expected}")
        return "\n".join(lines)

    def describe(self) -> str:
        task = self.task
        lines = [
            f"Task: write f(x), where x is {_ARGUMENTS[task.kind]}. Two steps:",
            f"1. {in_a_sentence(task.kind, task.first)}.",
            f"2. Then, with the result: {in_a_sentence(task.kind, task.second)}.",
            "f returns the result of step 2.",
        ]
        if self._shown:
            lines.append(f"Cells kept: {len(self._cells)}. The last cell showed: {self._shown}")
        if self._tried:
            example = json.dumps(task.inputs[0])
            expected = json.dumps(task.truth(task.inputs[0]))
            lines.append(
                f"Your last run tried f({example}). It gave: {self._tried}. Right is: {expected}"
            )
        return "\n".join(lines)

    @staticmethod
    def draw_turn(step: Step) -> list[dict[str, Any]]:
        verb, _, code = (step.decision.text if step.decision else "").strip().partition(" ")
        if verb not in ("run", "submit", "cell"):
            return []
        return [{"kind": "code", "title": f"program, to {verb}", "text": code}]

    def example(self) -> str:
        # A list with x in it is the right result of no task.
        return "run f = lambda x: [x]"

    def act(self, action: str) -> Outcome:
        verb, *rest = action.split(None, 1)
        if verb not in ("run", "submit", "cell") or not rest:
            raise Refused(
                "write: run CODE, submit CODE, or cell CODE",
                "The first word must be run, submit or cell, and Python code must follow it.",
            )
        if verb == "cell":
            return self._cell(rest[0])
        code = "\n".join([*self._cells, rest[0]])
        assert PythonTask._sandbox is not None
        inputs = self.task.inputs[:1] if verb == "run" else self.task.inputs[1:]
        outcome = PythonTask._sandbox.run(code, [[x] for x in inputs])
        expected = [self.task.truth(x) for x in inputs]
        correct = [
            same(truth, value)
            for truth, (kind, value) in zip(expected, outcome.answers, strict=False)
            if kind == "value"
        ]
        if verb == "submit":
            passed = beyond_a_constant(sum(correct), expected)
            how = f"{sum(correct)}/{len(inputs)} {outcome.ending}"
            return {"tests_passed": (passed, how)}, True
        self._tried = _as_tried(outcome)
        return {"example_passed": (float(sum(correct)), self._tried), "runs": 1.0}, False

    def _cell(self, code: str) -> Outcome:
        """Runs a cell after those before it, and shows what it prints, or its last value.

        A cell that fails is not kept.
        """
        assert PythonTask._sandbox is not None
        # What the cells before print stands before the mark, which no cell can know.
        mark = f"cell {self.np_random.integers(2**62)}"
        try:
            last = _printing(code)
        except SyntaxError as wrong:
            self._shown = f"SyntaxError: {wrong.msg}, line {wrong.lineno}"
            return {"runs": 1.0}, False
        except (RecursionError, MemoryError):
            # Python's own parser, which is not caged, gives up on deep nesting.
            self._shown = "the cell is nested too deeply"
            return {"runs": 1.0}, False
        whole = "\n".join([*self._cells, f"print({mark!r})", last, "def _ended(): pass"])
        outcome = PythonTask._sandbox.run(whole, [[]], entry="_ended")
        error = next((said for kind, said in outcome.answers if kind == "error"), "")
        if not error and outcome.ending == "ok":
            self._cells.append(code)
        printed = outcome.stdout.rpartition(f"{mark}\n")[2].strip()
        self._shown = f"{printed}\n{error}".strip()[:MOST_SHOWN] or outcome.ending
        return {"runs": 1.0}, False

    def expert_action(self) -> str:
        return f"submit {compose(self.task.first, self.task.second)}"

    def random_action(self, rng: np.random.Generator) -> str:
        among = OPERATIONS[self.task.kind]
        first, second = (among[i] for i in rng.integers(len(among), size=2))
        return f"submit {compose(first, second)}"


def _as_tried(outcome: CageOutcome) -> str:
    """The answer to the example as it is shown: a value as JSON, an error in its own words."""
    if not outcome.answers:
        return outcome.ending[:_MOST_TRIED]
    kind, said = outcome.answers[0]
    is_error = kind != "value" and isinstance(said, str)
    return (said if is_error else json.dumps(said))[:_MOST_TRIED]
