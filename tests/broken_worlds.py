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


gymnasium.register(id="NeverStarts-v0", entry_point=NeverStarts)
