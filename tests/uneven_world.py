"""A world whose turns take a random time: which environment is first is different in every run."""

from __future__ import annotations

import random
import time
from typing import Any

import gymnasium
from gymnasium.spaces import Text

_CLOCK = random.Random()  # from the machine's entropy, so never the same twice


class Uneven(gymnasium.Env[str, str]):
    """Say the letter that is shown; up to four turns, a point for each right one."""

    observation_space, action_space = Text(100), Text(100)
    actions = ("a", "b", "c")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._turn, self._wanted = 0, str(self.np_random.choice(self.actions))
        return f"say {self._wanted}", {}

    def expert_action(self) -> str:
        return self._wanted

    def random_action(self, rng: Any) -> str:
        return str(rng.choice(self.actions))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(_CLOCK.random() * 0.01)
        reward = float(action == self._wanted)
        self._turn += 1
        self._wanted = str(self.np_random.choice(self.actions))
        return f"say {self._wanted}", reward, self._turn == 4 or action == "stop", False, {}


gymnasium.register(id="Uneven-v0", entry_point=Uneven, disable_env_checker=True)
