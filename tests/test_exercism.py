"""Exercism's layout, tests and exceptions, judged on plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from envs.code_execution.exercism import exercises
from envs.code_execution.judged import verdict
from experience.errors import MissingPartError

LEAP = (
    "def leap_year(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n",
    """
import unittest
from leap import (
    leap_year,
)
class LeapTest(unittest.TestCase):
    def test_year_not_divisible_by_4_in_common_year(self):
        self.assertIs(leap_year(2015), False)
    def test_year_divisible_by_100_not_divisible_by_400(self):
        self.assertIs(leap_year(1900), False)
    def test_year_divisible_by_400_in_leap_year(self):
        self.assertIs(leap_year(2000), True)
""",
)
SQUARE = (
    "def square(number):\n    if not 0 < number < 65:\n        raise ValueError('square must "
    "be between 1 and 64')\n"
    "    return 2 ** (number - 1)\n",
    """
import unittest
from square import square
class SquareTest(unittest.TestCase):
    def test_grains(self):
        for number, expected in ((1, 1), (2, 2), (64, 9223372036854775808)):
            with self.subTest(number=number):
                self.assertEqual(square(number), expected)
    def test_zero_is_invalid(self):
        with self.assertRaises(ValueError) as err:
            square(0)
        self.assertEqual(type(err.exception), ValueError)
        self.assertEqual(err.exception.args[0], "square must be between 1 and 64")
""",
)
CLOCK = (
    "class Clock:\n    pass\n",
    "import unittest\nfrom clock import Clock\nclass T(unittest.TestCase):\n    def "
    "test_a(self):\n        self.assertTrue(Clock())\n",
)


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("python")
    for name, (solution, tests) in {"leap": LEAP, "square": SQUARE, "clock": CLOCK}.items():
        folder = root / "exercises/practice" / name
        (folder / ".meta").mkdir(parents=True)
        (folder / ".docs").mkdir()
        (folder / ".docs/instructions.md").write_text(f"# Instructions\n\nAbout {name}.\n")
        (folder / ".meta/config.json").write_text(
            json.dumps(
                {
                    "files": {
                        "solution": [f"{name}.py"],
                        "test": [f"{name}_test.py"],
                        "example": [".meta/example.py"],
                    }
                }
            )
        )
        (folder / ".meta/example.py").write_text(solution)
        (folder / f"{name}.py").write_text(solution.splitlines()[0] + "\n    pass\n")
        (folder / f"{name}_test.py").write_text(tests)
    return root


def test_exercises_that_ask_one_function_are_taken_and_their_example_passes(track: Path) -> None:
    found = {p.name: p for p in exercises(str(track))}
    assert set(found) == {"leap", "square"}, "a class cannot be put to values"
    for problem in found.values():
        assert problem.prompt.startswith("# Instructions") and verdict(
            problem, problem.solution
        ) == (True, "all tests pass")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("leap", "def leap_year(year): return year % 4 == 0"),
        ("leap", "def leap_year(year): return 1"),
        ("leap", "class E:\n    def __eq__(s, o): return True\ndef leap_year(year): return E()"),
        (
            "leap",
            "import unittest\nunittest.TestCase.assertIs = lambda *a: None\ndef "
            "leap_year(year): return None",
        ),
        ("leap", "import os\nos._exit(0)"),
        ("leap", "def check(c): pass\ndef leap_year(year): pass"),
        ("square", "def square(number): return 2 ** (number - 1)"),
        (
            "square",
            "def square(number):\n    if number < 1: raise ValueError('no')\n    return 2 ** "
            "(number - 1)",
        ),
        (
            "square",
            "def square(number):\n    if number < 1: raise Exception('square must be between 1 "
            "and 64')\n    return 2 ** (number - 1)",
        ),
        (
            "square",
            "class V(ValueError): pass\ndef square(n):\n    if n < 1: raise V('square must be "
            "between 1 and 64')\n    return 2 ** (n - 1)",
        ),
    ],
)
def test_what_is_wrong_or_dishonest_fails(track: Path, name: str, code: str) -> None:
    problem = next(p for p in exercises(str(track)) if p.name == name)
    assert not verdict(problem, code)[0]


def test_the_world_pays_the_whole_program_and_says_where_a_track_is_missing(
    track: Path, tmp_path: Path
) -> None:
    world: Any = gymnasium.make("envs:Exercism-v0", path=str(track)).unwrapped
    world.tasks = lambda split, rng: exercises(str(track))[1]
    seen, _ = world.reset(seed=0)
    assert "About square" in seen and "def square(number)" in seen
    assert world.step(world.oracle_action())[1:3] == (1.0, True)
    with pytest.raises(MissingPartError, match="no exercise of a Python track"):
        gymnasium.make("envs:Exercism-v0", path=str(tmp_path))
