"""A store of ten million rows, followed and sampled: time and memory.

    PYTHONPATH=. .venv/bin/python benchmarks/store/ten_million.py [rows] [folder]

Takes some ten minutes and 6 GB of disk.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.store.append import CATALOGUE, IDS
from experience.policy import Decision, VersionSpan
from experience.shards.journal import Journal
from experience.shards.sampling.samplers import Prioritised, Recency
from experience.shards.sampling.windows import WindowReader
from experience.step import Step


def resident() -> float:
    """MB of this process's own memory, without mapped files: their pages are the page cache's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def write(rows: int, store: Path) -> None:
    ids = np.arange(8, dtype=np.int32)
    decision = Decision(
        "act",
        0,
        action_ids=ids,
        logprobs=ids.astype(np.float32),
        token_exact=True,
        version_spans=(VersionSpan(0, 8),),
    )
    step = Step(
        IDS[0], 0, "bench", "a short observation of some words", decision=decision, reward=0.0
    )
    journal = Journal(store / "w", CATALOGUE, batch_rows=1000, durability="os")
    for i in range(rows):
        journal.append(replace(step, stream_id=IDS[i % 64], t=i // 64))
    journal.close()


def main(rows: int, store: Path) -> None:
    before = time.perf_counter()
    write(rows, store)
    size = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    print(
        f"wrote {rows:,} rows, {size / 1e9:.1f} GB, in {time.perf_counter() - before:.0f} s",
        flush=True,
    )
    reader = WindowReader(store, ("obs_text", "action_ids", "reward"))
    start = resident()
    before = time.perf_counter()
    assert reader.refresh() == rows
    print(
        f"followed in {time.perf_counter() - before:.0f} s; {resident() - start:.0f} MB, "
        f"{(resident() - start) * 1024 * 1024 / rows:.1f} bytes a row"
    )
    for name, sampler in (
        ("uniform", None),
        ("recency", Recency(100_000.0)),
        ("prioritised", Prioritised()),
    ):
        reader.gather(
            reader.draw(256, 16, sampler)
        )  # not counted: the first draw prepares the sampler
        before = time.perf_counter()
        for _ in range(20):
            reader.gather(reader.draw(256, 16, sampler))
        print(
            f"{name}: {20 * 256 / (time.perf_counter() - before):,.0f} windows/s; "
            f"{resident() - start:.0f} MB"
        )
    print(
        "peak, mapped pages included: "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="xp-ten-million-"))
    try:
        main(count, folder)
    finally:
        shutil.rmtree(folder)
