"""W5: the time from append() until a following reader in another process has the row."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from experience.shards.catalog import Catalog

_WRITER = """
import sys, time
from pathlib import Path
from benchmarks.store.append import CATALOGUE, with_steps
from benchmarks.store.rows import make_rows
from experience.shards.journal import Journal
rows = with_steps(make_rows(64))
journal = Journal(Path(sys.argv[1]) / "w", CATALOGUE, durability="sync")
rate, count = float(sys.argv[2]), int(sys.argv[3])
from dataclasses import replace
due = time.time()
for i in range(count):
    due += 1 / rate
    time.sleep(max(0.0, due - time.time()))
    step = rows[i % 64]["step"]
    journal.append(replace(step, stream_id=bytes(16), t=i, t_start_ns=time.time_ns()))
journal.close()
"""


def latency(folder: Path, rate: float, count: int) -> list[float]:
    """Milliseconds from append() until a following reader has the row, for each row.

    The first tenth, in which files are made, is left out.
    """
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), str(rate), str(count)])
    catalog = Catalog(folder)
    found: list[float] = []
    while len(found) < count:
        for steps in catalog.follow():
            now = time.time_ns()
            found += [(now - s.t_start_ns) / 1e6 for s in steps]
        time.sleep(0.0005)
    writer.wait()
    return found[count // 10 :]
