"""The base of worlds from other frameworks: tasks are seeds; one reward; no oracle."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from envs.contract import INVALID, World
from experience.signal import SignalKind


class Stranger(World[int]):
    """A world whose task is one of `tasks` seeds; `name` is the first part of a task's signature.

    The other framework's code is not confined unless a subclass says so.
    """

    sandbox_tier = "none"
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "env_reward": SignalKind("reward", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0, INVALID: -0.1}

    def __init__(self, name: str, tasks: int) -> None:
        super().__init__()
        self._name = name
        self._tasks = tasks

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self._tasks))

    def signature(self, task: int) -> str:
        return f"{self._name} {task}"

    def oracle_action(self) -> str:
        raise NotImplementedError("a stranger's world comes without an oracle")
