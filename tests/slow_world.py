"""Two strangers' environments: one that hangs, one that knows nothing of us."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
from gymnasium.spaces import Text


class Slow(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(100)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        return "wait", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(1.5)
        return "too late", 1.0, True, False, {}


class Coin(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(100)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "heads or tails", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "shown", float(self.np_random.integers(2)), True, False, {}


gymnasium.register(id="Slow-v0", entry_point=Slow, disable_env_checker=True)
gymnasium.register(id="Coin-v0", entry_point=Coin, disable_env_checker=True)
