"""Worlds in which nothing can be learned, each for another reason."""

from __future__ import annotations

import threading
import time
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


class Endless(NeverStarts):
    """Episodes never end: the expert's neither, unless it may."""

    def __init__(self, expert_ends: bool = False) -> None:
        self._expert_ends = expert_ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "left or right", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(0.002)
        return "on", 0.0, self._expert_ends and action == "end", False, {}

    def expert_action(self) -> str:
        return "end" if self._expert_ends else "left"


class LostExpert(AllTheSame):
    """The expert of every world finds no way."""

    def expert_action(self) -> str:
        raise IndexError("no path found from here")


class Ten(AllTheSame):
    """Ten turns an episode, each paid by what is done."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self._turn = 0
        return "left or right", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        return f"turn {self._turn}", float(action == "left"), self._turn == 10, False, {}


class HangsClosing(AllTheSame):
    def close(self) -> None:
        time.sleep(100_000)


class LeavesThreads(AllTheSame):
    def __init__(self) -> None:
        threading.Thread(target=time.sleep, args=(100_000,)).start()


gymnasium.register(id="NeverStarts-v0", entry_point=NeverStarts)
gymnasium.register(id="AllTheSame-v0", entry_point=AllTheSame)
gymnasium.register(id="Endless-v0", entry_point=Endless, disable_env_checker=True)
gymnasium.register(id="LostExpert-v0", entry_point=LostExpert)
gymnasium.register(id="Ten-v0", entry_point=Ten)
gymnasium.register(id="HangsClosing-v0", entry_point=HangsClosing)
gymnasium.register(id="LeavesThreads-v0", entry_point=LeavesThreads)

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
WORLDS_THAT_RAISE = {
    "raises_on_import": "raise RuntimeError('trouble on import')\n",
    **{f"raises_in_{when}": _RAISES.format(when=when) for when in ("init", "reset", "step")},
}
"""Source of modules, by name, each with a World-v0 that raises where the name says."""
