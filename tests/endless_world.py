"""Worlds that never end: one by our contract, and a stranger's that knows nothing of segments."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from envs.contract import Outcome, World
from experience.signal import SignalKind


class Mill(World[tuple[int, int]]):
    """A wheel of some places. Only at place 0 does `grind` pay, and it never ends."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "flour": SignalKind("count", "env_state"),
        "invalid_action": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"flour": 1.0}
    instructions = "turn the wheel, or grind at place 0"
    actions = ("turn", "grind")
    max_turns, segment_turns = None, 8
    cheats = ("flour 1", "grind 0")

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        size = int(rng.integers(2, 6))
        return size, int(rng.integers(size))

    def begin(self) -> None:
        self.size, self.place = self.task

    def observe(self) -> str:
        return f"place {self.place} of {self.size}"

    def act(self, action: str) -> Outcome:
        if action not in self.actions:
            raise ValueError("turn or grind")
        flour = float(action == "grind" and self.place == 0)
        if action == "turn":
            self.place = (self.place + 1) % self.size
        return {"flour": flour}, False

    def oracle_action(self) -> str:
        return "grind" if self.place == 0 else "turn"

    def random_action(self, rng: np.random.Generator) -> str:
        return self.actions[int(rng.integers(2))]


class Endless(gymnasium.Env[str, str]):
    """Counts its turns since the last reset; breaks at turn `breaks_at`."""

    observation_space, action_space = Text(100), Text(100)
    actions = ("on",)

    def __init__(self, breaks_at: int = 0) -> None:
        self.breaks_at = breaks_at

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.n = 0
        return "turn 0", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.n += 1
        if self.n == self.breaks_at:
            raise RuntimeError("the mill is broken")
        return f"turn {self.n}", 1.0, False, False, {}

    def random_action(self, rng: Any) -> str:
        return "on"


gymnasium.register(id="Mill-v0", entry_point=Mill)
gymnasium.register(id="Endless-v0", entry_point=Endless)
