"""The evaluator orders held-out episodes of pinned policies and of the random baseline.

Every version meets the same held-out tasks (the same seeds), so that differences between versions
are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from actors.pool.pool import Pool
from experience.evaluation.statistics import Mean, mean_with_interval
from experience.models.weights import PolicyBundle
from experience.replay.choosing import Outcome
from experience.replay.replay import Replay


class Evaluator:
    """Orders evaluations and reads their results from replay's held-out side."""

    def __init__(self, config: Config, pool: Pool, replay: Replay) -> None:
        self._config = config
        self._pool = pool
        self._replay = replay
        self.waiting: set[bytes] = set()
        """Ids of the works that are ordered and have not ended."""
        self.ordered: list[int] = []
        """Versions whose evaluation was ordered, ascending."""

    def baseline(self) -> set[bytes]:
        """Orders the random policy on the held-out tasks. Returns the ids of its works."""
        return self._order("random", 0, self._config.evaluation.final_episodes, None)

    def order(self, policy: PolicyBundle, episodes: int) -> None:
        """Orders `episodes` held-out episodes per world. Stored episodes are not repeated."""
        if episodes:
            self.ordered = sorted({*self.ordered, policy.version})
            self.waiting |= self._order("evaluation", policy.version, episodes, policy)
        self.waiting -= self._replay.finished

    def _order(
        self, lane: Lane, version: int, episodes: int, policy: PolicyBundle | None
    ) -> set[bytes]:
        """Orders the works that the store does not hold yet. Returns the ids of all works.

        The name of a work is made of what it is (lane, version, world, number). A resumed run makes
        the same names, and so finds the episodes that an earlier attempt finished.
        """
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
        """The seed of held-out task `number`, the same for every version and every attempt."""
        return int(np.random.default_rng([self._config.seed, 2, number]).integers(2**31))

    def roles(self, env_id: str) -> dict[str, str]:
        """Name -> agent, of what a world's returns are told of: the world as a whole (no agent),
        and where it has several agents each that the policy played."""
        lived = (
            e for v in self._replay.evaluated_versions() for e in self._replay.held_out(v, env_id)
        )
        agents = sorted({episode.agent_id for episode in lived} - {""})
        return {env_id: ""} | {f"{env_id} as {agent}": agent for agent in agents}

    def gain(self, env_id: str, before: int, after: int, agent: str = "") -> Mean:
        """Mean difference in held-out return between two versions, on the tasks that both met."""
        first = self._by_task(env_id, before, agent)
        last = self._by_task(env_id, after, agent)
        shared = sorted(first.keys() & last.keys())
        return mean_with_interval([last[seed] - first[seed] for seed in shared])

    def _by_task(self, env_id: str, version: int, agent: str) -> dict[tuple[int, str], float]:
        """Seed of a task, and who met it -> held-out return, where it is known."""
        return {
            (episode.seed, episode.agent_id): known
            for episode, known in self._known(env_id, version, None, agent)
        }

    def returns(
        self, env_id: str, version: int, behaviour: str | None = None, agent: str = ""
    ) -> Mean:
        """Mean held-out return of a version in a world, over episodes whose return is known.

        agent: only as this one, in a world with several.
        """
        found = self._known(env_id, version, behaviour, agent)
        return mean_with_interval([known for _, known in found])

    def _known(
        self, env_id: str, version: int, behaviour: str | None, agent: str
    ) -> Iterator[tuple[Outcome, float]]:
        for episode in self._replay.held_out(version, env_id, behaviour):
            known = None if episode.failed else episode.total_reward
            if known is not None and agent in ("", episode.agent_id):
                yield episode, known
