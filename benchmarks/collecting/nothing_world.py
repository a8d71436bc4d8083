"""A world that costs nothing: what is measured beside it is the collector."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Discrete, Text

TURNS = 10


class Nothing(gymnasium.Env[str, str]):
    """Ten turns that are all alike."""

    observation_space: Any = Text(100)
    action_space: Any = Text(100)
    actions = ("left", "right")

    def random_action(self, rng: Any) -> str:
        return "left"

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self._turn = 0
        return "here", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        return "here", 1.0, self._turn == TURNS, False, {}


class NothingInNumbers(gymnasium.Env[int, int]):
    """The same for a peer that takes no text."""

    observation_space: Any = Discrete(2)
    action_space: Any = Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self._turn = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        return 0, 1.0, self._turn == TURNS, False, {}


gymnasium.register(
    id="Nothing-v0", entry_point=Nothing, disable_env_checker=True, order_enforce=False
)
