"""Worlds with several agents: what a step of the world means for each of them.

Such a world has `agents`, their names, and speaks as PettingZoo's parallel environments do: `reset`
gives (observations, infos), `step(actions)` gives (observations, rewards, terminations,
truncations, infos), each by agent. Who is among the observations, and has not ended, acts next: one
agent where they take turns, several where they act at once. What is measured for an agent while it
waits for its next turn belongs to its last action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experience.errors import EnvironmentFailure
from experience.signal import as_number

POLICY = "policy"
"""Who acts for an agent that nothing else is said of."""


def agents_of(env: Any) -> tuple[str, ...]:
    """The agents of a world with several; empty for a world with one."""
    named = getattr(env, "agents", ())
    if isinstance(named, list | tuple) and all(isinstance(agent, str) for agent in named):
        return tuple(named)
    return ()


def seat_of(env: Any, agent: str) -> Any:
    """What is asked for the rules, the listed actions and the scripts of one agent: what the
    world's `seat(agent)` gives, else the world itself."""
    seat = getattr(env, "seat", None)
    return seat(agent) if agent and callable(seat) else env


@dataclass(frozen=True)
class Told:
    """What one agent is told: `answer` is that of Gymnasium's `step` to its last action.

    If it has not acted yet, the answer holds its first observation, and its reward is 0.
    """

    agent: str
    answer: tuple[Any, Any, bool, bool, dict[str, Any]]
    is_asked: bool
    """Whether it is to act now. Else it has ended."""


class Agents:
    """The agents of one episode: who acts now, who has ended, and what was measured meanwhile.

    Invariants: an agent is asked, waits, or has ended; while one has not ended, one is asked.
    """

    def __init__(self, world: str, agents: Sequence[str]) -> None:
        self._world = world
        self._agents = tuple(agents)
        self.begin()

    def begin(self) -> None:
        self.asked: tuple[str, ...] = ()
        """The agents that are to act now, in the order of `agents`."""
        self._ended: set[str] = set()
        self._seen: dict[str, Any] = {}
        self._rewards: dict[str, Any] = {}
        self._signals: dict[str, dict[str, Any]] = {}

    @property
    def is_over(self) -> bool:
        return len(self._ended) == len(self._agents)

    def reset(self, answer: Any) -> list[Told]:
        """What the agents are told after `reset`. Raises EnvironmentFailure for what is no such
        answer."""
        self.begin()
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._wrong("reset", answer, "(observations, infos), each by agent")
        observations, infos = (self._by_agent("reset", part) for part in answer)
        return self._told(observations, {}, {}, infos)

    def step(self, answer: Any) -> list[Told]:
        """What the agents that act next, or have ended, are told after `step`."""
        if not isinstance(answer, tuple) or len(answer) != 5:
            form = "(observations, rewards, terminations, truncations, infos), each by agent"
            raise self._wrong("step", answer, form)
        parts = [self._by_agent("step", part) for part in answer]
        observations, rewards, terminated, truncated, infos = parts
        for agent in self._agents:
            self._add(agent, rewards.get(agent, 0.0), infos.get(agent, {}))
        return self._told(observations, terminated, truncated, infos)

    def _told(
        self,
        observations: Mapping[str, Any],
        terminated: Mapping[str, Any],
        truncated: Mapping[str, Any],
        infos: Mapping[str, Any],
    ) -> list[Told]:
        told, asked = [], []
        for agent in self._agents:
            if agent in self._ended:
                continue
            ends = terminated.get(agent, False), truncated.get(agent, False)
            is_over = any(map(bool, ends))
            if agent not in observations and not is_over:
                continue
            self._seen[agent] = observations.get(agent, self._seen.get(agent, ""))
            answer = (
                self._seen[agent],
                self._rewards.pop(agent, 0.0),
                *ends,
                self._info(agent, infos.get(agent, {})),
            )
            told.append(Told(agent, answer, not is_over))
            if is_over:
                self._ended.add(agent)
            else:
                asked.append(agent)
        self.asked = tuple(asked)
        if not asked and not self.is_over:
            waiting = ", ".join(agent for agent in self._agents if agent not in self._ended)
            raise EnvironmentFailure(
                f"{self._world}: nobody is to act, and {waiting} has not ended",
                "give observations of who acts next, or end every agent",
            )
        return told

    def _add(self, agent: str, reward: Any, info: Mapping[str, Any]) -> None:
        """Adds what was measured for an agent to what it is told next."""
        if isinstance(info.get("signals"), Mapping):
            kept = self._signals.setdefault(agent, {})
            for name, value in info["signals"].items():
                kept[name] = together(kept[name], value) if name in kept else value
        before, more = as_number(self._rewards.get(agent, 0.0)), as_number(reward)
        # what is no number is told as it is, and refused by whoever reads it
        self._rewards[agent] = reward if before is None or more is None else before + more

    def _info(self, agent: str, info: Any) -> dict[str, Any]:
        kept = self._signals.pop(agent, None)
        return dict(info) if kept is None else {**info, "signals": kept}

    def _by_agent(self, what: str, part: Any) -> Mapping[str, Any]:
        if not isinstance(part, Mapping) or not set(part) <= set(self._agents):
            raise self._wrong(what, part, f"mappings by agent, of {', '.join(self._agents)}")
        return part

    def _wrong(self, what: str, found: Any, expected: str) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"{self._world}: {what} of a world with several agents gave {str(found)[:80]}",
            f"it gives {expected}",
        )


def together(before: Any, more: Any) -> Any:
    """A signal that was measured twice for one action: the sum, unknown if either is unknown.

    A signal is its value, or a pair (value, evidence).
    """
    values = [signal[0] if isinstance(signal, tuple) else signal for signal in (before, more)]
    said = [str(signal[1]) for signal in (before, more) if isinstance(signal, tuple)]
    total = None if None in values else sum(values)
    return (total, "; ".join(said)) if said else total
