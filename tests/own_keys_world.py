"""A stranger's world that knows nothing of us, and keeps things of its own in `info`."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.spaces import Text


class OwnKeys(gymnasium.Env[str, str]):
    observation_space, action_space = Text(100), Text(100)
    own = {"split": "validation", "images": 3, "signals": ["red", "green"], "late": True}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "begin", dict(self.own)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "on", 1.0, False, False, dict(self.own)


gymnasium.register(id="OwnKeys-v0", entry_point=OwnKeys, disable_env_checker=True)
