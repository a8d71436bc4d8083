"""A world of text as numbers, for learners that know no text, such as stable-baselines3.

from stable_baselines3 import PPO
PPO("MlpPolicy", AsNumbers(gymnasium.make("envs:KeyDoor-v0"))).learn(10_000)
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from experience.errors import ConfigError


class AsNumbers(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A world whose actions are the numbers of its listed `actions`, and whose observations are
    UTF-8 bytes.

    An observation is uint8 [characters]: the bytes of the text from its start, then zeros. Longer
    texts are cut there. Raises ConfigError for a world that lists no actions.
    """

    def __init__(self, env: gymnasium.Env[str, str], characters: int = 256) -> None:
        RecordConstructorArgs.__init__(self, characters=characters)
        gymnasium.Wrapper.__init__(self, env)
        self.listed: tuple[str, ...] = tuple(getattr(env.unwrapped, "actions", ()))
        if not self.listed:
            raise ConfigError(
                f"{env} lists no actions", "wrap a world with `actions`, such as envs:KeyDoor-v0"
            )
        self.action_space = spaces.Discrete(len(self.listed))
        self.observation_space = spaces.Box(0, 255, (characters,), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seen, info = self.env.reset(seed=seed, options=options)
        return self._bytes(seen), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(self.listed[int(action)])
        return self._bytes(seen), reward, terminated, truncated, info

    def _bytes(self, text: str) -> np.ndarray:
        array = np.zeros(self.observation_space.shape or (), np.uint8)
        data = np.frombuffer(text.encode()[: len(array)], np.uint8)
        array[: len(data)] = data
        return array
