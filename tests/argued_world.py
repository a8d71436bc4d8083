"""A world that is another with other arguments, and whose signals may be weighed in more than one
way."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Text

from experience.signal import SignalKind


class Argued(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(20)
    actions = ("take", "leave")
    signal_catalogue = {
        "paid": SignalKind("1", "env_state"),
        "spoken": SignalKind("count", "env_state"),
    }
    reward_weights = {"paid": 1.0}

    def __init__(self, pay: float = 1.0, turns: int = 1) -> None:
        self._pay, self._turns = pay, turns

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._turn = 0
        return f"{self._pay} to take", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        paid = self._pay if action == "take" else 0.0
        return (
            f"{self._pay} to take",
            paid,
            self._turn == self._turns,
            False,
            {"signals": {"paid": paid, "spoken": 1.0}},
        )

    def random_action(self, rng: Any) -> str:
        return self.actions[int(rng.integers(2))]

    def expert_action(self) -> str:
        return "take"

    oracle_action = expert_action


gymnasium.register(id="Argued-v0", entry_point=Argued, disable_env_checker=True)
