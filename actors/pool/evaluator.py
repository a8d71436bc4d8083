"""The evaluator: held-out episodes of pinned policies, and of the random baseline.

Every version meets the same held-out tasks (the same seeds): differences between versions are
paired.
"""

from __future__ import annotations

import numpy as np

from actors.collecting.pool import Pool
from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from experience.evaluation.statistics import Mean, mean_with_interval
from experience.models.weights import PolicyBundle
from experience.replay.memory import Replay


class Evaluator:
    """Orders evaluations and reads their results from replay's held-out side."""

    def __init__(self, config: Config, pool: Pool, replay: Replay) -> None:
        self._config, self._pool, self._replay = config, pool, replay
        self.waiting: set[bytes] = set()
        """Works ordered and not seen to end yet."""
        self.ordered: list[int] = []

    def baseline(self) -> set[bytes]:
        """The random policy on the held-out tasks; its works."""
        return self._order("random", 0, self._config.evaluation.final_episodes, None)

    def order(self, policy: PolicyBundle, episodes: int) -> None:
        """Orders `episodes` held-out episodes a world; those that exist are not repeated."""
        if episodes:
            self.ordered = sorted({*self.ordered, policy.version})
            self.waiting |= self._order("evaluation", policy.version, episodes, policy)
        self.waiting -= self._replay.finished

    def _order(
        self, lane: Lane, version: int, episodes: int, policy: PolicyBundle | None
    ) -> set[bytes]:
        """Orders what the store does not hold yet; all works of it."""
        works = [
            Work.named(
                f"{self._config.seed}/{lane}/{version}/{world.id}/{i}",
                env_id=world.id,
                seed=self.seed(i),
                lane=lane,
                split="heldout",
                version=-1 if policy is None else version,
            )
            for i in range(episodes)
            for world in self._config.worlds
        ]
        self._pool.order([w for w in works if w.work_id not in self._replay.finished], policy)
        return {w.work_id for w in works}

    def seed(self, number: int) -> int:
        return int(np.random.default_rng([self._config.seed, 2, number]).integers(2**31))

    def gain(self, env_id: str, before: int, after: int) -> Mean:
        """Mean difference in held-out return between two versions, on tasks that both met."""
        first, last = (self._by_task(env_id, version) for version in (before, after))
        return mean_with_interval(
            [last[seed] - first[seed] for seed in sorted(first.keys() & last.keys())]
        )

    def _by_task(self, env_id: str, version: int) -> dict[int, float]:
        return {
            e.first.seed: r
            for e in self._replay.held_out(version, env_id)
            if not e.failed and (r := e.total_reward) is not None
        }

    def returns(self, env_id: str, version: int, behaviour: str | None = None) -> Mean:
        """Mean held-out return of a version in a world, of episodes whose return is known."""
        return mean_with_interval(
            [
                r
                for e in self._replay.held_out(version, env_id, behaviour)
                if not e.failed and (r := e.total_reward) is not None
            ]
        )
