"""Runs reasoning-gym inside its place: makes puzzles; scores each answer in a child of its own.

Covers: nine of its scorers run an answer as Python, four by `eval`, five by sympy's `parse_expr`.
The place keeps such code from the host, but not from the puzzle's own answer, which is in the
caller's variables. So here `eval` reads literals only. `parse_expr` gets only numbers, one-letter
names, functions of mathematics and operators; any other text scores as no answer.

Does not cover: a scorer that pays for a wrong answer.
"""

import ast
import contextlib
import importlib
import re
import warnings
from functools import lru_cache

EVALUATING = (
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "algorithmic.binary_matrix",
    "games.n_queens",
)
"""The modules whose scorers call `eval` on an answer."""
PARSING = ("games.countdown", "games.puzzle24")
"""Modules that import `parse_expr` by name; algebra's scorers take it from sympy's namespace."""
FUNCTIONS = {
    "sin",
    "cos",
    "tan",
    "exp",
    "log",
    "ln",
    "sqrt",
    "pi",
    "E",
    "I",
    "Rational",
    "Integer",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "sec",
    "csc",
    "cot",
    "Abs",
}
_TOKEN = re.compile(r"\s+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+|[A-Za-z]+|[-+*/^(),!]")


def is_expression(text):
    """Whether `text` has only numbers, one-letter names, known functions and operators."""
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return False
        word = token.group()
        if word.isalpha() and len(word) > 1 and word not in FUNCTIONS:
            return False
        at = token.end()
    return True


class Judge:
    """`literally=False` leaves the scorers as they are: the tests' control."""

    def __init__(self, literally=True):
        warnings.simplefilter("ignore")
        import reasoning_gym

        self._make = lru_cache(maxsize=64)(self._warmed)
        self._create = reasoning_gym.create_dataset
        self._entry = lru_cache(maxsize=4096)(lambda name, index: self._make(name)[index])
        if literally:
            _read_literally()

    def _warmed(self, name):
        """A dataset whose scorer has run once, so that its forks have all that it then loads."""
        made = self._create(name, size=500, seed=0)
        first = made[0]
        with contextlib.suppress(Exception):  # what it says is not asked here
            made.score_answer(first["answer"], first)
        return made

    def names(self):
        from reasoning_gym.factory import DATASETS

        return sorted(DATASETS)

    def entry(self, dataset, index):
        """The question, and an answer that earns all; an empty one where the dataset gives none."""
        entry = self._entry(dataset, index)
        answer = entry["answer"]
        if answer is None:  # many are right; some of these datasets give one of them
            answer = next(
                (v for k, v in entry["metadata"].items() if k.startswith("example_") and v), ""
            )
        return {"question": str(entry["question"]), "answer": str(answer)}

    def score(self, dataset, index, text):
        return float(self._make(dataset).score_answer(text, self._entry(dataset, index)))


def _read_literally():
    import sympy
    from sympy.parsing import sympy_parser

    parse = sympy_parser.parse_expr

    def parse_expr(text, *more, **named):
        if not isinstance(text, str) or not is_expression(text):
            raise ValueError("not an expression")
        return parse(text, *more, **named)

    sympy.parse_expr = parse_expr
    for name in EVALUATING:
        importlib.import_module(f"reasoning_gym.{name}").eval = ast.literal_eval
    for name in PARSING:
        importlib.import_module(f"reasoning_gym.{name}").parse_expr = parse_expr
