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

_RAISES = """
import string
import gymnasium
from gymnasium.spaces import Text

WHEN = "{when}"

class World(gymnasium.Env):
    observation_space, action_space = Text(200, charset=string.printable), Text(40, charset=string.printable)

    def __init__(self): self._raise_in("init")

    def _raise_in(self, now):
        if now == WHEN: raise ValueError(f"trouble in {{now}}")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._raise_in("reset")
        return "now", {{}}

    def step(self, action):
        self._raise_in("step")
        return "done", 0.0, True, False, {{}}

    def oracle_action(self): return "a"
    def random_action(self, rng): return "b"

gymnasium.register(id="World-v0", entry_point=World)
"""
WORLDS_THAT_RAISE = {"raises_on_import": "raise RuntimeError('trouble on import')\n",
                     **{f"raises_in_{when}": _RAISES.format(when=when) for when in ("init", "reset", "step")}}
"""Source of modules, by name, each with a World-v0 that raises where the name says."""
