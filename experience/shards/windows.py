"""Windows: runs of successive rows of a stream, drawn from a store that grows, as contiguous arrays.

Blocks are held against their CRC once, when first seen, and it is noted where the wanted columns lie in the file; rows
are then gathered straight from mapped files by numpy and Arrow, one copy, no Python a row. The index costs 13 bytes a
row, and 24 bytes a block with 16 more for each wanted column.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.errors import ShardError
from experience.shards.catalog import Catalog, Found
from experience.shards.record.schema import TYPES
from experience.shards.samplers import Sampler, Uniform
from experience.shards.storage.blocks import BlockReader
from experience.shards.storage.disk import REAL, Disk
from experience.step import SOURCES, Boundary, Source

_INDEXED = ("boundary", "source", "split", "policy_version")
_BREAKS = int(Boundary.WORKER_RESTART | Boundary.GAP)
_SOURCE, _HELD_OUT, _BREAK, _GIVEN_AGAIN = 0b11, 4, 8, 16  # bits of a row's mark
_NO_VERSION = np.iinfo(np.int32).max
_THAW_BATCHES = 64  # that share a temporary file
_INLINE = 12  # bytes that an Arrow view holds itself


@dataclass(frozen=True)
class Ragged:
    """Rows of varying length: values [total], read-only, and offsets int64 [n·k + 1]; row i is
    values[offsets[i]:offsets[i+1]]. Text is UTF-8 bytes."""

    values: np.ndarray
    offsets: np.ndarray

    def row(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


@dataclass(frozen=True)
class Windows:
    """n windows of k rows, row-major. numbers[name] is [n, k], an unknown value NaN or 0; ragged[name] holds n·k
    rows."""

    numbers: dict[str, np.ndarray]
    ragged: dict[str, Ragged]


class _Growing:
    """A numpy array that is appended to; it grows by half, so that a row costs little more than its own size."""

    def __init__(self, dtype: Any) -> None:
        self._data, self.size = np.empty(64, dtype), 0

    def extend(self, values: np.ndarray) -> None:
        while self.size + len(values) > len(self._data):
            self._data = np.concatenate(
                [self._data, np.empty_like(self._data, shape=len(self._data) // 2)]
            )
        self._data[self.size : self.size + len(values)] = values
        self.size += len(values)

    @property
    def view(self) -> np.ndarray:
        return self._data[: self.size]


class _Column:
    """Where a column lies: for each block the byte positions, in its segment's file, of the values and of what says
    which of them are known (−1: all), or where each begins."""

    def __init__(self, name: str) -> None:
        type_ = TYPES.get(name)
        if type_ is None:
            raise ShardError(f"no column {name!r}", f"there are: {', '.join(TYPES)}")
        self.is_text = pa.types.is_large_string(type_) or pa.types.is_large_binary(type_)
        self.is_list = pa.types.is_list(type_) and pa.types.is_primitive(type_.value_type)
        self.is_id = pa.types.is_fixed_size_binary(type_)
        if not (
            self.is_text
            or self.is_list
            or pa.types.is_primitive(type_)
            or (self.is_id and name == "stream_id")
        ):
            raise ShardError(
                f"column {name} ({type_}) cannot be gathered", "read it with Catalog.dataset()"
            )
        self.is_bits = pa.types.is_boolean(type_)
        plain = type_.value_type if self.is_list else type_
        self.dtype = np.dtype(
            np.uint8 if self.is_text else "V16" if self.is_id else plain.to_pandas_dtype()
        )
        self.guide, self.values = _Growing(np.int64), _Growing(np.int64)

    def note(self, column: pa.Array, origin: int) -> None:
        """`origin`: the address at which the file would begin, were all of it where this block is."""
        buffers = column.buffers()
        guide, values = (buffers[1], buffers[-1]) if self.is_text or self.is_list else buffers
        self.guide.extend(np.array([-1 if guide is None else guide.address - origin]))
        self.values.extend(
            np.array([0 if values is None or not values.size else values.address - origin])
        )


class _Mapped:
    """One segment's file in memory, seen as bytes and as the widths that its columns have."""

    def __init__(self, buffer: pa.Buffer) -> None:
        self.buffer = buffer
        self._bytes = np.frombuffer(buffer, np.uint8)

    @property
    def size(self) -> int:
        return len(self._bytes)

    def seen_as(self, dtype: np.dtype[Any]) -> np.ndarray:
        return self._bytes[: self.size - self.size % dtype.itemsize].view(dtype)

    def bits(self, positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        bytes_: np.ndarray = self._bytes[positions + (numbers >> 3)]
        return (bytes_ >> (numbers & 7).astype(np.uint8) & 1).astype(bool)

    def heads(self, positions: np.ndarray) -> np.ndarray:
        """The first bytes at each position, as many as a view holds itself."""
        heads: np.ndarray = self._bytes[
            np.minimum(positions[:, None] + np.arange(_INLINE), self.size - 1)
        ]
        return heads


class WindowReader:
    """Draws and gathers windows of `columns` from the shards below one directory.

    Invariants: only committed rows whose block's CRC is right are ever given; a window is k successive rows of one
    stream; it crosses no restart and no gap, mixes no sources, and is of the wanted split, unless asked.
    """

    def __init__(
        self, directory: Path, columns: Sequence[str], *, seed: int = 0, disk: Disk = REAL
    ) -> None:
        self._catalog = Catalog(directory, disk=disk)
        self._rng = np.random.default_rng(seed)
        self._columns = {name: _Column(name) for name in columns}
        self._keys = {name: _Column(name) for name in ("stream_id", "t")}
        self._segments: dict[tuple[BlockReader, str] | _Mapped, int] = {}
        self._mapped: dict[int, _Mapped] = {}
        self._block_row, self._block_segment = _Growing(np.int64), _Growing(np.int32)
        self._block_skip = _Growing(np.int32)
        self._last: dict[bytes, tuple[int, int]] = {}  # stream -> (its last row's number, t)
        self._next, self._mark, self._version = (
            _Growing(np.int64),
            _Growing(np.uint8),
            _Growing(np.int32),
        )
        self.rows = 0

    def refresh(self) -> int:
        """Takes in what was committed since; returns how many rows. Raises ShardError if a row before is missing."""
        before = self.rows
        thawing: list[pa.RecordBatch] = []
        for found in self._catalog.found():
            segment = self._mapped_segment(found)
            if segment is None:
                thawing.append(found.rows)
            if segment is not None or len(thawing) == _THAW_BATCHES:
                self._thaw(thawing)  # before what follows: rows of a stream are taken in order
                thawing = []
            if segment is not None and found.block is not None:
                self._note(found.block.batch, segment, found.block.origin, found.block.skip)
        self._thaw(thawing)
        return self.rows - before

    def _mapped_segment(self, found: Found) -> int | None:
        """The number of the file in which the rows lie ready; None if they must be thawed."""
        block, reader = found.block, found.reader
        if block is None or reader is None or not block.lies_ready((*self._columns, *self._keys)):
            return None
        segment = self._segments.setdefault((reader, reader.path.suffix), len(self._segments))
        if segment not in self._mapped or self._mapped[segment].size < block.commit.end:
            try:
                self._mapped[segment] = _Mapped(
                    reader.mapped()
                )  # now: it stays readable when the file goes
            except FileNotFoundError:  # it was sealed or went cold since the block was read
                return None
        return segment

    def _thaw(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Rows that do not lie ready in a file (cold, compressed, or of an older format), in a temporary file that goes
        with this process."""
        if not batches:
            return
        wanted = list(dict.fromkeys((*self._columns, *self._keys, *_INDEXED)))
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_file(
                file, batches[0].select(wanted).schema.remove_metadata()
            ) as writer:
                for batch in batches:
                    writer.write_batch(batch.select(wanted).replace_schema_metadata(None))
            file.flush()
            mapped = _Mapped(pa.memory_map(f"/proc/self/fd/{file.fileno()}").read_buffer())
        segment = self._segments[mapped] = len(self._segments)
        self._mapped[segment] = mapped
        thawed = pa.ipc.open_file(mapped.buffer)
        for number in range(thawed.num_record_batches):
            self._note(thawed.get_batch(number), segment, mapped.buffer.address)

    def _note(self, batch: pa.RecordBatch, segment: int, origin: int, skip: int = 0) -> None:
        """`skip` rows at the head of the batch are known already."""
        self._block_row.extend(np.array([self.rows]))
        self._block_skip.extend(np.array([skip]))
        self._block_segment.extend(np.array([segment]))
        for name, column in (*self._columns.items(), *self._keys.items()):
            column.note(batch.column(name), origin)
        self._index(batch.slice(skip))

    def _index(self, batch: pa.RecordBatch) -> None:
        column = batch.column("stream_id")
        ids = np.frombuffer(column.buffers()[1], "V16", batch.num_rows, 16 * column.offset)
        t = batch.column("t").to_numpy()
        boundary = batch.column("boundary").to_numpy()
        mark = np.where(boundary & _BREAKS, _BREAK, 0).astype(np.uint8)
        source = batch.column("source")
        for number, name in enumerate(SOURCES):
            mark[pc.equal(source, name).to_numpy(zero_copy_only=False)] |= number
        mark[pc.not_equal(batch.column("split"), "train").to_numpy(zero_copy_only=False)] |= (
            _HELD_OUT
        )
        version = batch.column("policy_version")
        self._version.extend(
            (version.fill_null(_NO_VERSION) if version.null_count else version)
            .to_numpy()
            .astype(np.int32)
        )
        following = np.full(batch.num_rows, -1, np.int64)
        self._next.extend(following)
        following = self._next.view
        streams, of = np.unique(ids, return_inverse=True)
        for ordinal, stream in enumerate(streams.tolist()):
            at = np.flatnonzero(of == ordinal)
            last, last_t = self._last.get(stream, (-1, -1))
            again = t[at] <= last_t  # rows given again after a failed sync are known already
            mark[at[again]] |= _GIVEN_AGAIN
            at = at[~again]
            if len(at) == 0:
                continue
            self._catalog.note(stream, int(t[at[0]]), int(t[at[-1]]))
            rows = self.rows + at
            next_is_there = np.diff(t[at]) == 1  # else rows in between were removed
            following[rows[:-1][next_is_there]] = rows[1:][next_is_there]
            if last >= 0 and t[at[0]] == last_t + 1:
                following[last] = rows[0]
            self._last[stream] = (int(rows[-1]), int(t[at[-1]]))
        self._mark.extend(mark)
        self.rows += batch.num_rows

    def draw(
        self,
        n: int,
        k: int,
        sampler: Sampler | None = None,
        *,
        source: Source = "real",
        split: str = "train",
        oldest_version: int | None = None,
        across_gaps: bool = False,
    ) -> np.ndarray:
        """Row numbers int64 [n, k] of windows of k rows, with replacement; `sampler` says how often each first row.

        `oldest_version`: no row was acted by an older policy. `split` "" takes any. Raises ShardError if there is no
        such window.
        """
        sampler = sampler or Uniform()

        def usable(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = self._successors(first, k, across_gaps)
            ok = rows[:, -1] >= 0
            mark = self._mark.view[rows]
            ok &= ((mark & _SOURCE) == SOURCES.index(source)).all(1) & (
                mark[:, 0] & _GIVEN_AGAIN == 0
            )
            if split:
                ok &= (mark[:, 0] & _HELD_OUT != 0) == (split != "train")
            if oldest_version is not None:
                ok &= (self._version.view[rows] >= oldest_version).all(1)
            return rows, ok

        drawn, missing = np.empty((n, k), np.int64), np.arange(n)
        for _ in range(32 if self.rows else 0):
            rows, ok = usable(sampler.propose(len(missing), self.rows, self._rng))
            drawn[missing[ok]] = rows[ok]
            missing = missing[~ok]
            if len(missing) == 0:
                return drawn
        drawn[missing] = self._draw_among_few(
            len(missing), sampler, usable
        )  # the same distribution, by looking at all
        return drawn

    def _draw_among_few(self, n: int, sampler: Sampler, usable: Any) -> np.ndarray:
        kept, weights = [], []
        for start in range(0, self.rows, 100_000):
            first = np.arange(start, min(start + 100_000, self.rows))
            rows, ok = usable(first)
            kept.append(rows[ok])
            weights.append(sampler.weight(first[ok], self.rows))
        rows = np.concatenate(kept) if kept else np.empty((0, 1), np.int64)
        weight = np.concatenate(weights) if weights else np.empty(0)
        if not weight.sum():
            raise ShardError(
                "no window of that length and kind is in the store yet",
                "collect more, ask for shorter windows, or across_gaps=True",
            )
        chosen: np.ndarray = rows[self._rng.choice(len(rows), n, p=weight / weight.sum())]
        return chosen

    def draw_mixture(
        self, n: int, k: int, shares: Mapping[Source, float], **how: Any
    ) -> np.ndarray:
        """Windows of several sources, each its share of `n` (the nearest whole numbers), one source after another."""
        wanted = np.array(list(shares.values())) / sum(shares.values()) * n
        counts = wanted.astype(int)
        counts[np.argsort(counts - wanted, kind="stable")[: n - counts.sum()]] += 1
        return np.concatenate(
            [
                self.draw(int(count), k, source=source, **how)
                for source, count in zip(shares, counts, strict=True)
                if count
            ]
        )

    def _successors(self, first: np.ndarray, k: int, across_gaps: bool) -> np.ndarray:
        """Each row and the k − 1 after it in its stream; from where there is none on, −1."""
        rows, following, mark = (
            np.empty((len(first), k), np.int64),
            self._next.view,
            self._mark.view,
        )
        rows[:, 0] = first
        for i in range(1, k):
            row = np.where(rows[:, i - 1] < 0, -1, following[rows[:, i - 1]])
            rows[:, i] = row if across_gaps else np.where(mark[row] & _BREAK, -1, row)
        return rows

    def identify(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(stream ids V16 [n], t int64 [n]) of row numbers [n]: what names a row for ever. A row's number holds only
        in this reader."""
        found = self._gather(rows, self._keys)
        return found.numbers["stream_id"], found.numbers["t"]

    def gather(self, rows: np.ndarray) -> Windows:
        """The columns of `rows` [n, k], each as one contiguous array."""
        return self._gather(rows, self._columns)

    def _gather(self, rows: np.ndarray, columns: Mapping[str, _Column]) -> Windows:
        flat = rows.ravel()
        block = np.searchsorted(self._block_row.view, flat, side="right") - 1
        inside = flat - self._block_row.view[block] + self._block_skip.view[block]
        parts = list(self._by_segment(self._block_segment.view[block]))
        windows = Windows({}, {})
        for name, column in columns.items():
            guide, values = column.guide.view[block], column.values.view[block]
            if column.is_text or column.is_list:
                windows.ragged[name] = _gather_ragged(column, parts, guide, values, inside)
            else:
                windows.numbers[name] = _gather_numbers(
                    column, parts, guide, values, inside
                ).reshape(rows.shape)
        return windows

    def _by_segment(self, segment: np.ndarray) -> Iterator[tuple[_Mapped, np.ndarray]]:
        """Each segment's file, and which of the rows lie in it; nothing of no rows."""
        if not len(segment):
            return
        order = np.argsort(segment, kind="stable")
        numbers, starts = np.unique(segment[order], return_index=True)
        for number, where in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            yield self._mapped[number], where


def _gather_numbers(
    column: _Column,
    parts: list[tuple[_Mapped, np.ndarray]],
    guide: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
) -> np.ndarray:
    found = np.empty(len(inside), column.dtype)
    unknown = np.nan if column.dtype.kind == "f" else 0
    for mapped, where in parts:
        at, of = inside[where], values[where]
        if column.is_bits:
            found[where] = mapped.bits(of, at)
        elif column.is_id:  # Arrow aligns to 8 bytes, not to 16
            words = mapped.seen_as(np.dtype(np.int64))[(of // 8 + 2 * at)[:, None] + np.arange(2)]
            found[where] = words.view(column.dtype).ravel()
        else:
            found[where] = mapped.seen_as(column.dtype)[of // column.dtype.itemsize + at]
        some = where[guide[where] >= 0]
        if len(some):
            found[some] = np.where(mapped.bits(guide[some], inside[some]), found[some], unknown)
    return found


def _gather_ragged(
    column: _Column,
    parts: list[tuple[_Mapped, np.ndarray]],
    guide: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
) -> Ragged:
    """Arrow copies the rows: to it each is a view (length, head or number of a buffer, position) on a mapped file."""
    if not len(inside):
        return Ragged(np.empty(0, column.dtype), np.zeros(1, np.int64))
    width = np.dtype(np.int64 if column.is_text else np.int32)
    views = np.zeros((len(inside), 4), np.int32)
    heads = views.view(np.uint8)
    for number, (mapped, where) in enumerate(parts):
        if mapped.size > np.iinfo(np.int32).max:
            raise ShardError("a segment is larger than 2 GiB", "write with a smaller seal_bytes")
        bounds = mapped.seen_as(width)
        at = guide[where] // width.itemsize + inside[where]
        begins, ends = bounds[at].astype(np.int64), bounds[at + 1].astype(np.int64)
        sizes, positions = (
            (ends - begins) * column.dtype.itemsize,
            values[where] + begins * column.dtype.itemsize,
        )
        views[where, 0], views[where, 2], views[where, 3] = sizes, number, positions
        short = sizes <= _INLINE
        heads[where[short], 4:] = mapped.heads(positions[short])
    view = pa.Array.from_buffers(
        pa.binary_view(),
        len(inside),
        [None, pa.py_buffer(views), *(mapped.buffer for mapped, _ in parts)],
    )
    copied = view.cast(pa.large_binary())
    offsets = np.frombuffer(copied.buffers()[1], np.int64, len(inside) + 1) // column.dtype.itemsize
    return Ragged(np.frombuffer(copied.buffers()[2] or b"", column.dtype), offsets)
