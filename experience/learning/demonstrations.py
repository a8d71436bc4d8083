"""The sequences that a policy imitates: those of experts, and the best of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from experience.episode import Group
from experience.learning.advantages import as_turn, best_turns, expert_returns
from experience.learning.batch import TokenSequence, Turn, join
from experience.learning.sequences.sequence import count_turns
from experience.options.hierarchy import best_pursuits
from experience.options.option import Library
from experience.step import Step


class Demonstrations:
    """All turns of the experts, and the newest `remembered_successes` of the policy itself.

    Turns whose prompts continue each other are kept, drawn and learned as one sequence.
    """

    def __init__(self, remembered_successes: int) -> None:
        self._experts: list[TokenSequence] = []
        self._successes: deque[TokenSequence] = deque()
        self._most = remembered_successes
        self._remembered = 0
        self._expert_returns: dict[str, float] = {}

    def __len__(self) -> int:
        """The number of the experts' turns."""
        return count_turns(self._experts)

    def take(self, shown: Iterable[Step]) -> None:
        """Replaces the experts' turns by those of `shown`."""
        steps = list(shown)
        self._experts = join([turn for step in steps if (turn := as_turn(step)) is not None])
        self._expert_returns = expert_returns(steps)

    def add(self, turns: Iterable[Turn]) -> None:
        """Adds turns of the policy itself."""
        for sequence in join(list(turns)):
            self._successes.append(sequence)
            self._remembered += len(sequence.turns)
            while self._remembered > self._most:
                self._remembered -= len(self._successes.popleft().turns)

    def add_best(self, groups: Sequence[Group], library: Library) -> None:
        """Adds the best whole episodes of the groups, and the best pursuits of subgoals in them."""
        self.add(best_turns(groups, self._expert_returns))
        for group in groups:
            for pursuit in best_pursuits(group, library):
                self.add(turn for step in pursuit.steps if (turn := as_turn(step)) is not None)

    def count_best(self, group: Group, library: Library) -> int:
        """How many turns of a group `add_best` would remember."""
        best = len(best_turns([group], self._expert_returns))
        return best + sum(len(pursuit.steps) for pursuit in best_pursuits(group, library))

    def sample(self, n: int, rng: np.random.Generator) -> list[TokenSequence]:
        """Sequences of about `n` turns, uniformly and with replacement; none if there are none.

        Those of experts and of the policy are drawn alike (self-imitation, Oh et al. 2018): the
        more tasks the policy solves, the less the experts weigh.
        """
        known = [*self._experts, *self._successes]
        if not known:
            return []
        turns = len(self) + self._remembered
        size = max(round(n * len(known) / turns), 1)
        return [known[i] for i in rng.integers(len(known), size=size)]
