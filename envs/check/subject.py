"""The world under check, the episodes that all checks share, and the registry of checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.episode import Episode, do_oracle, do_random, live
from envs.make import make_as_text
from experience.errors import RecordError
from experience.reward import RewardFunction, RewardModel
from experience.signal import Signal, read_signals
from experience.world import WorldCard


class Failed(Exception):
    """A check found something wrong; the message says what."""


class Skipped(Exception):
    """A check had nothing to look at, or could not be tried; the message says why."""


_MOST_EXPLORED = 100
_FLOOR_EPISODES = 24

CHECKS: dict[str, Callable[[Subject], str]] = {}
"""All checks by id, in the order in which they are tried."""


def check(function: Callable[[Subject], str]) -> Callable[[Subject], str]:
    """Registers `function` as a check of its name.

    Its docstring is the claim. It returns what it looked at, or raises Failed or Skipped with the
    reason.
    """
    CHECKS[function.__name__] = function
    return function


class Subject:
    """One world and the episodes that its checks share. Each kind runs once, when first needed."""

    def __init__(
        self, env_id: str, arguments: Mapping[str, Any] | None = None, episodes: int = 12
    ) -> None:
        self.env_id = env_id
        self.arguments = dict(arguments or {})
        self.episodes = episodes
        self.seconds = episodes / 3
        """The time for a search that could go on for ever."""
        self.world = self.make()
        card = WorldCard.of(self.world)
        self.split = card.splits[0]
        self.weights = card.rewards
        self.catalogue = card.signals
        self.shared = getattr(self.world, "inside", None)
        """The world of all agents, where `world` is seen from one seat of several."""
        self._function = RewardFunction.of(type(self.shared or self.world))
        self._oracle: list[Episode] = []
        self._random: list[Episode] = []
        self._explored: list[Episode] = []

    def make(self) -> Any:
        """A new world. `envs:Text-v0` wraps it if its observations or actions are not text."""
        self.env_id, self.arguments, world = make_as_text(self.env_id, self.arguments)
        return world

    def close(self) -> None:
        self.world.close()

    def forget(self) -> None:
        """Drops all episodes, so that they run again: for when the world was changed."""
        self._oracle = []
        self._random = []
        self._explored = []
        self.weights = WorldCard.of(self.world).rewards

    @property
    def oracle(self) -> list[Episode]:
        """Episodes of the oracle on held-out tasks. Raises Skipped if the world has no oracle."""
        if not self._oracle:
            self._need("oracle_action")
            try:
                self._oracle = [
                    live(self.world, seed, do_oracle, "heldout") for seed in range(self.episodes)
                ]
            except NotImplementedError as why:
                raise Skipped(f"the world has no oracle: {why}") from why
        return self._oracle

    @property
    def random(self) -> list[Episode]:
        """Episodes of random actions on the same tasks; actions do not depend on the task."""
        if not self._random:
            self._need("random_action")
            self._random = [
                live(self.world, seed, do_random, "heldout") for seed in range(self.episodes)
            ]
        return self._random

    @property
    def floor(self) -> list[float]:
        """Returns of random actions on held-out tasks.

        Of 24 episodes if they take only seconds: the luck of a few episodes says little.
        """
        returns = [e.total for e in self.random]
        until = time.perf_counter() + self.seconds
        for seed in range(len(returns), _FLOOR_EPISODES):
            if time.perf_counter() > until:
                break
            returns.append(live(self.world, seed, do_random, "heldout").total)
        return returns

    @property
    def explored(self) -> list[Episode]:
        """All episodes so far, and some seconds of random ones on training tasks.

        With many episodes, rare faults show up.
        """
        until = time.perf_counter() + self.seconds
        while len(self._explored) < _MOST_EXPLORED and time.perf_counter() < until and self.random:
            self._explored.append(live(self.world, len(self._explored), do_random, self.split))
        return [*self.lived, *self.random, *self._explored]

    @property
    def lived(self) -> list[Episode]:
        """The oracle's episodes, or the random ones if the world has no oracle."""
        try:
            return self.oracle
        except Skipped:
            return self.random

    def _need(self, name: str) -> None:
        if not hasattr(self.world, name):
            raise Skipped(f"the world offers no {name}")

    def answers(self) -> list[str]:
        """The oracle's arguments that are too long to stand somewhere by chance."""
        return [word for episode in self.oracle for word in long_words(episode)]

    def measured(self, signals: Mapping[str, Any]) -> tuple[Signal, ...]:
        """The signals of a step. Raises Failed if one is not declared or not a finite number."""
        try:
            return read_signals({"signals": signals}, self.catalogue)
        except (RecordError, TypeError) as wrong:
            raise Failed(str(wrong).splitlines()[0]) from wrong

    @property
    def rewards(self) -> RewardModel:
        """The world's reward: the weighted sum, or its own function."""
        functions = {self.env_id: self._function} if self._function else {}
        return RewardModel({self.env_id: self.weights}, functions)

    def tools(self) -> Mapping[str, Any]:
        tools: Mapping[str, Any] = getattr(self.world, "tools", {})
        return tools

    def invalid_actions(self, rng: np.random.Generator) -> list[str]:
        """Lines that the world should refuse: nonsense, and each tool with a wrong argument."""
        made = ["", "\x00", "no-such-action 1 2 3", '{"name": 3}']
        for tool in self.tools().values():
            words = tool.draw(rng).split(" ")  # the tool's name comes first
            for at, parameter in enumerate(tool.parameters, start=1):
                wrong = _wrong_argument(parameter)
                if wrong and at < len(words):
                    made.append(" ".join([*words[:at], wrong, *words[at + 1 :]]))
        return made


def _wrong_argument(parameter: Any) -> str:
    """An argument that `parameter` must refuse; empty if it takes any text."""
    if parameter.choices:
        return "no-such-choice"
    if parameter.range:
        return f"{10 * abs(parameter.range.high) + 1:g}"
    return "" if parameter.type is str else "nonsense"


def long_words(episode: Episode) -> list[str]:
    """What the actions say after their first word, if that has at least 20 characters."""
    arguments = [action.partition(" ")[2] for action in episode.actions]
    return [words for words in arguments if len(words) >= 20]
