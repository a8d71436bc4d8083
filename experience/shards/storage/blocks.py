"""Blocks: record batches on disk, each with a commit record that says it is whole.

A segment is two files, `NAME.open` while it grows and `NAME.arrow` once sealed, and beside it
    NAME.commit    32 bytes per block: end u64 | last_seq u64 | rows u32 | crc32 u32 | t_ns u64
    NAME.blocks    replaces it where sealing rewrote many small blocks into few large ones
Row numbers stay the same when blocks are rewritten, so a reader continues by row number.
The CRC covers the block's bytes and the record's other fields. It is checked before Arrow parses
anything, because Arrow IPC itself takes a flipped byte or a zero-filled tail for data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.record.schema import check_schema, conform
from experience.shards.storage.disk import REAL, Disk

COMMIT = struct.Struct("<QQIIQ")
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends an Arrow stream; in a file the footer follows."""
_UNSEALED = struct.Struct("<QQIQ")
FIRST_BLOCK = 8  # an IPC file opens with the magic and padding; the stream proper follows


@dataclass(frozen=True, slots=True)
class Commit:
    """An acknowledged block: bytes [start, end) of the segment, `rows` rows up to `last_seq`."""

    start: int
    end: int
    last_seq: int
    rows: int
    crc: int
    t_ns: int

    @classmethod
    def of(cls, block: bytes, start: int, last_seq: int, rows: int, t_ns: int) -> Commit:
        end = start + len(block)
        return cls(
            start, end, last_seq, rows, zlib.crc32(block, _head(end, last_seq, rows, t_ns)), t_ns
        )

    def pack(self) -> bytes:
        return COMMIT.pack(self.end, self.last_seq, self.rows, self.crc, self.t_ns)

    def matches(self, block: bytes | memoryview) -> bool:
        return (
            len(block) == self.end - self.start
            and zlib.crc32(block, _head(self.end, self.last_seq, self.rows, self.t_ns)) == self.crc
        )


def _head(end: int, last_seq: int, rows: int, t_ns: int) -> int:
    return zlib.crc32(_UNSEALED.pack(end, last_seq, rows, t_ns))


def read_commits(
    log: bytes, start: int = 0, last_seq: int = -1, where: str = "a commit log"
) -> Iterator[Commit]:
    """The records of a commit log, up to the first that is cut short or was never written (zeros).

    Raises ShardError for a record that no writer made. The length of a record divides a sector, so
    that a power cut leaves a whole record or none.
    """
    for offset in range(0, len(log) - COMMIT.size + 1, COMMIT.size):
        end, seq, rows, crc, t_ns = COMMIT.unpack_from(log, offset)
        if end <= start or rows == 0 or seq != last_seq + rows:
            if not any(log[offset : offset + COMMIT.size]):
                return
            raise ShardError(
                f"{where}: the record after row {last_seq} is damaged",
                "restore the file from a copy",
            )
        yield Commit(start, end, seq, rows, crc, t_ns)
        start, last_seq = end, seq


def ends_the_stream(path: Path, end: int, disk: Disk = REAL) -> bool:
    """Whether no block follows byte `end` of a sealed shard, so that its commit log is whole."""
    return disk.read(path, end, end + len(_END)) == _END


def log_of(path: Path, disk: Disk = REAL) -> Path:
    """The commit log of a segment: `.blocks` where sealing rewrote its blocks, else `.commit`."""
    rewritten = path.with_suffix(".blocks")
    return (
        rewritten
        if path.suffix == ".arrow" and disk.exists(rewritten)
        else path.with_suffix(".commit")
    )


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was held against its commit: its bytes, and its rows as they lie in the file.

    origin: the address at which the file would begin if all of it stood where this block is. skip:
    rows at the start that were given before, when the segment was not sealed yet.
    """

    commit: Commit
    data: bytes
    batch: pa.RecordBatch
    origin: int
    skip: int = 0

    def lies_ready(self, columns: Iterable[str]) -> bool:
        """Whether the file holds each of `columns` as Arrow has it in memory.

        An older format may lack a column, and rewritten blocks are compressed.
        """
        first, names = self.origin + self.commit.start, set(self.batch.schema.names)
        return all(
            name in names
            and all(
                buffer is None
                or not buffer.size
                or first <= buffer.address < first + len(self.data)
                for buffer in self.batch.column(name).buffers()
            )
            for name in columns
        )

    @property
    def rows(self) -> pa.RecordBatch:
        """The rows not given before, with every column of today."""
        rows = conform(self.batch)
        return rows.slice(self.skip) if self.skip else rows


class BlockReader:
    """Reads a segment block by block as its commit log grows, checking each before Arrow sees it.

    Each row is given once, even if the segment is sealed and its blocks rewritten meanwhile.
    """

    def __init__(self, path: Path, disk: Disk = REAL, log: Path | None = None) -> None:
        self.path, self._disk = path, disk
        self._log = log or log_of(path, disk)
        self._given, self.held = -1, False
        """`held`: whether its commits were held against the manifest, and agree."""
        self._rewind()

    def _rewind(self) -> None:
        self._start, self._last_seq, self._records = 0, -1, 0
        self._schema: pa.Schema | None = None

    @property
    def rows(self) -> int:
        """How many rows its commit log told of so far."""
        return self._last_seq + 1

    def read(self, rows: int | None = None) -> Iterator[Block]:
        """The blocks committed since the last call. rows: all rows by the manifest, if it is known.

        Raises ShardError on damage, or if the commit log has another number of rows, and
        FileNotFoundError if the segment or its log is gone.
        """
        while True:
            try:
                yield from self._read(rows)
                return
            except FileNotFoundError:
                sealed = self.path.with_suffix(".arrow")
                if self.path == sealed or not self._disk.exists(sealed):
                    raise
                self.go_to(sealed)

    def go_to(self, path: Path) -> None:
        """Goes on in `path`, the same segment, sealed."""
        self.path, log = path, log_of(path, self._disk)
        if log != self._log:
            self._log = log
            self._rewind()

    def _read(self, rows: int | None) -> Iterator[Block]:
        log = self._read_log()
        for commit in list(read_commits(log, self._start, self._last_seq, str(self._log))):
            skip = min(max(self._given - (commit.last_seq - commit.rows), 0), commit.rows)
            block = None
            # The first block is read even if all its rows are known: it holds the schema.
            if skip < commit.rows or self._schema is None:
                block = self.parse(self.block(commit), commit, skip)
            self._start, self._last_seq, self._records = (
                commit.end,
                commit.last_seq,
                self._records + 1,
            )
            self._given = max(self._given, commit.last_seq)
            if block is not None and skip < commit.rows:
                yield block
        if rows is not None:
            self._hold_against(rows)

    def mapped(self) -> pa.Buffer:
        """The segment's file in memory. Raises FileNotFoundError if it is gone."""
        return self._disk.mapped(self.path)

    def _read_log(self) -> bytes:
        try:
            return self._disk.read(self._log, self._records * COMMIT.size)
        except FileNotFoundError:
            if self.path.suffix == ".open" and self._disk.size(self.path) == 0:
                # Just created, or a power cut took the log's name before any acknowledgement.
                return b""
            raise

    def _hold_against(self, rows: int) -> None:
        size, known = self._disk.size(self._log), self._records * COMMIT.size
        taken_back = (
            self.rows > rows and size < known
        )  # rows that we saw, before the segment was sealed
        self.held = taken_back or (self.rows == rows and size == known)
        if taken_back:
            return
        if not self.held:
            raise ShardError(
                f"{self._log}: it tells of {self.rows} rows, the manifest of {rows}"
                if self.rows != rows
                else f"{self._log}: {size - known} bytes follow its last record",
                "restore the file from a copy",
            )

    def block(self, commit: Commit) -> bytes:
        """The bytes of one block. Raises ShardError if they are not what was committed."""
        # Compared before Arrow parses it: Arrow takes flipped bytes for data, or crashes.
        data = self._disk.read(self.path, commit.start, commit.end)
        if not commit.matches(data):
            raise ShardError(
                f"{self.path}: rows {commit.last_seq - commit.rows + 1} to {commit.last_seq} "
                f"(bytes {commit.start} to {commit.end}) are damaged",
                "restore the file from a copy; the other blocks are readable",
            )
        return data

    def parse(self, data: bytes, commit: Commit, skip: int = 0) -> Block:
        """A block's rows from its checked bytes."""
        if self._schema is None:
            if commit.start:
                raise ShardError(
                    f"{self.path}: its first block, which holds the schema, is damaged",
                    "restore the file from a copy",
                )
            stream = pa.BufferReader(data)
            stream.seek(FIRST_BLOCK)
            self._schema = pa.ipc.read_schema(stream)
            check_schema(self._schema, str(self.path))
        source = pa.py_buffer(data)
        stream = pa.BufferReader(source)
        if not commit.start:
            stream.seek(FIRST_BLOCK)
            pa.ipc.read_schema(stream)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(stream), self._schema)
        if batch.num_rows != commit.rows:
            raise ShardError(
                f"{self.path}: a block holds {batch.num_rows} rows, its commit says {commit.rows}",
                "restore the file from a copy",
            )
        return Block(commit, data, batch, source.address - commit.start, skip)


def read_blocks(path: Path, disk: Disk = REAL, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """All acknowledged rows of a segment, open or sealed, with every column of today.

    Raises as BlockReader.read does.
    """
    for block in BlockReader(path, disk).read(rows):
        yield block.rows


def keys(batch: pa.RecordBatch) -> Iterator[tuple[bytes, int]]:
    """(stream, t) of each row."""
    return zip(batch.column("stream_id").to_pylist(), batch.column("t").to_pylist(), strict=True)
