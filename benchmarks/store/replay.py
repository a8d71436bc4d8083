"""Replay over a long history: memory, seconds to resume, and rows drawn a second.

    PYTHONPATH=. .venv/bin/python benchmarks/store/replay.py [rows …]

For each number of rows (default 1,000,000 and 10,000,000) a store is made: a journal writes 100,000
rows, whose cold part is then written again under other streams by the store's own writer of parts.
Each measurement has a process of its own. Beside it stand the limits of the same machine: rows
decoded one after another, and rows drawn from steps that are all in memory, as the replay before
this one kept them.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.store.ten_million import resident
from experience.episode import Episode, EpisodeReader
from experience.policy import Decision, VersionSpan
from experience.replay.replay import Replay
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.cold.parts import write_part
from experience.shards.cold.snapshot import publish_snapshot, read_snapshot
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.episodes.records import as_ids
from experience.shards.journal import Journal
from experience.shards.storage.disk import REAL
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step
from experience.text.strict_json import dumps

CATALOGUE = {"done": SignalKind("fraction", "env_state")}
STREAMS, TURNS, GROUP, BASE = 16, 19, 8, 100_000
"""An episode is TURNS turns and a closing row."""


def lived(rows: int) -> Iterator[Step]:
    """Rows of STREAMS streams in turn; prompts grow over an episode, as an agent's do."""
    system = np.arange(40, dtype=np.int32)
    for episode in range(rows // (TURNS + 1) // STREAMS):
        prompts = [system] * STREAMS
        for turn in range(TURNS + 1):
            for stream in range(STREAMS):
                number = episode * STREAMS + stream
                seen = np.full(12, 100 + turn, np.int32)
                prompts[stream] = np.concatenate([prompts[stream], seen])
                ids = np.arange(8, dtype=np.int32)
                yield Step(
                    uuid.UUID(int=stream).bytes,
                    episode * (TURNS + 1) + turn,
                    "bench",
                    "a short observation of some words",
                    decision=None
                    if turn == TURNS
                    else Decision(
                        "act",
                        episode,
                        prompt_ids=prompts[stream],
                        action_ids=ids,
                        logprobs=ids.astype(np.float32),
                        token_exact=True,
                        sampled=True,
                        version_spans=(VersionSpan(episode, 8),),
                    ),
                    episode=episode,
                    step_in_episode=turn,
                    work_id=uuid.UUID(int=number).bytes,
                    group_id=f"g{number // GROUP}",
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
                    signals=(Signal("done", 1.0, "fraction", "env_state"),),
                    reward=None if turn == TURNS else float(number % 3),
                    ending="terminated" if turn == TURNS else "none",
                )


def make(rows: int, store: Path) -> None:
    journal = Journal(store / "w", CATALOGUE, batch_rows=1000, durability="os")
    for step in lived(min(rows, BASE)):
        journal.append(step)
    journal.close()
    compact(store)
    snapshot = read_snapshot(store)
    (part,) = snapshot.parts
    table, parts = part.table(store), [part]
    for copy in range(1, rows // BASE):
        again, streams = _copied(table, copy)
        spans = {f"copy{copy}": {s.hex(): (0, table.num_rows // STREAMS - 1) for s in streams}}
        parts.append(write_part(store, f"part-000001-{copy}.parquet", again, spans, REAL))
    if len(parts) > 1:
        version = snapshot.version + 1
        publish_snapshot(store, replace(snapshot, version=version, parts=tuple(parts)), REAL)


def _copied(table: pa.Table, copy: int) -> tuple[pa.Table, list[bytes]]:
    """The same rows as other streams, other work and other groups."""
    for name in ("stream_id", "work_id"):
        ids = np.array(table.column(name).to_pylist(), "S16").astype("V16")
        changed = np.frombuffer(ids.tobytes(), np.uint64).copy()
        changed[::2] += copy
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), as_ids(changed.view("V16")))
    at = table.schema.get_field_index("group_id")
    groups = pc.binary_join_element_wise(table.column("group_id"), f"-{copy}", "")
    table = table.set_column(at, table.schema.field(at), groups)
    return table, sorted(set(table.column("stream_id").to_pylist()))


def index(store: Path) -> dict[str, float]:
    """Made from all rows, then saved."""
    start, before = resident(), time.perf_counter()
    found = EpisodeIndex(store)
    found.refresh()
    made = time.perf_counter() - before
    found.save()
    return {"made_seconds": made, "episodes": len(found), "made_mb": resident() - start}


def resumed(store: Path) -> dict[str, float]:
    """From the saved index: until groups and windows can be drawn, and what drawing them takes."""
    start, before = resident(), time.perf_counter()
    replay = Replay(EpisodeIndex.open(store), GROUP, max_lag=1 << 40)
    seconds = time.perf_counter() - before
    ready, grown = replay.ready_groups, resident() - start
    before = time.perf_counter()
    rows = sum(len(e.rows) for g in replay.window(0, 16) for e in g.episodes)
    lately = rows / (time.perf_counter() - before)
    before = time.perf_counter()
    rows = sum(len(w) for _ in range(4) for w in replay.windows(16, 8))
    scattered = rows / (time.perf_counter() - before)
    return {
        "resume_seconds": seconds,
        "groups": ready,
        "resumed_mb": grown,
        "drawn_mb": resident() - start,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "group_rows_a_second": lately,
        "window_rows_a_second": scattered,
    }


def in_memory(store: Path) -> dict[str, float]:
    """All rows as steps: what it takes to read them, to keep them, and to draw from them."""
    start, before = resident(), time.perf_counter()
    reader, episodes, rows = EpisodeReader(), list[Episode](), 0
    for block in Catalog(store).follow():
        rows += len(block)
        episodes += [episode for step in block for episode in reader.take(step)]
    seconds, kept = time.perf_counter() - before, resident() - start
    before, drawn = time.perf_counter(), 0
    for place in np.random.default_rng(0).integers(len(episodes), size=10_000).tolist():
        drawn += len(episodes[place].rows)
    return {
        "scan_rows_a_second": rows / seconds,
        "resume_seconds": seconds,
        "bytes_a_row": kept * 2**20 / rows,
        "memory_rows_a_second": drawn / (time.perf_counter() - before),
    }


MEASURES = {"make": make, "index": index, "resumed": resumed, "in_memory": in_memory}


def apart(what: str, *arguments: object) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, what, *map(str, arguments)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(said.stdout or "{}")
    return found


def main(sizes: list[int]) -> None:
    for rows in sizes:
        folder = Path(tempfile.mkdtemp(prefix="xp-replay-"))
        try:
            before = time.perf_counter()
            apart("make", rows, folder)
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            seconds = time.perf_counter() - before
            print(f"{rows:,} rows, {size / 1e6:,.0f} MB, made in {seconds:.0f} s")
            for what in ("index", "resumed", *(["in_memory"] if rows <= BASE else [])):
                figures = apart(what, folder)
                print(what, *(f"{name} {value:,.1f}" for name, value in figures.items()), sep="  ")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "make":
        make(int(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) > 1 and sys.argv[1] in MEASURES:
        print(dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]))))  # type: ignore[operator]
    else:
        main([int(word) for word in sys.argv[1:]] or [BASE, 1_000_000, 10_000_000])
