"""code/python: write a Python function for a task, try it, submit it; hidden tests judge it outside
the sandbox.

Tasks are compositions of two small operations on an integer, a string or a list. Cells are a
notebook: what one defines the next ones, runs and the submission have. The agent's code runs in the
cage, the cells before it again with it; what it returns crosses as plain JSON values, and only this
process, which the code never touches, compares them with the expected ones. Expected values never
enter the cage.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from envs.sandbox.cage import Sandbox, tier
from experience.signal import SignalKind


@dataclass(frozen=True)
class Operation:
    """A step of a task: its words, its Python with {} for the operand, and its truth (outside any
    sandbox)."""

    words: str
    python: str
    apply: Callable[[Any], Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _operation, (
            self.python,
            self.words,
        )  # its function cannot be pickled, its name in the table can


def _operation(python: str, words: str) -> Operation:
    return next(
        o
        for all_of in OPERATIONS.values()
        for o in all_of
        if (o.python, o.words) == (python, words)
    )


def compose(first: Operation, second: Operation) -> str:
    """A program for "first, then second"."""
    inner = first.python.format("x")
    return f"f=lambda x:{second.python.format(f'({inner})')}"


def _with(
    python: str, words: str, numbers: range, apply: Callable[[Any, int], Any]
) -> list[Operation]:
    """One operation for each number a: {a} in its words and its Python, a as `apply`'s second
    argument."""
    return [
        Operation(words.format(a=a), python.replace("{a}", str(a)), partial(_swap, apply, a))
        for a in numbers
    ]


def _swap(apply: Callable[[Any, int], Any], a: int, x: Any) -> Any:
    return apply(x, a)


OPERATIONS: dict[str, list[Operation]] = {
    "int": [
        Operation("square", "{}**2", lambda x: x**2),
        Operation("negate", "-{}", lambda x: -x),
        *_with("{}+{a}", "add {a}", range(2, 10), lambda x, a: x + a),
        *_with("{}*{a}", "times {a}", range(2, 10), lambda x, a: x * a),
        *_with("{}-{a}", "minus {a}", range(2, 10), lambda x, a: x - a),
        *_with("{}%{a}", "mod {a}", range(2, 10), lambda x, a: x % a),
    ],
    "str": [
        Operation("upper", "{}.upper()", lambda x: x.upper()),
        Operation("reverse", "{}[::-1]", lambda x: x[::-1]),
        Operation("twice", "{}*2", lambda x: x * 2),
        *_with("{}[:{a}]", "first {a}", range(1, 5), lambda x, a: x[:a]),
        *_with("{}[{a}:]", "drop {a}", range(1, 5), lambda x, a: x[a:]),
    ],
    "list": [
        Operation("sort", "sorted({})", sorted),
        Operation("reverse", "{}[::-1]", lambda x: x[::-1]),
        *_with("{}[:{a}]", "first {a}", range(1, 5), lambda x, a: x[:a]),
        *_with(
            "[v for v in {} if v>{a}]",
            "above {a}",
            range(1, 5),
            lambda x, a: [v for v in x if v > a],
        ),
    ],
}
_LETTERS = "abcdefgh"


@dataclass(frozen=True)
class PythonProblem:
    """f(x): first, then second. `inputs[0]` is shown to the agent, the rest are hidden."""

    kind: str
    first: Operation
    second: Operation
    inputs: tuple[Any, ...]

    def truth(self, x: Any) -> Any:
        return self.second.apply(self.first.apply(x))


def same(expected: Any, got: Any) -> bool:
    """Equality of plain JSON values with their types: 1 is not True, and nothing else is looked at."""
    return json.dumps(expected) == json.dumps(got)


def _printing(code: str) -> str:
    """`code` with its last expression printed, as a notebook shows it. Raises SyntaxError."""
    tree = ast.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        shown = ast.parse("(lambda it: None if it is None else print(repr(it)))(0)").body[0]
        assert isinstance(shown, ast.Expr) and isinstance(shown.value, ast.Call)
        shown.value.args = [last.value]
        tree.body[-1] = shown
    return ast.unparse(tree)


def beyond_a_constant(correct: int, expected: Sequence[Any]) -> float:
    """The fraction of the tests passed that one answer to all of them would not have passed: 1 for
    all, 0 for a constant. At least two of the `expected` must differ."""
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
        self.max_turns, self.sandbox_tier = max_turns, tier()

    def draw(self, rng: np.random.Generator) -> PythonProblem:
        """A problem whose hidden tests want more than one answer."""
        while True:
            problem = self._drawn(rng)
            if len({json.dumps(problem.truth(x)) for x in problem.inputs[1:]}) > 1:
                return problem

    @staticmethod
    def _drawn(rng: np.random.Generator) -> PythonProblem:
        kind = ("int", "str", "list")[rng.choice(3, p=[0.5, 0.25, 0.25])]
        first, second = (OPERATIONS[kind][i] for i in rng.integers(len(OPERATIONS[kind]), size=2))
        if kind == "int":
            inputs: tuple[Any, ...] = tuple(
                int(v) for v in rng.choice(np.arange(2, 40), size=9, replace=False)
            )
        elif kind == "str":
            inputs = tuple(
                "".join(rng.choice(list(_LETTERS), size=rng.integers(4, 8))) for _ in range(9)
            )
        else:
            inputs = tuple(
                [int(v) for v in rng.integers(0, 9, size=rng.integers(4, 7))] for _ in range(9)
            )
        return PythonProblem(kind, first, second, inputs)

    def signature(self, task: PythonProblem) -> str:
        return f"{task.kind}: {task.first.words}, {task.second.words}"

    def begin(self) -> None:
        self._tried, self._shown = "", ""
        self._cells: list[str] = []
        if PythonTask._sandbox is None:
            PythonTask._sandbox = Sandbox()

    def observe(self) -> str:
        example = self.task.inputs[0]
        return (
            f"f({self.task.kind}): {self.task.first.words}, {self.task.second.words}"
            + (self._shown and f"\n[{len(self._cells)}] {self._shown}")
            + (
                self._tried
                and f"\nf({json.dumps(example)})={self._tried} want "
                f"{json.dumps(self.task.truth(example))}"
            )
        )

    def act(self, action: str) -> Outcome:
        verb, *rest = action.split(None, 1)
        if verb not in ("run", "submit", "cell") or not rest:
            raise ValueError("write: run CODE, submit CODE, or cell CODE")
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
        said = outcome.answers[0][1] if outcome.answers else outcome.ending
        if verb == "submit":
            passed = beyond_a_constant(sum(correct), expected)
            return {
                "tests_passed": (passed, f"{sum(correct)}/{len(inputs)} {outcome.ending}")
            }, True
        self._tried = (
            said
            if isinstance(said, str) and outcome.answers[:1] != (("value", said),)
            else json.dumps(said)
        )[:40]
        return {"example_passed": (float(sum(correct)), self._tried), "runs": 1.0}, False

    def _cell(self, code: str) -> Outcome:
        """Runs a cell after those before it and shows what it prints, or its last value; one that
        fails is not kept."""
        assert PythonTask._sandbox is not None
        mark = f"cell {self.np_random.integers(2**62)}"
        try:
            last = _printing(code)
        except SyntaxError as wrong:
            self._shown = f"SyntaxError: {wrong.msg}, line {wrong.lineno}"
            return {"runs": 1.0}, False
        except (
            RecursionError,
            MemoryError,
        ):  # Python's own parser, which is not caged, gives up on deep nesting
            self._shown = "the cell is nested too deeply"
            return {"runs": 1.0}, False
        whole = "\n".join([*self._cells, f"print({mark!r})", last, "def _ended(): pass"])
        outcome = PythonTask._sandbox.run(whole, [[]], entry="_ended")
        error = next((said for kind, said in outcome.answers if kind == "error"), "")
        if not error and outcome.ending == "ok":
            self._cells.append(code)
        self._shown = (outcome.stdout.rpartition(f"{mark}\n")[2].strip() + f"\n{error}").strip()[
            :400
        ] or outcome.ending
        return {"runs": 1.0}, False

    def expert_action(self) -> str:
        return f"submit {compose(self.task.first, self.task.second)}"

    def random_action(self, rng: np.random.Generator) -> str:
        first, second = (
            OPERATIONS[self.task.kind][i]
            for i in rng.integers(len(OPERATIONS[self.task.kind]), size=2)
        )
        return f"submit {compose(first, second)}"
