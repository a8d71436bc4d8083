"""Windows: runs of successive rows of a stream, drawn from a store that grows, as contiguous arrays.

Blocks are checked against their CRC once, when they are first seen; then rows are gathered straight from the mapped
files, one copy. The index costs 8 bytes a row; handles on mapped blocks are bounded (`most_blocks`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.shards.blocks import BlockReader
from experience.shards.catalog import Catalog
from experience.shards.schema import TYPES
from experience.step import Boundary

_BREAKS = int(Boundary.WORKER_RESTART | Boundary.GAP)


@dataclass(frozen=True)
class Ragged:
    """Rows of varying length: values [total], and offsets int64 [n·k + 1]; row i is values[offsets[i]:offsets[i+1]].
    Text is UTF-8 bytes."""

    values: np.ndarray
    offsets: np.ndarray

    def row(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i]:self.offsets[i + 1]]


@dataclass(frozen=True)
class Windows:
    """n windows of k rows, row-major. numbers[name] is [n, k]; ragged[name] holds n·k rows."""

    numbers: dict[str, np.ndarray]
    ragged: dict[str, Ragged]


class _Growing:
    """A numpy array that is appended to; doubling, so that a row costs its own size, twice at most."""

    def __init__(self, dtype: Any) -> None:
        self._data, self.size = np.empty(64, dtype), 0

    def extend(self, values: np.ndarray) -> None:
        while self.size + len(values) > len(self._data):
            self._data = np.concatenate([self._data, np.empty_like(self._data)])
        self._data[self.size:self.size + len(values)] = values
        self.size += len(values)

    @property
    def view(self) -> np.ndarray:
        return self._data[:self.size]


class WindowReader:
    """Draws and gathers windows from the shards below one directory.

    Invariants: only committed rows whose block's CRC is right are ever given; a window is k successive rows of one
    stream, and crosses no restart and no gap.
    """

    def __init__(self, directory: Path, *, seed: int = 0, most_blocks: int = 20_000) -> None:
        self._catalog = Catalog(directory)
        self._rng = np.random.default_rng(seed)
        self._most_blocks = most_blocks
        self._readers: dict[str, BlockReader] = {}
        self._maps: dict[int, tuple[pa.Buffer, int]] = {}
        self._segments: list[BlockReader] = []
        self._block_segment, self._block_start = _Growing(np.int32), _Growing(np.int64)
        self._block_row = _Growing(np.int64)  # the first row's number over all
        self._blocks: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._ordinal: dict[bytes, int] = {}
        self._rows: list[_Growing] = []  # per stream: t -> row number
        self._runs: list[_Growing] = []  # per stream: t -> first t of its unbroken run
        self.rows = 0

    def refresh(self) -> int:
        """Takes in what was committed since; returns how many rows."""
        before = self.rows
        for segment in self._catalog.segments():
            key = f"{segment.parent.name}/{segment.stem}"
            if key not in self._readers:
                self._readers[key] = BlockReader(segment)
                self._segments.append(self._readers[key])
            reader = self._readers[key]
            for commit, block in reader.blocks():
                batch = reader.parse(block, commit)
                self._block_segment.extend(np.array([self._segments.index(reader)], np.int32))
                self._block_start.extend(np.array([commit.start], np.int64))
                self._block_row.extend(np.array([self.rows], np.int64))
                self._index(batch)
        return self.rows - before

    def _index(self, batch: pa.RecordBatch) -> None:
        ids = np.frombuffer(batch.column("stream_id").buffers()[1], "V16", batch.num_rows, batch.column(
            "stream_id").offset * 16)
        t, boundary = batch.column("t").to_numpy(), batch.column("boundary").to_numpy()
        for stream in np.unique(ids):
            at = np.flatnonzero(ids == stream)
            ordinal = self._ordinal.setdefault(stream.tobytes(), len(self._ordinal))
            if ordinal == len(self._rows):
                self._rows.append(_Growing(np.int64))
                self._runs.append(_Growing(np.int32))
            rows, runs = self._rows[ordinal], self._runs[ordinal]
            new = t[at] >= rows.size  # rows given again after a failed sync are known already
            at = at[new]
            if len(at) == 0:
                continue
            if t[at[0]] != rows.size:
                raise ShardError(f"stream {stream.tobytes().hex()} jumps from t = {rows.size - 1} to {t[at[0]]}",
                                 "./xp verify says what is missing")
            first = int(runs.view[-1]) if runs.size else 0
            breaks = (boundary[at] & _BREAKS) != 0
            starts = np.where(breaks, t[at], -1)
            runs.extend(np.maximum(np.maximum.accumulate(starts), first).astype(np.int32))
            rows.extend(self.rows + at)
        self.rows += batch.num_rows

    def draw(self, n: int, k: int, how: Literal["uniform", "recency"] = "uniform",
             half_life: float = 10_000.0) -> tuple[np.ndarray, np.ndarray]:
        """(stream ordinals int64 [n], first t int64 [n]) of windows of k rows, with replacement.

        uniform: every window alike. recency: a window's weight halves with every `half_life` rows of age.
        Raises ShardError if no stream has an unbroken run of k rows.
        """
        lengths = np.array([max(r.size - k + 1, 0) for r in self._rows], np.int64)
        if not lengths.sum():
            raise ShardError(f"no stream has {k} rows yet", "collect more, or ask for shorter windows")
        ends = np.cumsum(lengths)
        streams, firsts = np.empty(n, np.int64), np.empty(n, np.int64)
        missing, tries = np.arange(n), 0
        while len(missing):
            drawn = self._rng.integers(ends[-1], size=len(missing))
            which = np.searchsorted(ends, drawn, side="right")
            first = drawn - (ends[which] - lengths[which])
            unbroken = np.fromiter((self._runs[s].view[t + k - 1] <= t for s, t in zip(which, first, strict=True)),
                                   bool, len(missing))
            if how == "recency":
                row = np.fromiter((self._rows[s].view[t + k - 1] for s, t in zip(which, first, strict=True)),
                                  np.int64, len(missing))
                unbroken &= self._rng.random(len(missing)) < 0.5 ** ((self.rows - 1 - row) / half_life)
            kept = missing[unbroken]
            streams[kept], firsts[kept] = which[unbroken], first[unbroken]
            missing, tries = missing[~unbroken], tries + 1
            if tries > 10_000:
                raise ShardError(f"no unbroken run of {k} rows was found", "ask for shorter windows")
        return streams, firsts

    def gather(self, streams: np.ndarray, firsts: np.ndarray, k: int, columns: Sequence[str]) -> Windows:
        """The windows' `columns`, each as one contiguous array."""
        numbers = np.concatenate([self._rows[s].view[t:t + k] for s, t in zip(streams, firsts, strict=True)])
        at = np.searchsorted(self._block_row.view, numbers, side="right") - 1
        rows = (numbers - self._block_row.view[at]).tolist()
        blocks = [self._blocks.get(b) or self._block(b) for b in at.tolist()]
        windows = Windows({}, {})
        for name in columns:
            views = [block[name] for block in blocks]
            dtype = _dtype(name)
            if pa.types.is_primitive(TYPES[name]):
                values = np.fromiter((view[row] for view, row in zip(views, rows, strict=True)), dtype, len(rows))
                windows.numbers[name] = values.reshape(-1, k)
            else:
                pieces = [data[ends[row]:ends[row + 1]] for (data, ends), row in zip(views, rows, strict=True)]
                values = np.frombuffer(bytearray().join(pieces), dtype)
                offsets = np.zeros(len(rows) + 1, np.int64)
                np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)) // dtype.itemsize, out=offsets[1:])
                windows.ragged[name] = Ragged(values, offsets)
        return windows

    def _block(self, number: int) -> dict[str, Any]:
        """Zero-copy views on one block's columns, made as they are asked for."""
        found = self._blocks.get(number)
        if found is None:
            segment = int(self._block_segment.view[number])
            start = int(self._block_start.view[number])
            found = self._blocks[number] = _Columns(self._batch(segment, start))
            if len(self._blocks) > self._most_blocks:
                self._blocks.popitem(last=False)
        return found

    def _batch(self, segment: int, start: int) -> pa.RecordBatch:
        buffer, size = self._maps.get(segment, (None, 0))
        if buffer is None or start >= size:
            reader = self._segments[segment]
            try:
                buffer = pa.memory_map(str(reader.path)).read_buffer()
            except FileNotFoundError:  # sealed since we looked
                reader.path = reader.path.with_suffix(".arrow")
                buffer = pa.memory_map(str(reader.path)).read_buffer()
            self._maps[segment] = (buffer, buffer.size)
        return self._segments[segment].parse_at(buffer, start)


class _Columns(dict[str, Any]):
    """Column name -> its values as a list, or (mapped bytes, where each row begins and ends in them) for text and
    lists. Plain lists and memory views: rows are picked one by one, where numpy costs several times as much."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        super().__init__()
        self._batch = batch

    def __missing__(self, name: str) -> Any:
        column = self._batch.column(name)
        if pa.types.is_primitive(column.type):
            unknown = float("nan") if pa.types.is_floating(column.type) else 0
            self[name] = column.fill_null(unknown).to_pylist() if column.null_count else column.to_pylist()
        elif pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type):
            width = _dtype(name).itemsize
            self[name] = (memoryview(column.buffers()[3] or b""), (column.offsets.to_numpy() * width).tolist())
        elif pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type):
            ends = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1)
            self[name] = (memoryview(column.buffers()[2] or b""), ends.tolist())
        else:
            raise ShardError(f"column {name} ({column.type}) cannot be gathered", "read it with Catalog.dataset()")
        return self[name]


def _dtype(name: str) -> np.dtype[Any]:
    of = TYPES[name]
    if pa.types.is_large_string(of) or pa.types.is_large_binary(of):
        return np.dtype(np.uint8)
    dtype: np.dtype[Any] = np.dtype((of.value_type if pa.types.is_list(of) else of).to_pandas_dtype())
    return dtype
