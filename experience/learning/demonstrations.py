"""The turns that a policy imitates: those of experts, and the best of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from experience.episode import Group
from experience.learning.advantages import as_turn, best_turns, expert_returns
from experience.learning.batch import Turn
from experience.options.hierarchy import best_pursuits
from experience.options.option import Library
from experience.step import Step


class Demonstrations:
    """All turns of the experts, and the newest `remembered_successes` of the policy itself."""

    def __init__(self, remembered_successes: int) -> None:
        self._experts: list[Turn] = []
        self._successes: deque[Turn] = deque(maxlen=remembered_successes)
        self._expert_returns: dict[str, float] = {}

    def __len__(self) -> int:
        """The number of the experts' turns."""
        return len(self._experts)

    def take(self, shown: Iterable[Step]) -> None:
        """Replaces the experts' turns by those of `shown`."""
        steps = list(shown)
        self._experts = [turn for step in steps if (turn := as_turn(step)) is not None]
        self._expert_returns = expert_returns(steps)

    def add(self, turns: Iterable[Turn]) -> None:
        """Adds turns of the policy itself."""
        self._successes.extend(turns)

    def add_best(self, groups: Sequence[Group], library: Library) -> None:
        """Adds the best whole episodes of the groups, and the best pursuits of subgoals in them."""
        self.add(best_turns(groups, self._expert_returns))
        for group in groups:
            for pursuit in best_pursuits(group, library):
                self.add(turn for step in pursuit.steps if (turn := as_turn(step)) is not None)

    def sample(self, n: int, rng: np.random.Generator) -> list[Turn]:
        """`n` turns, uniformly and with replacement; an empty list if there are none.

        Turns of experts and of the policy are drawn alike (self-imitation, Oh et al. 2018): the
        more tasks the policy solves, the less the experts weigh.
        """
        known = [*self._experts, *self._successes]
        if not known:
            return []
        return [known[i] for i in rng.integers(len(known), size=n)]
