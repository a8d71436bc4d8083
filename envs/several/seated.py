"""A world with several agents, seen from one seat: the others act at random.

For whatever drives one agent alone: `./xp env check`, `play`, `serve`, and stock tools. The seat is
that of an agent who acts first, drawn by the seed of the reset if several do, unless it is named.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.contract import ending_of, rewarded
from experience.several.agents import Agents, Told, agents_of, seat_of
from experience.world import random_action

_SEATS, _OTHERS = 0x5EA7, 0x07E5
"""Mixed into the seed, so that seats, the others and the world draw different numbers."""


def from_one_seat(world: Any, seat: str = "") -> Any:
    """`world`, or the view from one seat if it has several agents."""
    return Seated(world, seat) if agents_of(world) else world


class Seated(gymnasium.Env[str, str]):
    """One agent's world. What is not said here is what the shared world says."""

    agents = ()
    goes_back = False

    def __init__(self, world: Any, seat: str = "") -> None:
        self.inside = world
        self.observation_space = world.observation_space
        self.action_space = world.action_space
        self.spec = world.spec
        self._named = seat
        self._all = Agents(type(world).__name__, agents_of(world))
        self.agent = seat or agents_of(world)[0]
        self.is_at_once = False
        """Whether several agents act at once, so that an answer that is refused does not stop the
        world."""
        self._turn = 0
        self._last: Told | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "inside":
            raise AttributeError(name)
        own = ("instructions", "actions", "random_action", "oracle_action", "expert_action")
        seat = seat_of(self.inside, self.agent) if name in own else self.inside
        return getattr(seat, name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._rng = np.random.default_rng([seed or 0, _OTHERS])
        self._turn, self._last = 0, None
        first = self._all.reset(self.inside.reset(seed=seed, options=options))
        drawn = int(np.random.default_rng([seed or 0, _SEATS]).integers(len(self._all.asked)))
        self.agent = self._named or self._all.asked[drawn]
        self.is_at_once = len(self._all.asked) > 1
        self._hear(first)
        told = self._told()
        return told.answer[0], {**told.answer[4], "signals": {}}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        if self._told().is_asked:  # else it ended before its first turn
            self._last = None
            self._go_on({self.agent: action})
        observation, _, terminated, truncated, info = self._told().answer
        signals = info.get("signals")
        if signals is None:
            reward = float(self._told().answer[1])
        else:
            values = {n: v[0] if isinstance(v, tuple) else v for n, v in signals.items()}
            ending = ending_of(bool(terminated), bool(truncated))
            known = rewarded(self.inside, values, self._turn - 1, ending)
            reward = float("nan") if known is None else known
        return observation, reward, bool(terminated), bool(truncated), info

    def close(self) -> None:
        self.inside.close()

    def _told(self) -> Told:
        """What this agent was told last; the others act until it is told something."""
        while self._last is None:
            self._go_on({})
        return self._last

    def _go_on(self, actions: dict[str, str]) -> None:
        """One step of the world, with random actions of all others that are to act."""
        for agent in self._all.asked:
            if agent not in actions:
                actions[agent] = random_action(seat_of(self.inside, agent), self._rng)
        self._hear(self._all.step(self.inside.step(actions)))

    def _hear(self, told: list[Told]) -> None:
        for one in told:
            if one.agent == self.agent:
                self._last = one
