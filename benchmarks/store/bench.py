"""`./xp bench store [--json]`: the store against its peers and the machine's limits, in one run.

Every peer starts from the same rows in memory, in its best configuration that we know, and pays for
its own conversion. Rounds are interleaved; a figure is the median over rounds, its interval the
middle half. Only rows of equal durability compare equal things: the level stands beside each.

    W1 append   rows/s, commits of 100 rows
                limit: writing the same bytes (and syncing)
    W2 images   images/s, 60 KB, 60 % seen before
                limit: writing each different one once
    W3 windows  16-step windows/s, batches of 256, to contiguous arrays, all bytes touched
                limit: memcpy
    W4 filter   rows/s scanned for reward > 0 (2 %), all columns handed over
    W5 latency  ms from append() to a following reader, 99th percentile, synced
    W6 writers  rows/s of four writers at once, synced
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.store import append, images, scan, windows
from benchmarks.store.latency import latency
from benchmarks.store.rows import make_rows
from benchmarks.store.timing import (
    Elsewhere,
    Measured,
    four_writers,
    per_second,
    rounds,
    scans_per_second,
    windows_per_second,
)
from experience.text.strict_json import dumps

REVERB = Path(".venv-reverb/bin/python")
_LATENCY_GOAL_MS = 15.0
_SYNCED = {"ours (synced)": "fdatasync", "SQLite WAL": "fsync", "Reverb": "memory"}
"""How durable a commit is when it returns; of all others, the kernel has the bytes: "none"."""


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


@dataclass(frozen=True)
class Trial:
    """What every workload is given: a folder, the rows, the number of rounds, and Reverb.

    `reverb` is empty if Reverb is not installed.
    """

    work: Path
    rows: list[Any]
    repeat: int
    reverb: Mapping[str, Measured]


def compare(
    workload: str,
    unit: str,
    results: Mapping[str, list[float]],
    ours: str,
    limit: str | None,
    goals: Mapping[str, float],
    levels: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """One row for each peer: ours against the peer's figures of the same rounds.

    `ours` and `limit` are names in `results`; `levels` says how durable each one's writes are.
    """
    mine = results[ours]
    levels = levels or {}
    for peer, theirs in results.items():
        if peer in (ours, limit):
            continue
        # A ratio for each round, not of medians: both figures of a round met the same machine.
        ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        ratio = statistics.median(ratios)
        goal = goals.get(peer)
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
    """The rows of all workloads, each as soon as it is measured."""
    with contextlib.ExitStack() as opened:
        work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="xp-bench-")))
        rows = append.with_steps(make_rows(count))
        reverb: dict[str, Measured] = {}
        if REVERB.exists():
            peer = Elsewhere(REVERB, "benchmarks.store.reverb_peer", str(count))
            opened.callback(peer.close)
            reverb = {"append": lambda: peer("append"), "windows": lambda: peer("windows")}
        trial = Trial(work, rows, repeat, reverb)
        yield from appends(trial)
        yield from frames(trial)
        yield from draws(trial)
        yield from scans(trial)
        yield from latencies(trial)
        yield from writers(trial)


def appends(trial: Trial) -> Iterator[Row]:
    """W1: once among writers that sync, once among those that do not."""
    measured: dict[str, Measured] = {}
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
    ):
        measured[name] = per_second(trial.work, write, trial.rows, *more)
    for name, library, write in (
        ("TorchRL (padded)", "torchrl", append.torchrl_append),
        ("Minari", "minari", append.minari_append),
    ):
        if _installed(library):
            measured[name] = per_second(trial.work, write, trial.rows)
    if trial.reverb:
        measured["Reverb"] = trial.reverb["append"]
    found = rounds(measured, trial.repeat)
    levels = {name: _SYNCED.get(name, "none") for name in found}
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


def frames(trial: Trial) -> Iterator[Row]:
    """W2: one image for twenty rows."""
    shown = images.make_images(len(trial.rows) // 20)
    measured = {}
    for name, write in (
        ("ours", images.ours_images),
        ("Lance", images.lance_images),
        ("Parquet", images.parquet_images),
        ("a file each", images.file_images),
        ("limit", images.raw_images),
    ):
        measured[name] = per_second(trial.work, write, shown)
    found = rounds(measured, trial.repeat)
    yield from compare("W2 images", "images/s", found, "ours", "limit", {})


def draws(trial: Trial) -> Iterator[Row]:
    """W3: ours from a store that still grows, the peers' from rows sorted by stream."""
    measured: dict[str, Measured] = {}
    for name, prepare in (
        ("ours (growing)", windows.ours_windows),
        ("HF datasets", windows.huggingface_windows),
        ("Lance, a take a batch", windows.lance_windows),
        ("Lance, a take a window", windows.lance_windows_singly),
        ("limit", windows.memcpy_windows),
    ):
        measured[name] = windows_per_second(trial.work, prepare, trial.rows)
    for name, library, prepare in (
        ("TorchRL (padded)", "torchrl", windows.torchrl_windows),
        ("Minari", "minari", windows.minari_windows),
    ):
        if _installed(library):
            measured[name] = windows_per_second(trial.work, prepare, trial.rows)
    if trial.reverb:
        measured["Reverb"] = trial.reverb["windows"]
    found = rounds(measured, trial.repeat)
    goals = {"HF datasets": 2.0, "Lance, a take a window": 10.0, "Reverb": 2.0}
    yield from compare("W3 windows", "windows/s", found, "ours (growing)", "limit", goals)


def scans(trial: Trial) -> Iterator[Row]:
    """W4: the rows that earned something."""
    measured = {}
    for name, prepare in (
        ("ours", scan.ours_filter),
        ("Lance", scan.lance_filter),
        ("Parquet", scan.parquet_filter),
    ):
        measured[name] = scans_per_second(trial.work, prepare, trial.rows)
    found = rounds(measured, trial.repeat)
    yield from compare("W4 filter", "rows/s", found, "ours", None, {"Lance": 0.5})


def latencies(trial: Trial) -> Iterator[Row]:
    """W5: at the rate of one slow world and of many; the peer here is the goal."""
    for rate in (10, 100):
        folder = Path(tempfile.mkdtemp(dir=trial.work))
        times = sorted(latency(folder, rate, max(int(rate * 6), 60)))
        p99 = times[int(0.99 * len(times))]
        middle = statistics.median(times)
        yield Row(
            "W5 latency",
            f"goal; {rate} rows/s (p50 {middle:.1f})",
            "fdatasync",
            "ms",
            p99,
            _LATENCY_GOAL_MS,
            _LATENCY_GOAL_MS / p99,
            (_LATENCY_GOAL_MS / times[-1], _LATENCY_GOAL_MS / middle),
            None,
            1.0,
            p99 <= _LATENCY_GOAL_MS,
        )


def writers(trial: Trial) -> Iterator[Row]:
    """W6: at most three rounds, as each starts four processes that make their rows anew."""
    count = len(trial.rows) // 8
    measured = {
        "ours": four_writers(trial.work, "ours_append", count),
        "Lance": four_writers(trial.work, "lance_append", count),
    }
    found = rounds(measured, min(trial.repeat, 3))
    levels = {"ours": "fdatasync", "Lance": "none"}
    yield from compare("W6 writers", "rows/s", found, "ours", None, {}, levels)


def _installed(library: str) -> bool:
    with contextlib.suppress(ImportError):
        __import__(library)
        return True
    return False


def _without(found: Mapping[str, list[float]], *names: str) -> dict[str, list[float]]:
    return {name: values for name, values in found.items() if name not in names}


def draw_plot(found: Sequence[Row], path: Path) -> None:
    """Draws each row's ratio with its interval, on a logarithmic axis.

    To the right of 1 we win; a diamond is a goal.
    """
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
    """Prints the rows as they are measured; draws them to `plot` if it is given."""
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
        verdict = "met" if row.goal_met else "MISSED"
        goal = "" if row.goal is None else f"{row.goal:g} {verdict}"
        limit = "" if row.limit is None else f"{row.limit:,.0f}"
        print(
            f"{row.workload:<11} {row.peer:<30} {row.durability:<24} {row.ours:>9,.0f} "
            f"{row.theirs:>9,.0f} "
            f"{limit:>9} {row.ratio:>6.2f}  {row.interval[0]:.2f} to {row.interval[1]:.2f}  {goal}",
            flush=True,
        )
    if plot is not None:
        draw_plot(found, plot)
