"""The tasks of code/python: compositions of two small operations on an integer, string or list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

KINDS = ("int", "str", "list")
_LETTERS = "abcdefgh"
_INPUTS_EACH = 9


@dataclass(frozen=True)
class Operation:
    """A step of a task: its words, its Python with {} for the operand, and its truth.

    `apply` is code of ours and runs outside any sandbox.
    """

    words: str
    python: str
    apply: Callable[[Any], Any]

    def __reduce__(self) -> tuple[Any, ...]:
        # `apply` cannot be pickled; the words that find the operation in the table can.
        return _operation, (self.python, self.words)


def _operation(python: str, words: str) -> Operation:
    among = (operation for kind in OPERATIONS.values() for operation in kind)
    return next(o for o in among if (o.python, o.words) == (python, words))


def in_a_sentence(kind: str, operation: Operation) -> str:
    """What a step does to a value of that kind, as an order, e.g. `Remove its first 2 items`."""
    name, _, number = operation.words.partition(" ")
    parts = "characters" if kind == "str" else "items"
    return _ORDERS[name].format(a=number, parts=parts)


_ORDERS = {
    "square": "Square it",
    "negate": "Change its sign",
    "add": "Add {a} to it",
    "times": "Multiply it by {a}",
    "minus": "Subtract {a} from it",
    "mod": "Take the remainder when it is divided by {a}, as Python's % does",
    "upper": "Change all its letters to upper case",
    "reverse": "Reverse the order of its {parts}",
    "twice": "Repeat it, so that it stands twice in a row",
    "first": "Keep only its first {a} {parts}",
    "drop": "Remove its first {a} {parts}",
    "sort": "Sort it in ascending order",
    "above": "Keep only the {parts} that are greater than {a}, in their order",
}


def compose(first: Operation, second: Operation) -> str:
    """A program for "first, then second"."""
    inner = first.python.format("x")
    return f"f=lambda x:{second.python.format(f'({inner})')}"


def _with(
    python: str, words: str, numbers: range, apply: Callable[[Any, int], Any]
) -> list[Operation]:
    """One operation for each number a.

    a stands for {a} in the words and in the Python, and is the second argument of `apply`.
    """
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


@dataclass(frozen=True)
class PythonProblem:
    """f(x): the first operation, then the second.

    `inputs[0]` is shown to the agent, the rest are hidden.
    """

    kind: str
    first: Operation
    second: Operation
    inputs: tuple[Any, ...]

    def truth(self, x: Any) -> Any:
        return self.second.apply(self.first.apply(x))


def drawn(rng: np.random.Generator) -> PythonProblem:
    """A problem at random: an integer in half of the cases, else a string or a list."""
    kind = KINDS[rng.choice(3, p=[0.5, 0.25, 0.25])]
    first, second = (OPERATIONS[kind][i] for i in rng.integers(len(OPERATIONS[kind]), size=2))
    return PythonProblem(kind, first, second, _INPUTS[kind](rng))


def _integers(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.choice(np.arange(2, 40), size=_INPUTS_EACH, replace=False))


def _strings(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(
        "".join(rng.choice(list(_LETTERS), size=rng.integers(4, 8))) for _ in range(_INPUTS_EACH)
    )


def _lists(rng: np.random.Generator) -> tuple[list[int], ...]:
    return tuple(rng.integers(0, 9, size=rng.integers(4, 7)).tolist() for _ in range(_INPUTS_EACH))


_INPUTS: dict[str, Callable[[np.random.Generator], tuple[Any, ...]]] = {
    "int": _integers,
    "str": _strings,
    "list": _lists,
}
