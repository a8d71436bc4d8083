"""The world under check: how it is made, the episodes that all checks share, and how a check is registered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.episode import Episode, do_oracle, do_random, live
from envs.make import make_as_text
from experience.errors import RecordError
from experience.signal import Signal, read_signals
from experience.world import WorldCard


class Failed(Exception):
    """What a check found wrong."""


class Skipped(Exception):
    """Why a check had nothing to look at, or could not be tried."""


_MOST_EXPLORED = 100
_FLOOR_EPISODES = 24

CHECKS: dict[str, Callable[[Subject], str]] = {}
"""All checks by id, in the order in which they are tried."""


def check(function: Callable[[Subject], str]) -> Callable[[Subject], str]:
    """Registers a check under the function's name. Its docstring is the claim; it returns what it looked at, and
    raises Failed or Skipped with the reason."""
    CHECKS[function.__name__] = function
    return function


class Subject:
    """One environment id, made, with the episodes that its checks share: lived once, when first asked for."""

    def __init__(
        self, env_id: str, arguments: Mapping[str, Any] | None = None, episodes: int = 12
    ) -> None:
        self.env_id, self.arguments, self.episodes = env_id, dict(arguments or {}), episodes
        self.seconds = episodes / 3
        """How long a check that could go on for ever looks."""
        self.world = self.make()
        card = WorldCard.of(self.world)
        self.split = card.splits[0]
        self.weights = card.rewards
        self.catalogue = card.signals
        self._oracle: list[Episode] = []
        self._random: list[Episode] = []
        self._explored: list[Episode] = []

    def make(self) -> Any:
        """The world; one whose observations or actions are not text is read and written by `envs:Text-v0`."""
        self.env_id, self.arguments, world = make_as_text(self.env_id, self.arguments)
        return world

    def close(self) -> None:
        self.world.close()

    def forget(self) -> None:
        """Drops all episodes: they are lived anew when next asked for, because the world was changed."""
        self._oracle, self._random, self._explored = [], [], []
        self.weights = WorldCard.of(self.world).rewards

    @property
    def oracle(self) -> list[Episode]:
        """Episodes of the oracle over held-out tasks. Raises Skipped where the world has no oracle."""
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
        """Episodes of random actions over the same tasks, drawn independently of the tasks."""
        if not self._random:
            self._need("random_action")
            self._random = [
                live(self.world, seed, do_random, "heldout") for seed in range(self.episodes)
            ]
        return self._random

    @property
    def floor(self) -> list[float]:
        """Returns of random acting on held-out tasks: of two dozen where that takes seconds only, for the luck of a few
        episodes says little."""
        returns = [e.total for e in self.random]
        until = time.perf_counter() + self.seconds
        for seed in range(len(returns), _FLOOR_EPISODES):
            if time.perf_counter() > until:
                break
            returns.append(live(self.world, seed, do_random, "heldout").total)
        return returns

    @property
    def explored(self) -> list[Episode]:
        """All episodes lived so far, and more at random over training tasks, for some seconds: what is rare shows."""
        until = time.perf_counter() + self.seconds
        while len(self._explored) < _MOST_EXPLORED and time.perf_counter() < until and self.random:
            self._explored.append(live(self.world, len(self._explored), do_random, self.split))
        return [*self.lived, *self.random, *self._explored]

    @property
    def lived(self) -> list[Episode]:
        """The oracle's episodes, or those at random where a world has no oracle."""
        try:
            return self.oracle
        except Skipped:
            return self.random

    def _need(self, name: str) -> None:
        if not hasattr(self.world, name):
            raise Skipped(f"the world offers no {name}")

    def answers(self) -> list[str]:
        """What the oracle says beyond a verb, where it is too long to stand somewhere by chance."""
        return [word for episode in self.oracle for word in long_words(episode)]

    def measured(self, signals: Mapping[str, Any]) -> tuple[Signal, ...]:
        """Raises Failed for a signal that the world has not declared, or that is no finite number."""
        try:
            return read_signals({"signals": signals}, self.catalogue)
        except (RecordError, TypeError) as wrong:
            raise Failed(str(wrong).splitlines()[0]) from wrong

    def tools(self) -> Mapping[str, Any]:
        tools: Mapping[str, Any] = getattr(self.world, "tools", {})
        return tools

    def invalid_actions(self, rng: np.random.Generator) -> list[str]:
        """Lines that the world should refuse: nonsense, and each tool with an argument that it must not take."""
        made = ["", "\x00", "no-such-action 1 2 3", '{"name": 3}']
        for tool in self.tools().values():
            words = tool.draw(rng).split(" ")
            for place, parameter in enumerate(tool.parameters, start=1):
                wrong = _wrong_argument(parameter)
                if wrong and place < len(words):
                    made.append(" ".join([*words[:place], wrong, *words[place + 1 :]]))
        return made


def _wrong_argument(parameter: Any) -> str:
    if parameter.choices:
        return "no-such-choice"
    if parameter.range:
        return f"{10 * abs(parameter.range.high) + 1:g}"
    return "" if parameter.type is str else "nonsense"


def long_words(episode: Episode) -> list[str]:
    return [words for a in episode.actions if len(words := a.partition(" ")[2]) >= 20]
