"""The agent: turns what a world shows into situations, and an engine's answers into actions.

Also the two scripted agents that a run needs: the world's own expert, and well-formed actions at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from actors.engines import Engine, Situation
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


class Seat(Protocol):
    """What an agent sees of an environment slot."""

    @property
    def env(self) -> Any: ...

    @property
    def observation(self) -> str: ...


class Agent:
    """An engine's model as a policy. Prompts hold the observation and, for models that read, the instructions."""

    def __init__(self, engine: Engine, temperature: float) -> None:
        self.engine, self.temperature = engine, temperature

    def load(self, weights: Weights) -> None:
        self.engine.load(weights)

    def act(self, seats: Sequence[Seat]) -> list[Decision]:
        situations = [Situation(s.observation, getattr(s.env.unwrapped, "instructions", "")) for s in seats]
        return self.engine.act(situations, self.temperature)


class Expert:
    """The world's scripted expert. Its actions are certain (log-probability 0) and stored as `encode` writes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def act(self, seats: Sequence[Seat]) -> list[Decision]:
        decisions = []
        for seat in seats:
            situation = Situation(seat.observation, getattr(seat.env.unwrapped, "instructions", ""))
            text = seat.env.unwrapped.expert_action()
            encoded = self._engine.encode(situation, text)
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
