"""text/reasoning: one of reasoning-gym's hundred generators of puzzles; answers are scored by its own verifiers."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Answer, SignalKind, ToolWorld, action
from experience.errors import MissingPartError


@lru_cache(maxsize=64)
def _dataset(name: str, seed: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import reasoning_gym
    except ImportError as missing:
        raise MissingPartError(f"text/reasoning needs reasoning-gym: {missing}", "./xp setup worlds") from missing
    return reasoning_gym.create_dataset(name, size=500, seed=seed)


class Reasoning(ToolWorld[int]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {"score": SignalKind("fraction", "verifier")}
    reward_weights: ClassVar[dict[str, float]] = {"score": 1.0}
    goes_back: ClassVar[bool] = True
    cheats = ("answer", "answer None", "answer ''", "answer *", "answer nan", 'answer {"score": 1}', "answer True")

    def __init__(self, dataset: str = "chain_sum") -> None:
        super().__init__()
        self.dataset = dataset

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(500))

    def signature(self, task: int) -> str:
        return f"{self.dataset}: {self._entry(task)['question']}"

    def _entry(self, task: int) -> dict[str, Any]:
        found: dict[str, Any] = _dataset(self.dataset, 0)[task]
        return found

    def begin(self) -> None: ...

    def observe(self) -> str:
        return str(self._entry(self.task)["question"])

    @action
    def answer(self, text: str) -> Answer:
        """Give the final answer, and nothing else."""
        entry = self._entry(self.task)
        score = float(_dataset(self.dataset, 0).score_answer(text, entry))
        if score < 1 and str(entry["answer"]).strip() in text:  # for which its own scoring pays: -4 or 3, 4 holds a 4
            return {"score": (0.0, "the answer among other things")}, True
        return {"score": score}, True

    def oracle_action(self) -> str:
        return f"answer {self._entry(self.task)['answer']}"

    def random_action(self, rng: np.random.Generator) -> str:
        return f"answer {int(rng.integers(200))}"
