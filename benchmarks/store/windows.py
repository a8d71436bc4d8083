"""W3: windows of 16 steps in batches of 256, to contiguous arrays.

Each function prepares once and returns a call that draws one batch and touches all its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.store.append import (
    CATALOGUE,
    as_table,
    huggingface_append,
    minari_append,
    torchrl_append,
)
from benchmarks.store.rows import BATCH, COLUMNS, COMMIT_ROWS, STREAMS, WINDOW, by_stream
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader

Draw = Callable[[np.random.Generator], int]


def ours_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    journal = Journal(
        folder / "w", CATALOGUE, batch_rows=COMMIT_ROWS, commit_seconds=3600, durability="os"
    )
    for row in rows:
        journal.append(row["step"])
    journal.commit()  # not sealed: the store is still growing
    reader = WindowReader(folder, COLUMNS)
    reader.refresh()

    def draw(_: np.random.Generator) -> int:
        reader.refresh()
        found = reader.gather(reader.draw(BATCH, WINDOW))
        return int(sum(len(r.values) for r in found.ragged.values())) + found.numbers["reward"].size

    draw.journal = journal  # type: ignore[attr-defined]  # closed, it would seal the segment
    return draw


def _starts(rows: int, rng: np.random.Generator) -> np.ndarray:
    per_stream = rows // STREAMS
    return rng.integers(0, STREAMS, BATCH) * per_stream + rng.integers(
        0, per_stream - WINDOW + 1, BATCH
    )


def _touch(table: pa.Table) -> int:
    """Copies all bytes of the table's columns; their number."""
    # Without the copy, a memory-mapped peer would only hand out addresses.
    total = 0
    for name in COLUMNS:
        column = table.column(name).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if name == "reward":
            total += column.to_numpy().copy().size
        elif name == "obs_text":
            # By its offsets: `to_numpy` would make a Python string of each text.
            width = np.int64 if pa.types.is_large_string(column.type) else np.int32
            ends = np.frombuffer(
                column.buffers()[1],
                width,
                len(column) + 1,
                column.offset * np.dtype(width).itemsize,
            )
            total += np.frombuffer(column.buffers()[2], np.uint8)[ends[0] : ends[-1]].copy().size
        else:
            total += column.flatten().to_numpy().copy().size
    return total


def huggingface_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    import datasets

    huggingface_append(by_stream(rows), folder)
    rows_on_disk = datasets.Dataset.from_file(str(folder / "rows.arrow")).with_format("arrow")

    def draw(rng: np.random.Generator) -> int:
        return sum(_touch(rows_on_disk[int(s) : int(s) + WINDOW]) for s in _starts(len(rows), rng))

    return draw


def lance_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    import lance

    lance.write_dataset(as_table(by_stream(rows)), str(folder / "lance"))
    stored = lance.dataset(str(folder / "lance"))

    def draw(rng: np.random.Generator) -> int:
        at = (_starts(len(rows), rng)[:, None] + np.arange(WINDOW)).ravel()
        return _touch(stored.take(at.tolist(), columns=list(COLUMNS)))

    return draw


def lance_windows_singly(rows: list[dict[str, Any]], folder: Path) -> Draw:
    import lance

    lance.write_dataset(as_table(by_stream(rows)), str(folder / "lance"))
    stored = lance.dataset(str(folder / "lance"))

    def draw(rng: np.random.Generator) -> int:
        return sum(
            _touch(stored.take(range(int(s), int(s) + WINDOW), columns=list(COLUMNS)))
            for s in _starts(len(rows), rng)
        )

    return draw


def torchrl_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    from torchrl.data import SliceSampler

    buffer = torchrl_append(
        by_stream(rows), folder, SliceSampler(num_slices=BATCH, traj_key="stream")
    )

    def draw(_: np.random.Generator) -> int:
        sample = buffer.sample()
        return sum(int(sample[name].numpy().copy().size) for name in COLUMNS)

    return draw


def minari_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    """A window from each of 256 episodes; Minari reads an episode whole.

    It stores token ids as text, so they are parsed.
    """
    data = minari_append(by_stream(rows), folder)

    def draw(rng: np.random.Generator) -> int:
        total = 0
        for number in rng.integers(0, data.total_episodes, BATCH):
            episode = data[int(number)]
            start = int(rng.integers(0, len(episode) - WINDOW + 1))
            part = slice(start, start + WINDOW)
            total += np.array(episode.rewards[part]).size + len(
                "".join(episode.observations[part]).encode()
            )
            total += np.array(",".join(episode.actions[part]).split(","), np.int32).size
        return total

    return draw


def memcpy_windows(rows: list[dict[str, Any]], folder: Path) -> Draw:
    """The limit: the same bytes copied from memory, one copy a window."""
    total = sum(len(row["obs_text"]) + 8 * len(row["action_ids"]) + 8 for row in rows)
    size = total // len(rows) * WINDOW
    # At most 4,000 windows: far more than the processor's caches hold, and they fit in memory.
    source = np.zeros(min(len(rows) // WINDOW, 4000) * size, np.uint8)

    def draw(rng: np.random.Generator) -> int:
        starts = rng.integers(0, len(source) - size, BATCH)
        return np.concatenate([source[s : s + size] for s in starts]).size

    return draw
