"""What the store's benchmark times: each function here returns a call that measures once.

A call returns a rate, larger is better. Everything is prepared before the clock starts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store.rows import BATCH
from benchmarks.store.windows import Draw
from experience.errors import MissingPartError

Measured = Callable[[], float]


class Elsewhere:
    """A peer in a Python environment of its own: one line asks, one line answers."""

    def __init__(self, python: Path, program: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [str(python), "-m", program, *words],
            stdin=subprocess.PIPE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._line("ready")

    def __call__(self, name: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._line("answer").split()[1])

    def _line(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise MissingPartError(
            f"a peer ended before it said {start!r}", "start it by hand and read what it says"
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def rounds(measured: Mapping[str, Measured], count: int) -> dict[str, list[float]]:
    """The figures of `count` rounds; in each round everything is measured once, in turn."""
    results: dict[str, list[float]] = {name: [] for name in measured}
    for measure in measured.values():
        measure()  # not counted: libraries load, files come into the page cache
    # In turns: a slower minute of the machine slows all alike, and leaves their ratio.
    for _ in range(count):
        for name, measure in measured.items():
            results[name].append(measure())
    return results


def per_second(work: Path, write: Callable[..., None], items: list[Any], *more: Any) -> Measured:
    """Items/s of `write(items, folder)`, each time into a new folder."""

    def measure() -> float:
        # A new folder each time: an append to a large table may cost more than to a small one.
        folder = Path(tempfile.mkdtemp(dir=work))
        started = time.perf_counter()
        write(items, folder, *more)
        rate = len(items) / (time.perf_counter() - started)
        shutil.rmtree(folder)
        return rate

    return measure


def windows_per_second(work: Path, prepare: Callable[..., Draw], rows: list[Any]) -> Measured:
    """Windows/s of what `prepare` returns: each measurement draws four batches."""
    draw = prepare(rows, Path(tempfile.mkdtemp(dir=work)))
    rng = np.random.default_rng(1)
    draw(rng)

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(4):
            draw(rng)
        return 4 * BATCH / (time.perf_counter() - started)

    return measure


def scans_per_second(
    work: Path, prepare: Callable[..., Callable[[], int]], rows: list[Any]
) -> Measured:
    """Rows/s of the scan that `prepare` returns."""
    find = prepare(rows, Path(tempfile.mkdtemp(dir=work)))
    wanted = sum(row["reward"] > 0 for row in rows)

    def measure() -> float:
        started = time.perf_counter()
        assert find() == wanted  # a fast scan that finds less is no scan
        return len(rows) / (time.perf_counter() - started)

    return measure


_FOUR = """
import sys
from pathlib import Path
from benchmarks.store import append
from benchmarks.store.rows import make_rows
rows = make_rows(int(sys.argv[3]))
rows = append.with_steps(rows) if sys.argv[1] == "ours_append" else rows
print("ready", flush=True)
sys.stdin.readline()
getattr(append, sys.argv[1])(rows, Path(sys.argv[2]))
"""


def four_writers(work: Path, write: str, count: int) -> Measured:
    """Rows/s of four processes: ours into four journals of a store, the peer's into one table."""

    def measure() -> float:
        folder = Path(tempfile.mkdtemp(dir=work))
        homes = [folder / str(i) if write == "ours_append" else folder for i in range(4)]
        for home in homes:
            home.mkdir(exist_ok=True)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _FOUR, write, str(home), str(count)],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for home in homes
        ]
        # The clock starts when all four have made their rows.
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        started = time.perf_counter()
        for writer in writers:
            writer.communicate("\n")
        rate = 4 * count / (time.perf_counter() - started)
        assert all(writer.returncode == 0 for writer in writers)
        shutil.rmtree(folder)
        return rate

    return measure
