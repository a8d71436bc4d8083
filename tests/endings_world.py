"""A world whose episodes end in every way that a world can end them: each turn earns 1, and a whole
episode 3."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
from gymnasium.spaces import Text

WAYS = ("terminated", "truncated", "env_error", "timeout", "no start", "late error")


class Ends(gymnasium.Env[str, str]):
    """The seed chooses the way: WAYS[seed % 6].

    Failures come in the second turn, so that 1 was earned before.
    """

    observation_space, action_space = Text(100), Text(100)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.way, self.turn = WAYS[(seed or 0) % len(WAYS)], 0
        if self.way == "no start":
            raise RuntimeError("the world does not come up")
        return f"turn 0 of {seed}", {}

    def random_action(self, rng: Any) -> str:
        return f"go {rng.integers(9)}"

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        time.sleep(0.02)
        if self.way == "timeout" and self.turn == 2:
            time.sleep(2.5)
        if (self.way == "env_error" and self.turn == 2) or (
            self.way == "late error" and self.turn == 3
        ):
            raise RuntimeError("the world broke")
        over = self.turn == 3
        return (
            f"turn {self.turn}",
            1.0,
            over and self.way != "truncated",
            over and self.way == "truncated",
            {},
        )


gymnasium.register(id="Ends-v0", entry_point=Ends, disable_env_checker=True)
