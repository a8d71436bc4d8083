"""How sealing changes a real run's blocks: bytes and CPU a row, before and after.

    PYTHONPATH=. .venv/bin/python -m benchmarks.store.blocks RUN [commit_seconds]

The run's rows are written again with a commit every `commit_seconds` (0.05) of the time in which
they were lived, so blocks are as large as the run's were; then sealed as they are, and sealed with
small blocks rewritten.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.record.schema import signal_names
from experience.shards.storage.checked import Expected, open_all
from experience.signal import SignalKind
from experience.step import Step


def as_lived(
    steps: Sequence[Step],
    folder: Path,
    catalogue: dict[str, SignalKind],
    seconds: float,
    block_rows: int,
) -> tuple[float, float]:
    """Writes and seals; returns the CPU seconds of writing and of sealing."""
    journal = Journal(
        folder / "w",
        catalogue,
        commit_seconds=3600,
        batch_rows=1 << 30,
        durability="os",
        block_rows=block_rows,
    )
    begun = time.process_time()
    oldest = steps[0].t_end_ns
    for step in steps:
        if step.t_end_ns - oldest > seconds * 1e9:
            journal.commit()
            oldest = step.t_end_ns
        journal.append(step)
    journal.commit()
    written = time.process_time()
    journal.close()
    return written - begun, time.process_time() - written


def cpu(read: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of `read`: the least of `times`, which other processes disturbed least."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        read()
        found.append(time.process_time() - begun)
    return min(found)


def read_costs(store: Catalog, catalogue: Mapping[str, SignalKind]) -> tuple[float, float, float]:
    """CPU seconds of following all rows, of a query for some columns, and of a filtered scan."""
    columns = ["env_id", "reward"]
    if "done" in catalogue:
        columns.append("signal.done")
    known = pc.field("reward").is_valid()
    return (
        cpu(lambda: list(Catalog(store.directory).follow())),  # a new catalog: nothing is cached
        cpu(lambda: store.table(columns)),
        cpu(lambda: store.dataset().to_table(["t"], known)),
    )


def measure(run: Path, seconds: float) -> None:
    """Prints the table for the run, with commits every `seconds`."""
    store = run / "shards"
    steps = sorted(
        (s for block in Catalog(store).follow() for s in block), key=lambda s: s.t_end_ns
    )
    by_stream: dict[bytes, list[Step]] = {}
    for step in sorted(steps, key=lambda s: s.t):
        by_stream.setdefault(step.stream_id, []).append(step)
    # Sorted by time alone, a stream's closing row could stand before its last step: both have the
    # same time. So each position takes the next row of its stream.
    steps = [by_stream[s.stream_id].pop(0) for s in steps]
    catalogue = {
        name: SignalKind(unit, source)
        for batch in Catalog(store).batches()  # type: ignore[arg-type]
        for name, unit, source in signal_names(batch.schema)
    }
    print(f"{len(steps)} rows of {run.name}, a commit every {seconds * 1000:.0f} ms")
    print(
        "blocks            rows/block  bytes/row  write µs  seal µs  follow µs  query µs  scan µs"
    )
    for name, block_rows in (("as committed", 0), ("rewritten", 1024)):
        with tempfile.TemporaryDirectory() as folder:
            write, seal = as_lived(steps, Path(folder), catalogue, seconds, block_rows)
            here = Catalog(Path(folder))
            size = sum(p.stat().st_size for p in Path(folder).glob("w/seg*"))
            logs = sum(p.stat().st_size for p in Path(folder).glob("w/seg*.[cb]*"))
            follow, table, where = read_costs(here, catalogue)
            per = 1e6 / len(steps)
            print(
                f"{name:<17} {len(steps) / (logs / 32):>10.1f} {size / len(steps):>10.0f} "
                f"{write * per:>9.1f} "
                f"{seal * per:>8.1f} {follow * per:>10.1f} {table * per:>9.2f} {where * per:>8.2f}"
            )
    print(
        f"holding sealed files against their SHA-256, once a process: {check_seconds():.2f} "
        "CPU s a GB"
    )


def check_seconds(gigabytes: float = 0.5, files: int = 4) -> float:
    """CPU seconds that checking sealed files costs for each GB, from the page cache."""
    data = os.urandom(int(gigabytes * 1e9 / files))
    with tempfile.TemporaryDirectory() as folder:
        expected = [
            Expected(Path(folder) / str(i), len(data), hashlib.sha256(data).hexdigest())
            for i in range(files)
        ]
        for file in expected:
            file.path.write_bytes(data)
        begun = time.process_time()
        open_all(expected)
        return (time.process_time() - begun) / gigabytes


if __name__ == "__main__":
    measure(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.05)
