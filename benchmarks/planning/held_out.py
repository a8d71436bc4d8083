"""Returns on held-out tasks, through collector and shards."""

from __future__ import annotations

from pathlib import Path

from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from actors.pool.local import LocalPool
from experience.models.weights import PolicyBundle
from experience.replay.memory import Replay
from experience.shards.catalog import Catalog


def returns(
    config: Config,
    env_id: str,
    policy: PolicyBundle,
    tasks: int,
    folder: Path,
    lane: Lane = "evaluation",
) -> list[float]:
    """The return of each of the first `tasks` held-out tasks, in order; NaN where it is unknown.

    `lane` says who acts: the policy, or for demonstrations the scripted expert.
    """
    works = [
        Work.named(
            f"{lane}/{i}",
            env_id=env_id,
            seed=10_000_000 + i,  # far from the seeds of training, which count from 0
            lane=lane,
            split="heldout",
            version=policy.version,
        )
        for i in range(tasks)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pool = LocalPool(config, "bench", folder, Catalog(folder))
    replay = Replay(2, 1)
    waiting = {w.work_id for w in works}
    try:
        pool.order(works, policy)
        for shard in pool.shards(lambda: waiting <= replay.finished):
            replay.add(shard)
    finally:
        pool.close()
    earned = {e.first.work_id: e.total_reward for e in replay.held_out(policy.version, env_id)}
    totals = [earned.get(work.work_id) for work in works]
    return [float("nan") if total is None else total for total in totals]
