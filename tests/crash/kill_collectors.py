"""Kills Ray collectors at random during a run and checks the shards: kill_collectors.py KILLS DIRECTORY.

Every acknowledgement that the driver heard of before a kill is held against the shards at the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from actors.collector import Work
from actors.config import load
from actors.pool import RayPool
from actors.rundir import RunDirectory
from experience.models.weights import Weights
from experience.shards.catalog import Catalog
from experience.step import Boundary


def main(kills: int, where: str) -> None:
    config, origins = load([], [
        "workers=2", "worlds=[{id: 'envs:PythonTask-v0', groups: 1}]", "policy.layers=1", "policy.width=32",
        "policy.heads=4", "policy.max_tokens=8", "policy.context=128", "collecting.slots=4", "planning.enabled=false", f"runs_dir={where}"])
    directory = RunDirectory.create(config, origins, sys.argv)
    catalog, rng = Catalog(directory.shards), random.Random(0)
    pool = RayPool(config, directory.name, directory.shards, catalog)
    from actors.engines import make_engine

    pool.push(Weights.of(make_engine(config.policy, 0).model, 0), 10**6)
    pool.order([Work.named(f"w{i}", env_id="envs:PythonTask-v0", seed=i, lane="random") for i in range(8)])
    told: dict[bytes, int] = {}
    seen: list[tuple[bytes, int]] = []
    killed, next_kill = 0, time.monotonic() + 3
    before, advanced = 0, True
    stop = [False]
    for shard in pool.shards(lambda: stop[0]):
        seen += [(s.stream_id, s.t) for s in shard]
        advanced = advanced or len(seen) > before
        if time.monotonic() < next_kill or not advanced:
            continue
        if killed == kills:
            stop[0] = True
            continue
        answers = pool.status()
        for status in answers:
            for stream, t in status["acknowledged"].items():
                told[stream] = max(t, told.get(stream, -1))
        if answers:
            os.kill(rng.choice(answers)["pid"], signal.SIGKILL)
            killed += 1
            before, advanced = len(seen), False  # the run must go on before the next kill
            next_kill = time.monotonic() + 0.2 + rng.random()
    last = pool.close()
    rows = [step for block in Catalog(directory.shards).follow() for step in block]
    found = [(s.stream_id, s.t) for s in rows]
    acknowledged = {(stream, t) for source in (told, last) for stream, high in source.items() for t in range(high + 1)}
    print(json.dumps({
        "kills": killed, "restarts": pool.restarts, "rows": len(rows), "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(found)), "doubled": len(found) - len(set(found)),
        "followed": len(seen), "followed_not_kept": len(set(seen) - set(found)),
        "restart_marks": sum(bool(s.boundary & Boundary.WORKER_RESTART) for s in rows)}))


main(int(sys.argv[1]), str(Path(sys.argv[2])))
