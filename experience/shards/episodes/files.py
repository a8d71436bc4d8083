"""Files: in which segment or cold part an episode's rows lie, and how they are read from there.

Hot rows are found by their number in their segment: only the blocks that hold them are read, each
compared with its CRC. Cold rows are found by stream and t, from the row groups that may hold them;
a part is compared with its SHA-256 when it is first opened. Blocks and row groups that were read
lately are kept, up to a number of bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.cold.snapshot import Snapshot, read_snapshot
from experience.shards.record.schema import check_schema, conform
from experience.shards.storage.blocks import BlockReader, Commit, log_of, read_commits
from experience.shards.storage.checked import open_checked
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.unpacked import check_unpacked

COLD = -1
"""Instead of a segment's number: the rows were cold when they were first read."""
CACHE_BYTES = 32 << 20


class GoneColdError(Exception):
    """A segment is hot no more. Never leaves this folder."""


@dataclass
class _Segment:
    reader: BlockReader
    commits: list[Commit] = field(default_factory=list)
    lasts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


class Cache:
    """The newest of what was read, up to `most` bytes."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._kept: OrderedDict[object, pa.RecordBatch] = OrderedDict()

    def get(self, key: object) -> pa.RecordBatch | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        return None

    def put(self, key: object, batch: pa.RecordBatch) -> pa.RecordBatch:
        self._kept[key] = batch
        self._bytes += batch.nbytes
        while self._bytes > self._most and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.nbytes
        return batch

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class Files:
    """The files of one store, read at random."""

    def __init__(self, store: Path, names: list[str] | None = None, disk: Disk = REAL) -> None:
        self.names = list(names or ())
        """"writer/seg-…" by number, without the ending, which sealing changes."""
        self._store, self._disk, self._cache = store, disk, Cache()
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._segments: dict[int, _Segment] = {}
        self._snapshot = Snapshot()
        self._parts: dict[str, ColdPart] = {}

    def number(self, path: Path) -> int:
        """The number of a segment, open or sealed."""
        name = f"{path.parent.name}/{path.stem}"
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def between(self, begin: int, end: int) -> list[int]:
        """The segments from `begin` to `end` of one writer, in the order they were written.

        begin: COLD: all of the writer's that are known, up to `end`.
        """
        if end < 0:
            return []
        writer, _, _ = self.names[end].partition("/")
        first = self.names[begin] if begin >= 0 else f"{writer}/"
        return sorted(
            (
                number
                for number, name in enumerate(self.names)
                if name.startswith(f"{writer}/") and first <= name <= self.names[end]
            ),
            key=self.names.__getitem__,
        )

    def last_row(self, file: int) -> int:
        """The number of the last row of a segment. Raises GoneColdError if it is hot no more."""
        return int(self._segment(file).lasts[-1])

    def rows(self, file: int, first: int, last: int, stream: bytes) -> Iterator[pa.RecordBatch]:
        """The rows of `stream` among rows `first` to `last` of a segment.

        Raises GoneColdError if it is no hot segment, ShardError if a byte of them is wrong.
        """
        for _ in range(_TRIES):
            try:
                found = list(self._hot(file, first, last))
            except FileNotFoundError:  # sealed meanwhile, or gone cold
                self._segments.pop(file, None)
                continue
            yield from (_of_stream(batch, stream) for batch in found)
            return
        raise GoneColdError

    def _hot(self, file: int, first: int, last: int) -> Iterator[pa.RecordBatch]:
        segment = self._segment(file)
        if not len(segment.lasts) or segment.lasts[-1] < last:
            self._read_commits(segment)
        if not len(segment.lasts) or segment.lasts[-1] < last:
            raise ShardError(
                f"{segment.reader.path}: row {last} is not there", "./xp verify says what is wrong"
            )
        begin = int(np.searchsorted(segment.lasts, first))
        end = int(np.searchsorted(segment.lasts, last))
        for number in range(begin, end + 1):
            commit = segment.commits[number]
            start = commit.last_seq - commit.rows + 1
            batch = self._block(file, segment, number)
            skip = max(first - start, 0)
            yield batch.slice(skip, min(last, commit.last_seq) - start - skip + 1)

    def _block(self, file: int, segment: _Segment, number: int) -> pa.RecordBatch:
        # By the path too: sealing may have written the blocks anew, with other bounds.
        key = file, segment.reader.path.suffix, number
        known = self._cache.get(key)
        if known is not None:
            return known
        reader, commit = segment.reader, segment.commits[number]
        parsed = reader.parse(reader.block(commit), commit)
        return self._cache.put(key, conform(parsed.batch))

    def _segment(self, file: int) -> _Segment:
        if file < 0:
            raise GoneColdError
        if file not in self._segments:
            sealed = self._store / f"{self.names[file]}.arrow"
            path = sealed if self._disk.exists(sealed) else sealed.with_suffix(".open")
            if not self._disk.exists(path):
                raise GoneColdError
            segment = _Segment(BlockReader(path, self._disk))
            self._read_commits(segment)
            first = segment.commits[0]
            segment.reader.parse(segment.reader.block(first), first)  # it holds the schema
            self._segments[file] = segment
        return self._segments[file]

    def _read_commits(self, segment: _Segment) -> None:
        log = log_of(segment.reader.path, self._disk)
        segment.commits = list(read_commits(self._disk.read(log), where=str(log)))
        segment.lasts = np.array([c.last_seq for c in segment.commits], np.int64)
        if not segment.commits:
            raise FileNotFoundError(str(log))

    def cold_rows(self, stream: bytes, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Rows `first` to `last` of a stream from the cold parts, in order."""
        for _ in range(_TRIES):
            self._look()
            try:
                yield from list(self._of_parts(stream, first, last))
                return
            except FileNotFoundError:  # a compaction wrote it anew
                self._snapshot = Snapshot()
        raise ShardError(f"{self._store} changes faster than it can be read", "try again")

    def _look(self) -> None:
        snapshot = read_snapshot(self._store, self._disk)
        if snapshot.version != self._snapshot.version or not self._parts:
            kept = {part.file for part in snapshot.parts}
            self._parts = {name: part for name, part in self._parts.items() if name in kept}
            for part in snapshot.parts:
                self._parts.setdefault(part.file, ColdPart(part, self._store, self._disk))
            self._snapshot = snapshot

    def _of_parts(self, stream: bytes, first: int, last: int) -> Iterator[pa.RecordBatch]:
        for part in self._parts.values():
            begin, end = part.span(stream)
            if begin <= last and first <= end:
                yield from part.rows(stream, first, last, self._cache)


class ColdPart:
    """One cold part, read by row groups."""

    def __init__(self, part: Part, store: Path, disk: Disk) -> None:
        self._part, self._store, self._disk = part, store, disk
        self._spans: dict[bytes, tuple[int, int]] = {}
        for streams in part.streams.values():
            for stream, (begin, end) in streams.items():
                self._spans[bytes.fromhex(stream)] = begin, end
        self._source: parquet.ParquetFile | None = None
        self._bounds: list[tuple[tuple[bytes, int], tuple[bytes, int]]] = []

    def span(self, stream: bytes) -> tuple[int, int]:
        """The first and last t of a stream; an empty span if it holds none."""
        return self._spans.get(stream, (0, -1))

    def rows(self, stream: bytes, first: int, last: int, cache: Cache) -> Iterator[pa.RecordBatch]:
        for group in self._groups(stream, first, last):
            key = self._part.file, group
            batch = cache.get(key)
            if batch is None:
                batch = cache.put(key, self._read(group))
            wanted = pc.equal(batch.column("stream_id"), pa.scalar(stream, pa.binary(16)))
            t = batch.column("t").to_numpy()
            mask = wanted.to_numpy(zero_copy_only=False) & (t >= first) & (t <= last)
            at = np.flatnonzero(mask)
            if len(at):  # sorted by stream and t: what is asked for lies together
                yield batch.slice(int(at[0]), len(at))

    def _groups(self, stream: bytes, first: int, last: int) -> list[int]:
        """The row groups whose bounds, by stream and t, meet the rows asked for."""
        self._open()
        return [
            number
            for number, (low, high) in enumerate(self._bounds)
            if low <= (stream, last) and (stream, first) <= high
        ]

    def _open(self) -> None:
        if self._bounds:
            return
        if self._part.is_lance:
            # Lance is read whole: its rows become groups of their own.
            self._lance = list(self._part.batches(self._store, self._disk))
            self._bounds = [_bounds_of(batch) for batch in self._lance]
            return
        buffer = open_checked(self._part.expected(self._store), self._disk)
        check_unpacked(buffer, self._part.path(self._store))
        self._source = parquet.ParquetFile(pa.BufferReader(buffer), page_checksum_verification=True)
        check_schema(self._source.schema_arrow, str(self._part.path(self._store)))
        for group in range(self._source.num_row_groups):
            keys = self._source.read_row_group(group, columns=["stream_id", "t"])
            self._bounds.append(_bounds_of(keys))

    def _read(self, group: int) -> pa.RecordBatch:
        if self._source is None:
            return self._lance[group]
        table = self._source.read_row_group(group).combine_chunks()
        batches = table.to_batches()
        return conform(batches[0])


def _bounds_of(rows: pa.Table | pa.RecordBatch) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    stream, t = rows.column("stream_id"), rows.column("t")
    last = rows.num_rows - 1
    return (stream[0].as_py(), t[0].as_py()), (stream[last].as_py(), t[last].as_py())


def _of_stream(batch: pa.RecordBatch, stream: bytes) -> pa.RecordBatch:
    wanted = pc.equal(batch.column("stream_id"), pa.scalar(stream, pa.binary(16)))
    return batch.filter(wanted)


_TRIES = 4
