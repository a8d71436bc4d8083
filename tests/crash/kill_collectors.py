"""Kills Ray collectors at random during a run and checks the shards: kill_collectors.py KILLS
DIRECTORY.

Every acknowledgement that the driver heard of before a kill is held against the shards at the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from actors.collecting.work import Work
from actors.config.schema import load
from actors.pool.ray_pool import RayPool
from actors.runs.directory import RunDirectory
from experience.models.weights import PolicyBundle, Weights
from experience.shards.catalog import Catalog
from experience.step import Boundary


def main(kills: int, where: str) -> None:
    workers = 2 if kills < 20 else 4
    config, origins = load(
        [],
        [
            f"workers={workers}",
            "worlds=[{id: 'envs:PythonTask-v0', groups: 1}]",
            "policy.layers=1",
            "policy.width=32",
            "policy.heads=4",
            "policy.max_tokens=8",
            "policy.context=128",
            "collecting.slots=4",
            "planning.enabled=false",
            f"runs_dir={where}",
        ],
    )
    directory = RunDirectory.create(config, origins, sys.argv)
    catalog, rng = Catalog(directory.shards), random.Random(0)
    pool = RayPool(config, directory.name, directory.shards, catalog)
    from actors.engines.registry import make_model

    pool.push(PolicyBundle(Weights.of(make_model(config.policy, 0).model, 0)), 10**6)
    pool.order(
        [Work.named(f"w{i}", env_id="envs:PythonTask-v0", seed=i, lane="random") for i in range(8)]
    )
    told: dict[bytes, int] = {}
    seen: list[tuple[bytes, int]] = []
    killed, away, finished = 0, set[int](), threading.Event()
    of_stream: dict[bytes, int] = {}
    next_kill = time.monotonic() + 3
    for shard in pool.shards(finished.is_set):
        for step in shard:
            seen.append((step.stream_id, step.t))
            if step.boundary & Boundary.WORKER_RESTART:
                away.discard(
                    of_stream.get(step.stream_id, -1)
                )  # it came back, and its stream goes on
        if killed == kills and not away:
            finished.set()
        if time.monotonic() < next_kill or killed == kills or len(away) == config.workers:
            continue
        answers = pool.acknowledged(seconds=1)
        for index, (_, acknowledged_now) in answers.items():
            for stream, t in acknowledged_now.items():
                told[stream], of_stream[stream] = max(t, told.get(stream, -1)), index
        ready = [index for index in answers if index not in away and answers[index][1]]
        if ready:
            victim = rng.choice(ready)
            os.kill(answers[victim][0], signal.SIGKILL)
            killed += 1
            away.add(victim)
        next_kill = time.monotonic() + 0.5 * rng.random()
    last = pool.close()
    rows = [step for block in Catalog(directory.shards).follow() for step in block]
    found = [(s.stream_id, s.t) for s in rows]
    acknowledged = {
        (stream, t)
        for source in (told, last)
        for stream, high in source.items()
        for t in range(high + 1)
    }
    print(
        json.dumps(
            {
                "kills": killed,
                "restarts": pool.restarts,
                "rows": len(rows),
                "acknowledged": len(acknowledged),
                "lost": len(acknowledged - set(found)),
                "doubled": len(found) - len(set(found)),
                "followed": len(seen),
                "followed_not_kept": len(set(seen) - set(found)),
                "restart_marks": sum(bool(s.boundary & Boundary.WORKER_RESTART) for s in rows),
            }
        )
    )


main(int(sys.argv[1]), str(Path(sys.argv[2])))
