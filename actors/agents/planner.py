"""Lookahead while acting: in the pushed world model, or in forks of worlds that go back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from actors.config.schema import Config
from actors.making import make_world
from experience.learning.value import ValueFunction
from experience.planning.lookahead import Search, Try, in_model
from experience.planning.reach import Reach, could_do, worth
from experience.planning.search import TreeSearch
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.ensemble import EnsembleModel
from experience.planning.world_models.language import LanguageWorldModel
from experience.planning.world_models.world_model import LearnedModel, Prediction
from experience.policy import Decision
from experience.reward import RewardModel
from experience.world import WorldView

Ask = Callable[[Sequence[str]], list[Decision]]
Write = Callable[[str, str], Decision]
"""(observation, action) -> the action as a decision."""
Lived = Mapping[tuple[str, str], Outcome]


def make_world_model(
    config: Config, actions: Sequence[str] = (), signals: Sequence[str] = ()
) -> LearnedModel:
    """The model of the world, of the same shape wherever it learns or predicts.

    actions, signals: what the numbers of an ensemble stand for; only its learner must name them.
    """
    planning = config.planning.model
    if planning.kind == "ensemble":
        return EnsembleModel(
            actions,
            signals,
            width=planning.width,
            trusted_accuracy=planning.trusted_accuracy,
            seed=config.seed,
        )
    return LanguageWorldModel(
        planning.layers,
        planning.width,
        config.policy.context,
        planning.trusted_accuracy,
        config.seed,
        planning.retrieve,
    )


def make_value(config: Config) -> ValueFunction:
    """The value function, likewise."""
    return ValueFunction(
        2, 64, config.policy.context, config.seed, learning_rate=config.learning.value_rate
    )


def next_experiment(view: WorldView, seen: str, write: Write) -> tuple[Decision, float] | None:
    """The next experiment of a laboratory, and the expected value of its best recipe; None in a
    world without a laboratory."""
    if view.experiment is None:
        return None
    action, value, share = view.experiment
    return replace(write(seen, action), decoder=f"campaign rho={share:.2f}"), value


class Planner:
    """Looks ahead with the model and the value function that came with the policy. Without them,
    or in a world that may not be forked, the policy alone decides."""

    def __init__(self, config: Config, rewards: RewardModel) -> None:
        self._settings, self._discount, self._rewards = (
            config.planning.lookahead,
            config.collecting.discount,
            rewards,
        )
        self._model, self._value = make_world_model(config), make_value(config)
        self._arguments: dict[str, dict[str, Any]] = {
            w.id: dict(w.arguments) for w in config.worlds
        }
        self._forks: dict[str, Any] = {}
        self._rng = np.random.default_rng(config.seed)
        self._loaded = False

    def load(self, exported: Mapping[str, bytes]) -> None:
        """Raises WeightsError if what was pushed belongs to models of another shape."""
        self._loaded = bool(exported)
        if self._loaded:
            self._value.load_weights(exported)
            if self._settings.simulator == "model":
                self._model.load_weights(exported)

    def decide(
        self,
        env_id: str,
        views: Sequence[WorldView],
        observations: Sequence[str],
        ask: Ask,
        write: Write,
        lived: Lived | None = None,
        greedy: bool = False,
    ) -> list[tuple[Decision, float | None] | None]:
        """For each situation of one world a decision and its value, or None if nothing was found;
        an empty list if no model is loaded.

        ask: samples actions of the policy. write: encodes an action that the policy did not say.
        lived: outcomes of the episodes' own turns. greedy: leaves out the noise by which a tree
        search explores.
        """
        settings = self._settings
        if settings.search == "campaign":
            return [
                next_experiment(view, seen, write)
                for view, seen in zip(views, observations, strict=True)
            ]
        snapshots = [view.snapshot for view in views if view.snapshot is not None]
        forks = settings.simulator == "fork" and len(snapshots) == len(views)
        believes = settings.simulator == "model" and self._model.threshold > -np.inf
        if not self._loaded or not (forks or believes):
            return []

        reward = partial(worth, self._rewards, env_id)
        places: Sequence[Any] = snapshots if forks else observations
        tries: Try[Any] = partial(self._fork, env_id) if forks else in_model(self._model, lived)
        threshold = float("inf") if forks else self._model.threshold
        where = "in forks" if forks else "in the model"
        listed = views[0].actions
        if settings.search == "sweeps":
            choices = Reach(
                partial(could_do, listed, ask, settings.candidates),
                tries,
                reward,
                settings.states,
                self._discount,
                threshold,
            )(places, observations)
            best = [
                (next(iter(choices[o].best)), choices[o].value) if o in choices else None
                for o in observations
            ]
            return self._written(best, observations, write, where)
        if settings.search == "gumbel":
            found = TreeSearch(
                ask,
                tries,
                self._value,
                reward,
                listed,
                settings.candidates,
                settings.states,
                self._discount,
                threshold,
                None if greedy else self._rng,
            )(places, observations)
            return self._written(found, observations, write, where)
        search = Search(
            ask,
            tries,
            self._value,
            lambda _, answer: reward(answer),
            f"lookahead {where}",
            settings.candidates,
            settings.horizon,
            settings.rollouts,
            self._discount,
            threshold,
        )
        return [*search(places, observations)]

    def _written(
        self,
        found: Sequence[tuple[str, float] | None],
        observations: Sequence[str],
        write: Write,
        where: str,
    ) -> list[tuple[Decision, float | None] | None]:
        """The planner's actions as decisions: to be imitated, for they are no samples."""
        name = f"{self._settings.search} {where} n={self._settings.states}"
        return [
            None if best is None else (replace(write(seen, best[0]), decoder=name), best[1])
            for seen, best in zip(observations, found, strict=True)
        ]

    def _fork(
        self, env_id: str, snapshots: Sequence[bytes], actions: Sequence[str]
    ) -> list[tuple[bytes, Prediction]]:
        """Tries each action at its snapshot, in a world of its own; the real one is untouched."""
        if env_id not in self._forks:
            self._forks[env_id] = make_world(env_id, self._arguments[env_id]).unwrapped
            self._forks[env_id].reset(seed=0)
        world, found = self._forks[env_id], []
        for snapshot, action in zip(snapshots, actions, strict=True):
            world.restore(snapshot)
            seen, _, terminated, truncated, info = world.step(action)
            signals = {n: v[0] if isinstance(v, tuple) else v for n, v in info["signals"].items()}
            known = {n: float(v) for n, v in signals.items() if v is not None}
            after = snapshot if terminated or truncated else world.snapshot()
            found.append((after, Prediction(Outcome(seen, known, terminated or truncated), 0.0)))
        return found

    def close(self) -> None:
        for world in self._forks.values():
            world.close()
