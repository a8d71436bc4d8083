"""The agent: turns what a world shows into situations, and an engine's answers into actions.

Also the two scripted agents that a run needs: the world's own expert, and well-formed actions at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from actors.engines import Engine, Situation
from actors.options import Intents, choose, library_of
from experience.models.weights import Weights
from experience.planning.option import Library
from experience.policy import Decision, VersionSpan


class Seat(Protocol):
    """What an agent sees of an environment slot."""

    intents: Intents

    @property
    def env(self) -> Any: ...

    @property
    def observation(self) -> str: ...


NO_OPTIONS = Library()


def situation(seat: Seat, options: Library = NO_OPTIONS) -> Situation:
    """What the policy must answer: options may be started wherever none is under way."""
    world = seat.env.unwrapped
    actions = tuple(getattr(world, "actions", ()))
    if actions and not seat.intents.running:
        actions += tuple(options.admissible(seat.observation))
    return Situation(seat.intents.read(seat.observation), getattr(world, "instructions", ""), actions)


class Agent:
    """An engine's model as a policy. Prompts hold the observation and, for models that read, the instructions."""

    def __init__(self, engine: Engine, temperature: float) -> None:
        self.engine, self.temperature, self.options = engine, temperature, NO_OPTIONS

    def load(self, weights: Weights) -> None:
        self.engine.load(weights)
        self.options = library_of(weights)

    def act(self, seats: Sequence[Seat]) -> list[Decision]:
        """What each option under way does next, and elsewhere the policy: an action, or an option that it starts."""
        return choose(seats, self.options, self._ask)

    def _ask(self, seats: Sequence[Seat]) -> list[Decision]:
        return self.engine.act([situation(s, self.options) for s in seats], self.temperature)


class Expert:
    """The world's scripted expert. Its actions are certain (log-probability 0) and stored as `encode` writes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def act(self, seats: Sequence[Seat]) -> list[Decision]:
        decisions = []
        for seat in seats:
            text = seat.env.unwrapped.expert_action()
            encoded = self._engine.encode(situation(seat), text)
            if encoded is None:
                decisions.append(Decision(text, policy_version=0, behaviour_id="expert"))
                continue
            prompt, action = encoded
            decisions.append(Decision(text, policy_version=0, prompt_ids=prompt, action_ids=action,
                                      logprobs=np.zeros(len(action), np.float32), token_exact=True,
                                      version_spans=(VersionSpan(0, len(action)),), behaviour_id="expert"))
        return decisions


class Random:
    """Well-formed actions at random: the floor that learning must leave."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, seats: Sequence[Seat]) -> list[Decision]:
        return [Decision(s.env.unwrapped.random_action(self._rng), policy_version=0, behaviour_id="random")
                for s in seats]
