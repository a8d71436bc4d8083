"""The budget of a run: what is spent, which rates follow from that, and when to give up."""

from __future__ import annotations

import time

from actors.config.schema import Config
from actors.pool.pool import Pool
from actors.running.progress import Progress
from experience.errors import XpError
from experience.learning.learner import Learner
from experience.replay.replay import Replay

_STALLED_SECONDS = 30 * 60
_STILL_SECONDS = 5
_LEAST_RATE = 0.05
"""Share of the learning rate that is left when the budget is spent."""


class Every:
    """True at each n-th version, and at no other."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __call__(self, version: int) -> bool:
        return version > 0 and version % self._n == 0


def learning_rate_left(spent: float) -> float:
    """The share of the learning rate that is left when this share of the budget is spent."""
    return 1 - (1 - _LEAST_RATE) * min(spent, 1.0)


class Budget:
    """Counts updates, steps and minutes of the main loop against the configuration's budget."""

    def __init__(
        self, config: Config, learner: Learner, replay: Replay, pool: Pool, progress: Progress
    ) -> None:
        self._config = config
        self._learner = learner
        self._replay = replay
        self._pool = pool
        self._progress = progress
        self.groups_per_update = sum(world.groups for world in config.worlds)
        self._began: float | None = None
        self._moved = 0, time.monotonic()
        self._still = (0, 0, 0), time.monotonic()

    def begin(self) -> bool:
        """The clock of the main loop starts; True at the first call."""
        if self._began is not None:
            return False
        self._began = time.monotonic()
        return True

    @property
    def rounds(self) -> int:
        """How often whole groups were given out, with those of which nothing could be learned."""
        given = len(self._replay.consumed) // max(self.groups_per_update, 1)
        return max(self._learner.version, given)

    @property
    def spent(self) -> float:
        """The share of the budget that is gone, by whichever limit is nearest; 1 ends the run.

        The clock counts only where the configuration gives minutes: other runs repeat exactly.
        """
        budget = self._config.budget
        minutes = (time.monotonic() - (self._began or time.monotonic())) / 60
        barren = self.rounds - self._learner.version  # rounds without an update end a run, too
        updates = max(self._learner.version, barren)
        return max(
            updates / budget.updates if budget.updates else 1.0,
            minutes / budget.minutes if budget.minutes else 0.0,
            self._replay.training_steps / budget.steps if budget.steps else 0.0,
        )

    def is_spent(self) -> bool:
        """Whether the main loop is over.

        Raises XpError if no limit of time holds and half an hour went by without an update.
        """
        budget = self._config.budget
        if self._learner.version != self._moved[0] or self._began is None:
            self._moved = self._learner.version, time.monotonic()
        if budget.minutes is None and time.monotonic() - self._moved[1] > _STALLED_SECONDS:
            raise XpError(
                f"no update in {_STALLED_SECONDS // 60} minutes, "
                f"after version {self._learner.version}",
                "./xp show says what failed; a world whose episodes do not end needs "
                "budget.minutes",
            )
        counts = {
            "update": (self._learner.version, budget.updates),
            "step": (self._replay.training_steps, budget.steps or 0),
        }
        self._progress.done = {what: (done, of) for what, (done, of) in counts.items() if of}
        return self.spent >= 1 or self._is_stuck_at_the_limit()

    def _is_stuck_at_the_limit(self) -> bool:
        """Whether no collector has anything left to do, though the budget is not spent.

        Each collector has its own share of the steps: some have used theirs, and what the others
        lived is not enough for an update.
        """
        config, replay = self._config, self._replay
        if not replay.training_steps or config.budget.steps is None or config.workers < 2:
            return False
        now = (replay.training_steps, len(replay.finished), self.rounds)
        if now != self._still[0]:
            self._still = now, time.monotonic()
        if time.monotonic() - self._still[1] < _STILL_SECONDS:
            return False
        self._still = now, time.monotonic()
        return all(status["idle"] for status in self._pool.status())

    @property
    def rate(self) -> float:
        """Factor of the learning rate: falls linearly over the budget, so that weights settle."""
        return learning_rate_left(self.spent)

    @property
    def planning_rate(self) -> float:
        """Factor of the learning rate for what was imagined or planned."""
        return self.rate * self._config.planning.weight
