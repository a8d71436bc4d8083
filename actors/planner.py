"""Lookahead where the agent acts: in the pushed world model, or in true forks of worlds that go back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from actors.config import Config
from experience.learning.value import ValueFunction
from experience.models.weights import Weights
from experience.planning.change import Answer
from experience.planning.lookahead import Search, in_model
from experience.planning.world_model import LanguageWorldModel, Prediction
from experience.policy import Decision
from experience.reward import RewardModel

Ask = Callable[[Sequence[str]], list[Decision]]


def make_world_model(config: Config) -> LanguageWorldModel:
    """The language model of the world, of the same shape wherever it learns or predicts."""
    planning = config.planning
    return LanguageWorldModel(planning.layers, planning.width, config.policy.context, planning.trusted_accuracy,
                              config.seed, planning.retrieve)


def make_value(config: Config) -> ValueFunction:
    """The value function, likewise."""
    return ValueFunction(2, 64, config.policy.context, config.seed, learning_rate=config.learning.value_rate)


class Planner:
    """Thinks before it acts, with the model and the value function that came with the policy. What no model came for,
    and what may not be forked, is decided by the policy alone."""

    def __init__(self, config: Config, rewards: RewardModel) -> None:
        self._settings, self._discount, self._rewards = config.planning, config.collecting.discount, rewards
        self._model, self._value = make_world_model(config), make_value(config)
        self._arguments: dict[str, dict[str, Any]] = {w.id: dict(w.arguments) for w in config.worlds}
        self._forks: dict[str, Any] = {}
        self._loaded = False

    def load(self, weights: Weights) -> None:
        """Raises WeightsError if what was pushed belongs to models of another shape."""
        self._loaded = bool(weights.planner)
        if self._loaded:
            self._value.believe(weights.planner)
            if self._settings.thought == "model":
                self._model.believe(weights.planner)

    def decide(self, env_id: str, worlds: Sequence[Any], observations: Sequence[str],
               ask: Ask) -> list[tuple[Decision, float | None]]:
        """The decisions for situations of one world, each with the value that spoke for it; none where there is nothing
        to think with."""
        settings = self._settings
        forks = settings.thought == "fork" and getattr(worlds[0], "goes_back", False)
        believes = settings.thought == "model" and np.isfinite(self._model.threshold)
        if not self._loaded or not (forks or believes):
            return []

        def reward(_: int, answer: Answer) -> float:
            return self._rewards.of_values(env_id, answer.signals) or 0.0

        shared: Mapping[str, Any] = {"candidates": settings.candidates, "horizon": settings.horizon,
                                     "rollouts": settings.rollouts, "discount": self._discount}
        if forks:
            forked = Search(ask, lambda places, actions: self._fork(env_id, places, actions), self._value, reward,
                            "lookahead in forks", **shared)
            return forked([world.snapshot() for world in worlds], observations)
        modelled = Search(ask, in_model(self._model), self._value, reward, "lookahead in the model",
                          threshold=self._model.threshold, **shared)
        return modelled(observations, observations)

    def _fork(self, env_id: str, snapshots: Sequence[bytes], actions: Sequence[str]) -> list[tuple[bytes, Prediction]]:
        """Each action in the world as it stood at its snapshot: a world of our own is put there, the real one waits."""
        if env_id not in self._forks:
            self._forks[env_id] = gymnasium.make(env_id, **self._arguments[env_id]).unwrapped
            self._forks[env_id].reset(seed=0)
        world, found = self._forks[env_id], []
        for snapshot, action in zip(snapshots, actions, strict=True):
            world.restore(snapshot)
            seen, _, terminated, truncated, info = world.step(action)
            signals = {n: v[0] if isinstance(v, tuple) else v for n, v in info["signals"].items()}
            known = {n: float(v) for n, v in signals.items() if v is not None}
            after = snapshot if terminated or truncated else world.snapshot()
            found.append((after, Prediction(Answer(seen, known, terminated or truncated), 0.0)))
        return found

    def close(self) -> None:
        for world in self._forks.values():
            world.close()
