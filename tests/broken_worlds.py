"""Worlds in which nothing can be learned, each for another reason."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Text


class NeverStarts(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(100)
    actions = ("left", "right")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        raise ConnectionError("the simulator is not up")

    def random_action(self, rng: Any) -> str:
        return "left"


class AllTheSame(NeverStarts):
    """Whatever is done, one turn pays 1."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "left or right", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "done", 1.0, True, False, {}

    def expert_action(self) -> str:
        return "left"


gymnasium.register(id="NeverStarts-v0", entry_point=NeverStarts)
gymnasium.register(id="AllTheSame-v0", entry_point=AllTheSame)
