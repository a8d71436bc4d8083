"""code/exercism: the exercises of a Python track of Exercism, judged on plain values.

The user brings a copy of the track:

    git clone https://github.com/exercism/python, then envs:Exercism-v0 with path=python

An exercise is taken if its tests import one function of it and no class. The tests of other
exercises cannot be put to plain values.
"""

from __future__ import annotations

import ast
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from envs.code_execution.judged import JudgedProblems, Problem, asked
from envs.contract import Split, is_held_out
from experience.errors import EnvironmentFailure, MissingPartError

_CHECK = """
def check(candidate):
    globals()["{entry}"] = candidate
    for case in list(globals().values()):
        if not isinstance(case, type) or not issubclass(case, unittest.TestCase):
            continue
        for name in unittest.TestLoader().getTestCaseNames(case):
            case(name).debug()
"""


def read(folder: Path) -> Problem | None:
    """The problem of an exercise, or None where its tests do not ask for one function.

    Raises EnvironmentFailure if a file that the exercise's config names is missing or is not
    Python.
    """
    try:
        files = json.loads((folder / ".meta/config.json").read_text())["files"]
        stub, tests, example = (
            (folder / files[kind][0]).read_text() for kind in ("solution", "test", "example")
        )
        tree = ast.parse(tests)
        functions = {n.name for n in ast.parse(example).body if isinstance(n, ast.FunctionDef)}
    except (OSError, ValueError, KeyError, IndexError, SyntaxError) as wrong:
        raise EnvironmentFailure(
            f"{folder.name} is not as Exercism lays it out: {wrong}"
        ) from wrong
    own = Path(files["solution"][0]).stem
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == own]
    names = [a.name for n in imports for a in n.names if a.asname is None]
    if len(names) != 1 or names[0] not in functions or any(len(n.names) != 1 for n in imports):
        return None
    # The function comes by `check(candidate)`: there is no module that the tests could import.
    tree.body = [n for n in tree.body if n not in imports]
    test = f"import unittest\n{ast.unparse(tree)}\n{_CHECK.replace('{entry}', names[0])}"
    instructions = folder / ".docs/instructions.md"
    told = instructions.read_text().strip() if instructions.exists() else ""
    return Problem(folder.name, f"{told}\n\n{stub.strip()}\n", names[0], example, test)


@lru_cache(maxsize=4)
def exercises(path: str) -> tuple[Problem, ...]:
    """The exercises whose own example solves them, in the order of their names.

    Raises MissingPartError if no exercise is left.
    """
    folders = sorted(
        p.parent.parent
        for p in Path(path).expanduser().glob("exercises/practice/*/.meta/config.json")
    )
    found = []
    for problem in filter(None, map(read, folders)):
        try:
            if asked(problem):
                found.append(problem)
        except EnvironmentFailure:
            # Its own example does not pass as plain values: no agent's program could.
            continue
    if not found:
        raise MissingPartError(
            f"{path}: no exercise of a Python track lies there",
            "git clone https://github.com/exercism/python, and give its folder as path",
        )
    return tuple(found)


class Exercism(JudgedProblems):
    """Exercises of a Python track: instructions and a stub, judged by the exercise's own tests."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        exercises(path)

    def tasks(self, split: Split, rng: np.random.Generator) -> Problem:
        among = [p for p in exercises(self._path) if is_held_out(p.name) == (split == "heldout")]
        if not among:
            raise ValueError(
                f"none of the {len(exercises(self._path))} exercises in {self._path} is {split}"
            )
        return among[int(rng.integers(len(among)))]
