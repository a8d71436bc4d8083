"""A text world with several agents, who take turns or act at once.

    class Nim(SharedWorld[int]):
        agents = ("first", "second")
        def draw(self, rng): return int(rng.integers(5, 21))        # the task
        def begin(self): self.left, self.turn = self.task, 0
        def to_act(self): return (self.agents[self.turn],)          # all of them: at once
        def observe_as(self, agent): return f"{self.left} stones"
        def read(self, agent, action): ...                          # a move, or ValueError
        def play(self, moves): ...                                  # signals, who has ended

It speaks as PettingZoo's parallel environments do (experience/several/agents.py), so a stranger's world
needs none of this.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic

import numpy as np

from envs.contract import INVALID, Task, WorldDefinition, check_length, rewarded
from envs.wording import plain_observation
from experience.errors import EnvironmentFailure
from experience.several.agents import POLICY
from experience.text.characters import readable, without_lone_surrogates

Moves = Mapping[str, Any]
"""What the agents do in one step, by agent, as `read` gave it. Who wrote what cannot be read is
not among them."""
SharedOutcome = tuple[Mapping[str, Mapping[str, Any]], bool | Collection[str]]
"""The signals of a step by agent, and who has ended with it: True is all of them."""


class SharedWorld(WorldDefinition[Task], Generic[Task]):
    """A world of several agents: each sees, acts, is measured and ends by itself.

    `max_turns` counts steps of the world. An answer that cannot be read is the signal
    `invalid_action` of its agent, and moves nothing: who is alone to act is asked again.
    others: who plays the agents that the policy does not. "policy" is nobody: it plays them all.
    "random", "expert", or the name of a run, is every agent but one, which the task draws. A
    mapping says it by agent. others_heldout: the same for held-out episodes.
    """

    agents: ClassVar[tuple[str, ...]] = ()

    def __init__(self, others: Any = POLICY, others_heldout: Any = None, **limits: Any) -> None:
        super().__init__(**limits)
        self.others, self.others_heldout = others, others_heldout

    def to_act(self) -> Sequence[str]:
        """The agents that act in the next step; those that have ended are passed over."""
        raise NotImplementedError

    def observe_as(self, agent: str) -> str:
        """The text that one agent sees now."""
        raise NotImplementedError

    def read(self, agent: str, action: str) -> Any:
        """The move that an agent's text means. Raises ValueError for none."""
        return action

    def play(self, moves: Moves) -> SharedOutcome:
        """Does the moves of one step. `moves` is never empty."""
        raise NotImplementedError

    def describe_as(self, agent: str) -> str:
        """What `observe_as` shows, in sentences, for language models."""
        return self.observe_as(agent)

    def actions_as(self, agent: str) -> tuple[str, ...]:
        """The actions of an agent now, if they can be listed."""
        return self.actions

    def random_action_as(self, agent: str, rng: np.random.Generator) -> str:
        """A well-formed action of an agent at random; one of `actions_as` unless it is given."""
        listed = self.actions_as(agent)
        if not listed:
            raise NotImplementedError(f"{type(self).__name__} needs a random_action_as")
        return listed[int(rng.integers(len(listed)))]

    def oracle_action_as(self, agent: str) -> str:
        """The best action of an agent, given the hidden state."""
        raise NotImplementedError(f"{type(self).__name__} has no oracle_action_as")

    def expert_action_as(self, agent: str) -> str:
        return self.oracle_action_as(agent)

    def observe(self) -> str:
        """What all agents see: the state, where they see the same."""
        seen = dict.fromkeys(self.observe_as(agent) for agent in self.agents)
        return "\n".join(seen)

    def seat(self, agent: str) -> Seat:
        """One agent's view of this world."""
        return Seat(self, agent)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        split = (options or {}).get("split", self.splits[0])
        if split not in self.splits:
            raise ValueError(
                f"split {split!r}: {type(self).__name__} has {' and '.join(self.splits)}"
            )
        self.split = split
        self.task = self.tasks(split, self.np_random)
        self.turn_of_world = 0
        self._taken = dict.fromkeys(self.agents, 0)
        self._notes: dict[str, str] = {}
        self._over: set[str] = set()
        self._began = time.monotonic()
        self.begin()
        self._asked = self._next()
        return {a: self.seen_by(a) for a in self._asked}, {a: self._info(a) for a in self._asked}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """The world's next step, with an action of every agent that is to act."""
        if not self._asked:
            raise RuntimeError("step() after the episode ended; call reset() first")
        if set(actions) != set(self._asked):
            raise RuntimeError(f"step() takes the actions of {', '.join(self._asked)}")
        self.turn_of_world += 1
        moves, signals = self._read_all(actions)
        ended: bool | Collection[str] = False
        if moves:
            played, ended = self.play(moves)
            for agent, found in played.items():
                signals[agent] = {**signals.get(agent, {}), **found}
        now = self._ended_now(ended)
        self._over |= now
        is_cut = self._is_cut_off()
        cut = {a for a in self.agents if a not in self._over} if is_cut else set[str]()
        self._over |= cut
        self._asked = self._next()
        told = [a for a in self.agents if a in now or a in cut or a in self._asked]
        return (
            {a: self.seen_by(a) for a in told},
            {a: self._reward(a, found, a in now) for a, found in signals.items()},
            {a: a in now for a in told},
            {a: a in cut for a in told},
            {a: self._info(a, signals.get(a, {})) for a in dict.fromkeys([*told, *signals])},
        )

    def _read_all(self, actions: Mapping[str, str]) -> tuple[Moves, dict[str, dict[str, Any]]]:
        """(the moves that can be read, signals of the agents whose text cannot)."""
        moves, signals = {}, dict[str, dict[str, Any]]()
        for agent in self._asked:
            text = actions[agent]
            self._notes.pop(agent, None)
            self._taken[agent] += 1
            try:
                check_length(self, text)
                moves[agent] = self.read(agent, text.strip() or "(nothing)")
            except ValueError as unreadable:
                self._notes[agent] = self.refusal(text, unreadable)
                signals[agent] = {INVALID: (1.0, without_lone_surrogates(text[:80]))}
        return moves, signals

    def _ended_now(self, ended: bool | Collection[str]) -> set[str]:
        """The agents that end with this step, of what `play` said."""
        if isinstance(ended, bool):
            return {a for a in self.agents if a not in self._over} if ended else set()
        if unknown := set(ended) - set(self.agents):
            raise EnvironmentFailure(
                f"{type(self).__name__}: play ended {', '.join(sorted(unknown))}, who is none of "
                f"{', '.join(self.agents)}"
            )
        return set(ended) - self._over

    def _is_cut_off(self) -> bool:
        is_last = self.max_turns is not None and self.turn_of_world >= self.max_turns
        seconds = self.episode_seconds
        is_late = seconds is not None and time.monotonic() - self._began > seconds
        return self.cut_off or is_last or is_late

    def _next(self) -> tuple[str, ...]:
        """Who acts next; nobody after the end."""
        if len(self._over) == len(self.agents):
            return ()
        return tuple(agent for agent in self.to_act() if agent not in self._over)

    def _reward(self, agent: str, signals: Mapping[str, Any], is_over: bool) -> float:
        values = {n: v[0] if isinstance(v, tuple) else v for n, v in signals.items()}
        ending = "terminated" if is_over else "none"
        found = rewarded(self, values, max(self._taken[agent] - 1, 0), ending)
        return float("nan") if found is None else found

    def seen_by(self, agent: str) -> str:
        """What an agent is shown now, in the world's wording, with the note on its last action."""
        note, is_over = self._notes.get(agent, ""), agent in self._over
        if self.wording == "plain":
            seen = plain_observation(self.seat(agent), note, self._taken[agent], is_over)
        else:
            seen = self.observe_as(agent) + note
        return readable(seen)[: self.observation_characters]

    def _info(self, agent: str, signals: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {
            "signals": dict(signals or {}),
            "task_id": self.signature(self.task),
            "split": self.split,
            "state": readable(self.observe_as(agent)),
        }


class Seat:
    """One agent's view of a world: the rules, the actions, and who may act in its place."""

    def __init__(self, world: SharedWorld[Any], agent: str) -> None:
        self._world = world
        self.agent = agent
        self.max_turns = None
        """Of one agent's own turns: the world does not say."""

    @property
    def instructions(self) -> str:
        return f"You are {self.agent}. {self._world.instructions}".strip()

    @property
    def actions(self) -> tuple[str, ...]:
        return self._world.actions_as(self.agent)

    @property
    def observation_characters(self) -> int:
        return self._world.observation_characters

    def describe(self) -> str:
        return self._world.describe_as(self.agent)

    def example(self) -> str:
        try:
            return self.random_action(np.random.default_rng(0))
        except NotImplementedError:
            return ""

    def random_action(self, rng: np.random.Generator) -> str:
        return self._world.random_action_as(self.agent, rng)

    def oracle_action(self) -> str:
        return self._world.oracle_action_as(self.agent)

    def expert_action(self) -> str:
        return self._world.expert_action_as(self.agent)
