"""Ctrl-C and SIGTERM come between any two lines: what is half done is finished first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from actors.commands.launch import _kept
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.shards.journal import Journal
from tests.conftest import CATALOGUE, make_step
from tests.test_house import ROOT

_WRITES = """
import os, random, signal, sys, threading, time
from pathlib import Path
from experience.interrupts import install
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.journal import Journal
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step
from actors.pool.pool import all_new
install()
rng, rounds = random.Random(0), int(sys.argv[2])
steps = [make_step(t) for t in range(20_000)]
stream = steps[0].stream_id
for number in range(rounds):
    store = Path(sys.argv[1]) / str(number)
    journal = Journal(store / "w", CATALOGUE, durability="os", commit_seconds=0.001, batch_rows=7, seal_bytes=20_000)
    catalog, given = Catalog(store), 0
    number_of_signal = rng.choice((signal.SIGINT, signal.SIGTERM))
    threading.Timer(0.005 + 0.03 * rng.random(), os.kill, (os.getpid(), number_of_signal)).start()
    try:
        while True:
            journal.append(steps[journal.next_t(stream)])
            journal.commit_if_due()
            given += len(all_new(catalog)) if rng.random() < 0.05 else 0
    except (KeyboardInterrupt, SystemExit):
        pass
    journal.append(steps[journal.next_t(stream)])
    journal.close()
    all_new(catalog)
    check_acknowledged(store, journal.acknowledged, catalog.given)
    assert not verify(store, deep=True).problems, verify(store, deep=True).problems
print("all whole")
"""


def test_a_signal_between_any_two_lines_leaves_no_half_written_row(tmp_path: Path) -> None:
    """Without `whole`, one store in five could not be read, or held a row twice."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITES, str(tmp_path), "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.endswith("all whole\n"), done.stderr[-2000:]


def test_an_interrupt_before_the_collectors_were_heard_says_what_the_store_holds(
    tmp_path: Path,
) -> None:
    directory = RunDirectory(tmp_path)
    journal = Journal(directory.shards / "collector-0000", CATALOGUE)
    for t in range(5):
        journal.append(make_step(t))
    journal.close()
    assert _kept(directory, Progress("run", acknowledged=0)) == "5 rows"
    assert _kept(directory, Progress("run", acknowledged=3)) == "3 rows"
