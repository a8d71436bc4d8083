"""A hall that goes on for ever: each turn shows a number that no other turn shows."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Text


class Hall(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(100)
    actions = ("go", "stay")
    instructions = "Walk through the hall. Reply with go or stay."
    arrived: list[str] = []
    """Every action that any hall of this process was given."""

    def __init__(self, turns: int = 12) -> None:
        self._turns = turns

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._turn = 0
        return "room 0", {}

    def expert_action(self) -> str:
        return "go"

    def random_action(self, rng: Any) -> str:
        return str(rng.choice(self.actions))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.arrived.append(action)
        self._turn += 1
        return f"room {self._turn}", 0.0, False, self._turn == self._turns, {}


gymnasium.register(id="Hall-v0", entry_point=Hall, disable_env_checker=True)
