"""Returns on held-out tasks, through collector and shards."""

from __future__ import annotations

from pathlib import Path

from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from actors.pool.local import LocalPool
from experience.models.weights import PolicyBundle
from experience.replay.replay import Replay
from experience.shards.episodes.index import EpisodeIndex


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
    index = EpisodeIndex.open(folder)
    pool = LocalPool(config, "bench", folder, index)
    replay = Replay(index, 2, 1)
    waiting = {w.work_id for w in works}
    try:
        pool.order(works, policy)
        for _ in pool.shards(lambda: waiting <= replay.finished):
            replay.refresh()
    finally:
        pool.close()
    earned = {e.work_id: e.total_reward for e in replay.held_out(policy.version, env_id)}
    totals = [earned.get(work.work_id) for work in works]
    return [float("nan") if total is None else total for total in totals]
