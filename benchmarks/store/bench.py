"""The store against its peers and the machine's limits, in one run: ./xp bench store [--json]

Rows are what an agent's step weighs: about 2 KiB of text (log-normal), 256 token ids and log-probabilities (mean), a
reward, ids. Every peer starts from the same rows in memory, in its best configuration that we know, and pays for its
own conversion. Rounds are interleaved; a figure is the median over rounds, its interval the middle half. Only rows of
equal durability compare equal things: the level stands beside each.

    W1 append     rows/s, commits of 100 rows                        limit: writing the same bytes (and syncing)
    W3 windows    16-step windows/s, batches of 256, to contiguous arrays, all bytes touched     limit: memcpy
    W4 filter     rows/s scanned for reward > 0 (2 %), all columns handed over                   limit: reading
    W5 latency    ms from append() to a following reader, 99th percentile, synced
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.policy import Decision, VersionSpan
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.windows import WindowReader
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step

COMMIT_ROWS, STREAMS, WINDOW, BATCH = 100, 64, 16, 256
CATALOGUE = {"done": SignalKind("fraction", "env_state")}
COLUMNS = ("obs_text", "action_ids", "action_logprobs", "reward")


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is ours over the peer's (for times: the peer's over ours), so above 1 we win."""

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


def make_rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghij klmnop\nqrstuvw xyz", np.uint8)
    rows = []
    for i in range(count):
        tokens = int(np.clip(rng.lognormal(5.4, 0.55), 8, 2048))
        size = int(np.clip(rng.lognormal(7.45, 0.6), 64, 20_000))
        row = {"stream": i % STREAMS, "t": i // STREAMS, "reward": float(rng.random() < 0.02),
                     "obs_text": letters[rng.integers(0, len(letters), size)].tobytes().decode(),
                     "action_ids": rng.integers(0, 50_000, tokens).astype(np.int32),
                     "action_logprobs": rng.normal(-1, 1, tokens).astype(np.float32)}
        rows.append(row | {"step": as_step(row)})  # each writer's own kind of row in memory: a step, or a dict
    return rows


IDS = [uuid.UUID(int=i).bytes for i in range(STREAMS)]


def as_step(row: dict[str, Any]) -> Step:
    return Step(stream_id=IDS[row["stream"]], t=row["t"], env_id="bench", obs_text=row["obs_text"],
                decision=Decision("act", 0, action_ids=row["action_ids"], logprobs=row["action_logprobs"],
                                  version_spans=(VersionSpan(0, len(row["action_ids"])),), token_exact=True),
                signals=(Signal("done", row["reward"], "fraction", "env_state"),), reward=row["reward"],
                boundary=Boundary.RESET if row["t"] == 0 else Boundary.NONE)


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    def ragged(name: str) -> pa.Array:
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum([len(r[name]) for r in rows], out=offsets[1:])
        return pa.ListArray.from_arrays(offsets, np.concatenate([r[name] for r in rows]))

    return pa.table({"stream": [r["stream"] for r in rows], "t": [r["t"] for r in rows],
                     "reward": [r["reward"] for r in rows],
                     "obs_text": pa.array([r["obs_text"] for r in rows], pa.large_string()),
                     "action_ids": ragged("action_ids"), "action_logprobs": ragged("action_logprobs")})


def commits(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for i in range(0, len(rows), COMMIT_ROWS):
        yield rows[i:i + COMMIT_ROWS]


# W1: append. Each function appends all rows to `folder` and returns nothing.

def ours_append(rows: list[dict[str, Any]], folder: Path, durability: Any = "group") -> None:
    journal = Journal(folder / "w", CATALOGUE, batch_rows=COMMIT_ROWS, commit_seconds=3600, durability=durability)
    for row in rows:
        journal.append(row["step"])
    journal.close()


def ours_append_os(rows: list[dict[str, Any]], folder: Path) -> None:
    ours_append(rows, folder, "os")


def lance_append(rows: list[dict[str, Any]], folder: Path) -> None:
    import lance

    for part in commits(rows):
        lance.write_dataset(as_table(part), str(folder / "lance"), mode="append")


def parquet_append(rows: list[dict[str, Any]], folder: Path) -> None:
    writer = None
    for part in commits(rows):
        table = as_table(part)
        writer = writer or parquet.ParquetWriter(folder / "rows.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def huggingface_append(rows: list[dict[str, Any]], folder: Path) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(path=str(folder / "rows.arrow")) as writer:
        for part in commits(rows):
            writer.write_table(as_table(part))
        writer.finalize()


def sqlite_append(rows: list[dict[str, Any]], folder: Path) -> None:
    base = sqlite3.connect(folder / "rows.sqlite")
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=full")
    base.execute("create table rows (stream, t, reward, obs_text, action_ids, action_logprobs)")
    for part in commits(rows):
        base.executemany("insert into rows values (?,?,?,?,?,?)", [
            (r["stream"], r["t"], r["reward"], r["obs_text"], r["action_ids"].tobytes(),
             r["action_logprobs"].tobytes()) for r in part])
        base.commit()
    base.close()


def jsonl_append(rows: list[dict[str, Any]], folder: Path) -> None:
    import orjson

    with open(folder / "rows.jsonl", "wb") as file:
        for part in commits(rows):
            for row in part:
                plain = {name: value for name, value in row.items() if name != "step"}
                file.write(orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            file.flush()


def raw_append(rows: list[dict[str, Any]], folder: Path, sync: bool) -> None:
    """The limit: the same bytes, written and, if asked, synced once a commit."""
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    for part in commits(rows):
        os.write(descriptor, b"".join(x for r in part for x in (r["obs_text"].encode(), r["action_ids"].tobytes(),
                                                                r["action_logprobs"].tobytes())))
        if sync:
            os.fdatasync(descriptor)
    os.close(descriptor)


# W3: windows. Each function prepares once and returns what draws one batch of windows and touches all its bytes.

Draw = Callable[[np.random.Generator], int]


def ours_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    journal = Journal(folder / "w", CATALOGUE, batch_rows=COMMIT_ROWS, commit_seconds=3600, durability="os")
    for row in rows:
        journal.append(row["step"])
    journal.commit()  # not sealed: the store is still growing
    reader = WindowReader(folder, COLUMNS)
    reader.refresh()

    def draw(_: np.random.Generator) -> int:
        reader.refresh()
        found = reader.gather(reader.draw(BATCH, WINDOW))
        return int(sum(len(r.values) for r in found.ragged.values())) + found.numbers["reward"].size

    draw.journal = journal  # type: ignore[attr-defined]  # keeps the segment open
    return draw


def _by_stream(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The peers' best case: each stream's rows side by side."""
    return sorted(rows, key=lambda r: (r["stream"], r["t"]))


def _starts(rows: int, rng: np.random.Generator) -> np.ndarray:
    per_stream = rows // STREAMS
    return rng.integers(0, STREAMS, BATCH) * per_stream + rng.integers(0, per_stream - WINDOW + 1, BATCH)


def _touch(table: pa.Table) -> int:
    total = 0
    for name in COLUMNS:
        column = table.column(name).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if name == "reward":
            total += column.to_numpy().copy().size
        elif name == "obs_text":
            width = np.int64 if pa.types.is_large_string(column.type) else np.int32
            ends = np.frombuffer(column.buffers()[1], width, len(column) + 1, column.offset * np.dtype(width).itemsize)
            total += np.frombuffer(column.buffers()[2], np.uint8)[ends[0]:ends[-1]].copy().size
        else:
            total += column.flatten().to_numpy().copy().size
    return total


def huggingface_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    import datasets

    huggingface_append(_by_stream(rows), folder)
    rows_on_disk = datasets.Dataset.from_file(str(folder / "rows.arrow")).with_format("arrow")

    def draw(rng: np.random.Generator) -> int:
        return sum(_touch(rows_on_disk[int(s):int(s) + WINDOW]) for s in _starts(len(rows), rng))

    return draw


def lance_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    import lance

    lance.write_dataset(as_table(_by_stream(rows)), str(folder / "lance"))
    stored = lance.dataset(str(folder / "lance"))

    def draw(rng: np.random.Generator) -> int:
        at = (_starts(len(rows), rng)[:, None] + np.arange(WINDOW)).ravel()
        return _touch(stored.take(at.tolist(), columns=list(COLUMNS)))

    return draw


def memcpy_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    """The limit: the same bytes copied from memory, one copy a window."""
    size = sum(len(r["obs_text"]) + 8 * len(r["action_ids"]) + 8 for r in rows) // len(rows) * WINDOW
    source = np.zeros(min(len(rows) // WINDOW, 4000) * size, np.uint8)

    def draw(rng: np.random.Generator) -> int:
        starts = rng.integers(0, len(source) - size, BATCH)
        return np.concatenate([source[s:s + size] for s in starts]).size

    return draw


# W4: filter. Each function prepares once and returns what scans all rows and hands over the matching ones.

def ours_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    ours_append(rows, folder, "os")
    return lambda: int(Catalog(folder).where(lambda batch: pc.greater(batch["reward"], 0.0)).num_rows)


def lance_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    import lance

    lance.write_dataset(as_table(rows), str(folder / "lance"))
    return lambda: int(lance.dataset(str(folder / "lance")).to_table(filter="reward > 0").num_rows)


def parquet_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    parquet.write_table(as_table(rows), folder / "rows.parquet", compression="zstd", row_group_size=4000)
    return lambda: int(parquet.read_table(folder / "rows.parquet", filters=[("reward", ">", 0)]).num_rows)


# W5: latency. A writer in another process, a reader that follows here.

_WRITER = """
import sys, time
from pathlib import Path
from benchmarks.store.bench import CATALOGUE, make_rows
from experience.shards.journal import Journal
rows = make_rows(64)
journal = Journal(Path(sys.argv[1]) / "w", CATALOGUE, durability="sync")
rate, count = float(sys.argv[2]), int(sys.argv[3])
from dataclasses import replace
due = time.time()
for i in range(count):
    due += 1 / rate
    time.sleep(max(0.0, due - time.time()))
    journal.append(replace(rows[i % 64]["step"], stream_id=bytes(16), t=i, t_start_ns=time.time_ns()))
journal.close()
"""


def latency(folder: Path, rate: float, count: int) -> list[float]:
    """Milliseconds from append() to the row being in a following reader's hands."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), str(rate), str(count)])
    catalog, found = Catalog(folder), []
    while len(found) < count and (writer.poll() is None or len(found) < count):
        for steps in catalog.follow():
            now = time.time_ns()
            found += [(now - s.t_start_ns) / 1e6 for s in steps]
        time.sleep(0.0005)
    writer.wait()
    return found[count // 10:]


def rounds(makers: dict[str, Callable[[Path], Callable[[], float]]], count: int, work: Path) -> dict[str, list[float]]:
    """Runs every measured thing once a round, in turn; each in a folder of its own, removed at the end."""
    prepared, results = {}, {name: [] for name in makers}  # type: ignore[var-annotated]
    for name, make in makers.items():
        folder = Path(tempfile.mkdtemp(dir=work))
        prepared[name] = make(folder)
    for _ in range(count):
        for name, measure in prepared.items():
            results[name].append(measure())
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return results


def _timed_append(append: Callable[..., None], rows: list[dict[str, Any]]) -> Callable[[Path], Callable[[], float]]:
    def make(folder: Path) -> Callable[[], float]:
        def measure() -> float:
            inner = Path(tempfile.mkdtemp(dir=folder))
            started = time.perf_counter()
            append(rows, inner)
            rate = len(rows) / (time.perf_counter() - started)
            shutil.rmtree(inner)
            return rate
        return measure
    return make


def _timed_windows(prepare: Callable[..., Draw], rows: list[dict[str, Any]], batches: int) -> Callable[
        [Path], Callable[[], float]]:
    def make(folder: Path) -> Callable[[], float]:
        draw, rng = prepare(rows, folder), np.random.default_rng(1)
        draw(rng)

        def measure() -> float:
            started = time.perf_counter()
            for _ in range(batches):
                draw(rng)
            return batches * BATCH / (time.perf_counter() - started)
        return measure
    return make


def _timed_filter(prepare: Callable[..., Callable[[], int]], rows: list[dict[str, Any]]) -> Callable[
        [Path], Callable[[], float]]:
    wanted = sum(r["reward"] > 0 for r in rows)

    def make(folder: Path) -> Callable[[], float]:
        scan = prepare(rows, folder)

        def measure() -> float:
            started = time.perf_counter()
            assert scan() == wanted
            return len(rows) / (time.perf_counter() - started)
        return measure
    return make


def compare(workload: str, unit: str, results: dict[str, list[float]], ours: str, limit: str | None,
            levels: dict[str, str], goals: dict[str, float]) -> Iterator[Row]:
    mine = results[ours]
    for peer, theirs in results.items():
        if peer in (ours, limit):
            continue
        ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        ratio, goal = statistics.median(ratios), goals.get(peer)
        yield Row(workload, peer, f"{levels.get(ours, '')} / {levels.get(peer, '')}", unit, statistics.median(mine),
                  statistics.median(theirs), ratio, (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
                  statistics.median(results[limit]) if limit else None, goal, None if goal is None else ratio >= goal)


def measure(count: int, repeat: int) -> Iterator[Row]:
    rows, work = make_rows(count), Path(tempfile.mkdtemp(prefix="xp-bench-"))
    append = {"ours (synced)": ours_append, "ours (not synced)": ours_append_os, "Lance": lance_append,
              "HF datasets": huggingface_append, "Parquet": parquet_append, "SQLite WAL": sqlite_append,
              "JSONL (orjson)": jsonl_append, "limit (synced)": lambda r, f: raw_append(r, f, True),
              "limit (not synced)": lambda r, f: raw_append(r, f, False)}
    levels = {"ours (synced)": "fdatasync", "ours (not synced)": "none", "Lance": "none", "HF datasets": "none",
              "Parquet": "none", "SQLite WAL": "fsync", "JSONL (orjson)": "none"}
    found = rounds({n: _timed_append(a, rows[:count // 4]) for n, a in append.items()}, repeat, work)
    synced = {n: v for n, v in found.items() if n not in ("ours (not synced)", "limit (not synced)")}
    yield from compare("W1 append", "rows/s", synced, "ours (synced)", "limit (synced)", levels, {"Lance": 3.0})
    loose = {n: v for n, v in found.items() if n not in ("ours (synced)", "limit (synced)", "SQLite WAL")}
    yield from compare("W1 append", "rows/s", loose, "ours (not synced)", "limit (not synced)", levels, {})
    draws = {"ours (growing)": ours_windows, "HF datasets": huggingface_windows, "Lance": lance_windows,
             "limit": memcpy_windows}
    found = rounds({n: _timed_windows(p, rows, 4) for n, p in draws.items()}, repeat, work)
    yield from compare("W3 windows", "windows/s", found, "ours (growing)", "limit", {},
                       {"HF datasets": 2.0, "Lance": 10.0})
    scans = {"ours": ours_filter, "Lance": lance_filter, "Parquet": parquet_filter}
    found = rounds({n: _timed_filter(p, rows) for n, p in scans.items()}, repeat, work)
    yield from compare("W4 filter", "rows/s", found, "ours", None, {}, {"Lance": 0.5})
    for rate in (10, 100):
        times = sorted(latency(Path(tempfile.mkdtemp(dir=work)), rate, max(int(rate * 6), 60)))
        p99 = times[int(0.99 * len(times))]
        middle = statistics.median(times)
        yield Row("W5 latency", f"goal; {rate} rows/s (p50 {middle:.1f})", "fdatasync", "ms", p99, 15.0, 15.0 / p99,
                  (15.0 / times[-1], 15.0 / middle), None, 1.0, p99 <= 15.0)
    shutil.rmtree(work)


def main(as_json: bool, count: int = 20_000, repeat: int = 5) -> None:
    if not as_json:
        print(f"{'workload':<11} {'peer':<34} {'synced (ours / theirs)':<24} {'ours':>10} {'theirs':>10} {'limit':>10} "
              f"{'ratio':>7}  middle half    goal")
    for row in measure(count, repeat):
        if as_json:
            print(json.dumps(asdict(row)), flush=True)
            continue
        goal = "" if row.goal is None else f"{row.goal:g} {'met' if row.goal_met else 'MISSED'}"
        limit = "" if row.limit is None else f"{row.limit:,.0f}"
        print(f"{row.workload:<11} {row.peer:<34} {row.durability:<24} {row.ours:>10,.0f} {row.theirs:>10,.0f} "
              f"{limit:>10} {row.ratio:>7.2f}  {row.interval[0]:.2f} to {row.interval[1]:.2f}  {goal}", flush=True)
