"""The agent: turns what a world shows into situations, and an engine's answers into actions.

Also the two scripted agents that a run needs: the world's own expert, and well-formed actions at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from actors.agents.options import OptionStack, choose
from actors.agents.planner import Planner, next_experiment
from actors.engines.engine import Engine, Situation
from experience.errors import ConfigError
from experience.models.weights import PolicyBundle
from experience.options.option import USE, Experiments, Library, library_in
from experience.policy import Decision, VersionSpan
from experience.world import actions_of, instructions_of, random_action


class EnvSlot(Protocol):
    """What an agent sees of an environment slot."""

    intents: OptionStack

    @property
    def env_id(self) -> str: ...

    @property
    def env(self) -> Any: ...

    @property
    def observation(self) -> str: ...

    @property
    def draw(self) -> int:
        """The seed of this turn's random numbers."""


NO_OPTIONS = Library()


def situation(seat: EnvSlot, options: Library = NO_OPTIONS) -> Situation:
    """What the policy must answer: options may be started wherever none is under way; where one of them is a subgoal,
    it comes first, and what is done for it after."""
    context = prompt_context(seat.env.unwrapped)
    options = options.within(seat.env_id)
    actions = context.actions
    if actions and not seat.intents.running:
        goals = tuple(USE + name for name in options.subgoals(seat.observation))
        actions = goals or actions + tuple(options.admissible(seat.observation))
    return replace(
        context,
        observation=seat.intents.read(seat.observation, options),
        actions=actions,
        draw=seat.draw,
    )


def prompt_context(env: Any) -> Situation:
    """What a model reads in a world whatever it observes: the rules, and the actions if listed."""
    return Situation("", instructions_of(env), actions_of(env))


class Agent:
    """An engine's model as a policy. Prompts hold the observation and, for models that read, the instructions."""

    def __init__(self, engine: Engine, temperature: float, planner: Planner | None = None) -> None:
        self.engine, self.temperature, self.options, self._planner = (
            engine,
            temperature,
            NO_OPTIONS,
            planner,
        )

    def load(self, policy: PolicyBundle) -> None:
        self.engine.load(policy.weights)
        self.options = library_in(policy.options)
        if self._planner is not None:
            self._planner.load(policy.planner)

    def act(self, seats: Sequence[EnvSlot]) -> list[Decision]:
        """What each option under way does next, and elsewhere the policy: an action, or an option that it starts."""
        return choose(seats, self.options, self._ask, self.engine.version)

    def close(self) -> None:
        if self._planner is not None:
            self._planner.close()

    def _ask(self, seats: Sequence[EnvSlot]) -> list[Decision]:
        planned = self._experiments(seats)
        if self._planner is not None:
            planned |= self._plan(
                self._planner, [seat for seat in seats if not seat.intents.running]
            )
        left = iter(self._by_policy([seat for seat in seats if id(seat) not in planned]))
        return [planned[id(seat)] if id(seat) in planned else next(left) for seat in seats]

    def _experiments(self, seats: Sequence[EnvSlot]) -> dict[int, Decision]:
        """The next experiment, by seat, where a campaign is under way in a laboratory."""
        decisions: dict[int, Decision] = {}
        for seat in seats:
            if seat.intents.running and isinstance(seat.intents.running[-1].option, Experiments):
                world = seat.env.unwrapped
                planned = next_experiment(
                    world, seat.observation, partial(self._write, prompt_context(world))
                )
                if planned is not None:
                    decisions[id(seat)], seat.intents.value_estimate = planned
        return decisions

    def _write(self, context: Situation, seen: str, action: str) -> Decision:
        return planned(self.engine, replace(context, observation=seen), action, self.engine.version)

    def _plan(self, planner: Planner, seats: Sequence[EnvSlot]) -> dict[int, Decision]:
        """What was thought best, by seat, where there is something to think with."""
        decisions: dict[int, Decision] = {}
        for env_id in dict.fromkeys(seat.env_id for seat in seats):
            here = [seat for seat in seats if seat.env_id == env_id]
            context = prompt_context(here[0].env.unwrapped)

            def ask(seen: Sequence[str], context: Situation = context) -> list[Decision]:
                return self.engine.act(
                    [replace(context, observation=o) for o in seen], 1.0
                )  # in thought it explores

            found = planner.decide(
                env_id,
                [seat.env.unwrapped for seat in here],
                [seat.observation for seat in here],
                ask,
                partial(self._write, context),
                {k: v for seat in here for k, v in seat.intents.lived.items()},
                greedy=self.temperature == 0,
            )
            for seat, thought in zip(here, found, strict=False):
                if thought is not None:
                    decisions[id(seat)], seat.intents.value_estimate = thought
        return decisions

    def _by_policy(self, seats: Sequence[EnvSlot]) -> list[Decision]:
        return (
            []
            if not seats
            else self.engine.act([situation(s, self.options) for s in seats], self.temperature)
        )


def written(engine: Engine, asked: Situation, text: str, version: int) -> Decision:
    """An action that the engine's model did not choose, as its tokens where the engine can give them."""
    encoded = engine.encode(asked, text)
    if encoded is None:
        return Decision(text, policy_version=version)
    return replace(
        encoded,
        policy_version=version,
        version_spans=(VersionSpan(version, len(encoded.action_ids)),),
    )


def planned(engine: Engine, asked: Situation, text: str, version: int) -> Decision:
    """The same of what a planner chose. Where it has no room (it may come from a sample that was cut, whose text takes
    more tokens than it had), the action is done all the same, without tokens, and nothing is learned from them."""
    try:
        return written(engine, asked, text, version)
    except ConfigError:
        return Decision(text, policy_version=version, action_cut=True)


def check_room(
    engine: Engine, contexts: Mapping[str, Situation], options: Sequence[str] = ()
) -> None:
    """Raises ConfigError, with the number of tokens needed, if something has no room that every
    run in these worlds must read or write: the rules, a listed action, an option's start.

    contexts: by environment id. What is only known later, such as an expert's actions, is checked
    when it is first written.
    """
    for context in contexts.values():
        writable = [*context.actions, *(USE + name for name in options)]
        # the longest first: its error names the number that is enough for all
        for action in sorted(writable, key=len, reverse=True) or [""]:
            engine.encode(context, action)


class Expert:
    """The world's scripted expert. Its actions are certain (log-probability 0) and stored as `encode` writes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def act(self, seats: Sequence[EnvSlot]) -> list[Decision]:
        return [
            replace(
                written(self._engine, situation(seat), seat.env.unwrapped.expert_action(), 0),
                behaviour_id="expert",
            )
            for seat in seats
        ]


class Random:
    """Well-formed actions at random: the floor that learning must leave."""

    def act(self, seats: Sequence[EnvSlot]) -> list[Decision]:
        return [
            Decision(
                random_action(s.env.unwrapped, np.random.default_rng(s.draw)),
                policy_version=0,
                behaviour_id="random",
            )
            for s in seats
        ]
