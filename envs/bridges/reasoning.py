"""text/reasoning: one of reasoning-gym's hundred puzzle generators, scored by its own verifiers.

The verifiers run in a place, each answer in a child process of its own: nine of them would run an
answer as Python.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.sandbox.hosted import TIER, Hosted
from experience.errors import EnvironmentFailure

_TASKS = 500
"""The puzzles of a dataset that are tasks: those with the first numbers."""
GUEST = Path(__file__).parent / "guests/reasoning.py"
CONSTANT: dict[str, float] = {
    "acre": 0.43,
    "circuit_logic": 0.56,
    "coin_flip": 0.95,
    "course_schedule": 0.54,
    "game_of_life": 0.95,
    "game_of_life_halting": 1.0,
    "gcd": 0.36,
    "isomorphic_strings": 0.56,
    "letter_counting": 0.36,
    "mahjong_puzzle": 0.34,
    "maze": 0.35,
    "polynomial_equations": 0.39,
    "puzzle24": 1.0,
    "ransom_note": 0.52,
    "rectangle_count": 0.42,
    "rotten_oranges": 0.32,
    "self_reference": 0.49,
    "shortest_path": 0.36,
    "syllogism": 0.71,
    "time_intervals": 0.44,
}
"""Datasets in which one constant answer scores 0.3 or more on average, and that average.

They teach little but that answer, and are left out unless asked for. Made by
`python -m benchmarks.worlds.constants`.
"""


@lru_cache(maxsize=1)
def judges() -> Hosted:
    """The process that has reasoning-gym loaded."""
    return Hosted(GUEST, ["reasoning_gym"])


@lru_cache(maxsize=1)
def datasets() -> tuple[str, ...]:
    """The names of all datasets.

    Raises MissingPartError without reasoning-gym, IsolationError if no place can be built for it.
    """
    return tuple(judges().warm("names"))


@lru_cache(maxsize=4096)
def entry(dataset: str, index: int) -> dict[str, str]:
    """The `question`, and an `answer` with the full score; empty if the dataset gives none."""
    return dict(judges().warm("entry", dataset=dataset, index=index))


class Reasoning(ToolWorld[int]):
    """Puzzles of one dataset. Warns if the dataset is in `CONSTANT`."""

    briefing: ClassVar[str] = "Solve one puzzle. Your first answer is scored and ends the task."
    forms: ClassVar[dict[str, str]] = {
        "answer": "Give the final answer as TEXT: only the answer itself, no other words"
    }
    meanings: ClassVar[dict[str, str]] = {
        "score": "times the score of your answer, from 0 (wrong) to 1 (right)"
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "score": SignalKind("fraction", "verifier")
    }
    reward_weights: ClassVar[dict[str, float]] = {"score": 1.0}
    sandbox_tier = TIER
    goes_back: ClassVar[bool] = True
    cheats = (
        "answer",
        "answer None",
        "answer ''",
        "answer *",
        "answer nan",
        'answer {"score": 1}',
        "answer True",
    )

    def __init__(self, dataset: str = "chain_sum") -> None:
        super().__init__()
        if dataset not in datasets():
            raise ValueError(f"dataset {dataset!r}: choose one of {', '.join(datasets())}")
        if dataset in CONSTANT:
            warnings.warn(
                f"dataset {dataset}: one answer, always the same, averages {CONSTANT[dataset]:.2f}",
                stacklevel=2,
            )
        self.dataset = dataset

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(_TASKS))

    def signature(self, task: int) -> str:
        return f"{self.dataset}: {self._entry(task)['question']}"

    def _entry(self, task: int) -> dict[str, str]:
        return entry(self.dataset, task)

    def begin(self) -> None:
        self._entry(self.task)
        judges().prepare()

    def observe(self) -> str:
        return self._entry(self.task)["question"]

    def describe(self) -> str:
        return f"Puzzle: {self._entry(self.task)['question']}"

    def example(self) -> str:
        # The answer to a puzzle that is no task: it shows the form and tells nothing of this one.
        return f"answer {self._entry(_TASKS)['answer'] or 'unknown'}"

    @action
    def answer(self, text: str) -> Outcome:
        """Give the final answer, and nothing else."""
        score = self._score(text)
        right = self._entry(self.task)["answer"].strip()
        # The package pays a part of the score to an answer that only contains the right one, as
        # "-4" or "3, 4" contain "4". We do not.
        if score < 1 and right and right in text:
            return {"score": (0.0, "the answer among other things")}, True
        return {"score": score}, True

    def _score(self, text: str) -> float:
        """The score of the dataset's own verifier, run in a child process that then ends."""
        with judges().open() as episode:
            score = episode.ask("score", dataset=self.dataset, index=self.task, text=text)
        if not isinstance(score, float) or not math.isfinite(score) or not 0 <= score <= 1:
            raise EnvironmentFailure(
                f"the verifier of {self.dataset} says {str(score)[:80]}, not a score from 0 to 1"
            )
        return score

    def oracle_action(self) -> str:
        if not self._entry(self.task)["answer"]:
            raise NotImplementedError(f"{self.dataset} gives no right answer to its puzzles")
        return f"answer {self._entry(self.task)['answer']}"

    def random_action(self, rng: np.random.Generator) -> str:
        return f"answer {int(rng.integers(200))}"
