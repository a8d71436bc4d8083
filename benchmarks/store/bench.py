"""The store against its peers and the machine's limits, in one run: ./xp bench store [--json]

Every peer starts from the same rows in memory, in its best configuration that we know, and pays for
its own conversion. Rounds are interleaved; a figure is the median over rounds, its interval the
middle half. Only rows of equal durability compare equal things: the level stands beside each.

    W1 append     rows/s, commits of 100 rows                        limit: writing the same bytes
    (and syncing) W2 images     images/s, 60 KB, 60 % seen before                  limit: writing
    each different one once W3 windows    16-step windows/s, batches of 256, to contiguous arrays,
    all bytes touched     limit: memcpy W4 filter     rows/s scanned for reward > 0 (2 %), all
    columns handed over                   limit: reading W5 latency    ms from append() to a
    following reader, 99th percentile, synced W6 writers    rows/s of four writers at once, synced
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store import append, images, scan, windows
from benchmarks.store.latency import latency
from benchmarks.store.rows import BATCH, make_rows
from experience.errors import MissingPartError
from experience.text.strict_json import dumps

REVERB = Path(".venv-reverb/bin/python")
Measured = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `ratio` is ours over the peer's (for times: the peer's over ours), so above 1 we win.
    """

    workload: str
    peer: str
    durability: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    interval: tuple[float, float]
    limit: float | None
    goal: float | None
    goal_met: bool | None


class Elsewhere:
    """A peer in an environment of its own, asked line by line."""

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
    """Runs every measured thing once a round, in turn; a first round, where libraries load, does
    not count."""
    results: dict[str, list[float]] = {name: [] for name in measured}
    for measure in measured.values():
        measure()
    for _ in range(count):
        for name, measure in measured.items():
            results[name].append(measure())
    return results


def per_second(work: Path, write: Callable[..., None], items: list[Any], *more: Any) -> Measured:
    """Items/s of `write(items, folder)`, each time into a new folder."""

    def measure() -> float:
        folder = Path(tempfile.mkdtemp(dir=work))
        started = time.perf_counter()
        write(items, folder, *more)
        rate = len(items) / (time.perf_counter() - started)
        shutil.rmtree(folder)
        return rate

    return measure


def windows_per_second(
    work: Path, prepare: Callable[..., windows.Draw], rows: list[Any]
) -> Measured:
    draw, rng = prepare(rows, Path(tempfile.mkdtemp(dir=work))), np.random.default_rng(1)
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
    find, wanted = (
        prepare(rows, Path(tempfile.mkdtemp(dir=work))),
        sum(r["reward"] > 0 for r in rows),
    )

    def measure() -> float:
        started = time.perf_counter()
        assert find() == wanted
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


def compare(
    workload: str,
    unit: str,
    results: Mapping[str, list[float]],
    ours: str,
    limit: str | None,
    goals: Mapping[str, float],
    levels: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    mine, levels = results[ours], levels or {}
    for peer, theirs in results.items():
        if peer in (ours, limit):
            continue
        ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        ratio, goal = statistics.median(ratios), goals.get(peer)
        yield Row(
            workload,
            peer,
            f"{levels.get(ours, '')} / {levels.get(peer, '')}".strip(" /"),
            unit,
            statistics.median(mine),
            statistics.median(theirs),
            ratio,
            (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
            statistics.median(results[limit]) if limit else None,
            goal,
            None if goal is None else ratio >= goal,
        )


def measure(count: int, repeat: int) -> Iterator[Row]:
    with contextlib.ExitStack() as opened:
        work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="xp-bench-")))
        plain = make_rows(count)
        rows = append.with_steps(plain)
        reverb: dict[str, Measured] = {}
        if REVERB.exists():
            peer = Elsewhere(REVERB, "benchmarks.store.reverb_peer", str(count))
            opened.callback(peer.close)
            reverb = {"append": lambda: peer("append"), "windows": lambda: peer("windows")}

        appends: dict[str, Measured] = {
            name: per_second(work, write, rows, *more)
            for name, write, more in (
                ("ours (synced)", append.ours_append, ()),
                ("ours (not synced)", append.ours_append_os, ()),
                ("Lance", append.lance_append, ()),
                ("HF datasets", append.huggingface_append, ()),
                ("Parquet", append.parquet_append, ()),
                ("SQLite WAL", append.sqlite_append, ()),
                ("JSONL (orjson)", append.jsonl_append, ()),
                ("limit (synced)", append.raw_append, (True,)),
                ("limit (not synced)", append.raw_append, (False,)),
            )
        }
        for name, library, write in (
            ("TorchRL (padded)", "torchrl", append.torchrl_append),
            ("Minari", "minari", append.minari_append),
        ):
            if _installed(library):
                appends[name] = per_second(work, write, rows)
        if reverb:
            appends["Reverb"] = reverb["append"]
        found = rounds(appends, repeat)
        levels = {
            name: {"ours (synced)": "fdatasync", "SQLite WAL": "fsync", "Reverb": "memory"}.get(
                name, "none"
            )
            for name in found
        }
        yield from compare(
            "W1 append",
            "rows/s",
            _without(found, "ours (not synced)", "limit (not synced)"),
            "ours (synced)",
            "limit (synced)",
            {"Lance": 3.0, "Reverb": 3.0},
            levels,
        )
        yield from compare(
            "W1 append",
            "rows/s",
            _without(found, "ours (synced)", "limit (synced)", "SQLite WAL"),
            "ours (not synced)",
            "limit (not synced)",
            {},
            levels,
        )

        shown = images.make_images(count // 20)
        found = rounds(
            {
                name: per_second(work, write, shown)
                for name, write in (
                    ("ours", images.ours_images),
                    ("Lance", images.lance_images),
                    ("Parquet", images.parquet_images),
                    ("a file each", images.file_images),
                    ("limit", images.raw_images),
                )
            },
            repeat,
        )
        yield from compare("W2 images", "images/s", found, "ours", "limit", {})

        draws = {
            name: windows_per_second(work, prepare, rows)
            for name, prepare in (
                ("ours (growing)", windows.ours_windows),
                ("HF datasets", windows.huggingface_windows),
                ("Lance, a take a batch", windows.lance_windows),
                ("Lance, a take a window", windows.lance_windows_singly),
                ("limit", windows.memcpy_windows),
            )
        }
        for name, library, prepare in (
            ("TorchRL (padded)", "torchrl", windows.torchrl_windows),
            ("Minari", "minari", windows.minari_windows),
        ):
            if _installed(library):
                draws[name] = windows_per_second(work, prepare, rows)
        if reverb:
            draws["Reverb"] = reverb["windows"]
        found = rounds(draws, repeat)
        yield from compare(
            "W3 windows",
            "windows/s",
            found,
            "ours (growing)",
            "limit",
            {"HF datasets": 2.0, "Lance, a take a window": 10.0, "Reverb": 2.0},
        )

        found = rounds(
            {
                name: scans_per_second(work, prepare, rows)
                for name, prepare in (
                    ("ours", scan.ours_filter),
                    ("Lance", scan.lance_filter),
                    ("Parquet", scan.parquet_filter),
                )
            },
            repeat,
        )
        yield from compare("W4 filter", "rows/s", found, "ours", None, {"Lance": 0.5})

        for rate in (10, 100):
            times = sorted(latency(Path(tempfile.mkdtemp(dir=work)), rate, max(int(rate * 6), 60)))
            p99 = times[int(0.99 * len(times))]
            middle = statistics.median(times)
            yield Row(
                "W5 latency",
                f"goal; {rate} rows/s (p50 {middle:.1f})",
                "fdatasync",
                "ms",
                p99,
                15.0,
                15.0 / p99,
                (15.0 / times[-1], 15.0 / middle),
                None,
                1.0,
                p99 <= 15.0,
            )

        found = rounds(
            {
                "ours": four_writers(work, "ours_append", count // 8),
                "Lance": four_writers(work, "lance_append", count // 8),
            },
            min(repeat, 3),
        )
        yield from compare(
            "W6 writers", "rows/s", found, "ours", None, {}, {"ours": "fdatasync", "Lance": "none"}
        )


def _installed(library: str) -> bool:
    with contextlib.suppress(ImportError):
        __import__(library)
        return True
    return False


def _without(found: Mapping[str, list[float]], *names: str) -> dict[str, list[float]]:
    return {name: values for name, values in found.items() if name not in names}


def draw_plot(found: Sequence[Row], path: Path) -> None:
    """Every row's ratio with its interval, on a logarithmic axis: right of 1 we win; a diamond is a
    goal."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(found) + 1), layout="constrained")
    for place, row in enumerate(reversed(found)):
        low, high = row.interval
        axes.barh(
            place,
            row.ratio - 1,
            left=1,
            color="#2a7f62" if row.ratio >= 1 else "#b5482f",
            height=0.6,
        )
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        if row.goal is not None:
            axes.plot(row.goal, place, "D", color="#e0a526", markersize=5)
    axes.set(
        xscale="log",
        yticks=range(len(found)),
        xlabel="ours over the peer's (times: the peer's over ours)",
        yticklabels=[
            f"{r.workload} · {r.peer} · {r.durability}".rstrip(" ·") for r in reversed(found)
        ],
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=130)


def main(as_json: bool, count: int = 20_000, repeat: int = 5, plot: Path | None = None) -> None:
    found = []
    if not as_json:
        print(
            f"{'workload':<11} {'peer':<30} {'synced (ours / theirs)':<24} {'ours':>9} "
            f"{'theirs':>9} {'limit':>9} "
            f"{'ratio':>6}  middle half    goal"
        )
    for row in measure(count, repeat):
        found.append(row)
        if as_json:
            print(dumps(asdict(row)), flush=True)
            continue
        goal = "" if row.goal is None else f"{row.goal:g} {'met' if row.goal_met else 'MISSED'}"
        limit = "" if row.limit is None else f"{row.limit:,.0f}"
        print(
            f"{row.workload:<11} {row.peer:<30} {row.durability:<24} {row.ours:>9,.0f} "
            f"{row.theirs:>9,.0f} "
            f"{limit:>9} {row.ratio:>6.2f}  {row.interval[0]:.2f} to {row.interval[1]:.2f}  {goal}",
            flush=True,
        )
    if plot is not None:
        draw_plot(found, plot)
