"""The publisher offers the newest policy to all collectors, with a quota of groups."""

from __future__ import annotations

from actors.pool.pool import Pool
from experience.learning.learner import Learner
from experience.planning.world_models.world_model import LearnedModel
from experience.replay.limits import RateLimiter


class Publisher:
    """Pushes policies to the pool. No collector starts more groups than the limiter allows."""

    def __init__(
        self,
        pool: Pool,
        learner: Learner,
        world: LearnedModel | None,
        limiter: RateLimiter,
        plans_while_acting: bool,
    ) -> None:
        self._pool = pool
        self._learner = learner
        self._world = world
        self._limiter = limiter
        self._plans_while_acting = plans_while_acting
        self._exported = -1
        """The last version whose planning models were serialised."""

    def publish(self, rounds: int) -> None:
        """Pushes the present policy, with the models that its planner reads.

        rounds: how often whole groups were given out. The limiter counts lag in rounds.
        """
        value = self._learner.value if self._plans_while_acting else None
        if value is not None and self._exported != self._learner.version:
            self._exported = self._learner.version
            model = self._world.export_weights() if self._world else {}
            self._learner.planner = value.export_weights() | model
        self._pool.push(self._learner.policy(), self._limiter.inserts_allowed(rounds))

    def stop(self) -> None:
        """Has no new training group begun."""
        self._pool.stop()
