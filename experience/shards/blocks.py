"""Blocks: record batches on disk, each with a commit record that says it is whole.

A segment is two files, `NAME.open` while it grows and `NAME.arrow` once sealed, and beside it
    NAME.commit    one 32-byte record a block: end u64 | last_seq u64 | rows u32 | crc32 u32 | t_ns u64
The CRC covers the block's bytes and the record's other fields, and is checked before Arrow parses anything:
Arrow IPC itself takes a flipped byte or a zero-filled tail for data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.disk import REAL, Disk
from experience.shards.schema import check_schema

T = TypeVar("T")

COMMIT = struct.Struct("<QQIIQ")
_UNSEALED = struct.Struct("<QQIQ")
FIRST_BLOCK = 8  # an IPC file opens with the magic and padding; the stream proper follows


@dataclass(frozen=True, slots=True)
class Commit:
    """One acknowledged block: bytes [start, end) of the segment, `rows` rows up to row number `last_seq`."""

    start: int
    end: int
    last_seq: int
    rows: int
    crc: int
    t_ns: int

    @classmethod
    def of(cls, block: bytes, start: int, last_seq: int, rows: int, t_ns: int) -> Commit:
        end = start + len(block)
        return cls(start, end, last_seq, rows, zlib.crc32(block, _head(end, last_seq, rows, t_ns)), t_ns)

    def pack(self) -> bytes:
        return COMMIT.pack(self.end, self.last_seq, self.rows, self.crc, self.t_ns)

    def matches(self, block: bytes | memoryview) -> bool:
        return (len(block) == self.end - self.start
                and zlib.crc32(block, _head(self.end, self.last_seq, self.rows, self.t_ns)) == self.crc)


def _head(end: int, last_seq: int, rows: int, t_ns: int) -> int:
    return zlib.crc32(_UNSEALED.pack(end, last_seq, rows, t_ns))


def read_commits(log: bytes, start: int = 0, last_seq: int = -1) -> Iterator[Commit]:
    """The self-consistent records at the head of a commit log; a torn or impossible record ends it."""
    for offset in range(0, len(log) - COMMIT.size + 1, COMMIT.size):
        end, seq, rows, crc, t_ns = COMMIT.unpack_from(log, offset)
        if end <= start or rows == 0 or seq != last_seq + rows:
            return
        yield Commit(start, end, seq, rows, crc, t_ns)
        start, last_seq = end, seq


class BlockReader:
    """Reads a segment block by block as its commit log grows, checking each before Arrow sees it."""

    def __init__(self, path: Path, disk: Disk = REAL) -> None:
        self.path, self._disk = path, disk
        self._start, self._last_seq, self._records = 0, -1, 0
        self._schema: pa.Schema | None = None

    def read(self) -> Iterator[pa.RecordBatch]:
        """The record batches committed since the last call. Raises ShardError on damage."""
        for commit, block in self.blocks():
            yield self.parse(block, commit)

    def blocks(self) -> Iterator[tuple[Commit, bytes]]:
        """The same, not yet parsed: their bytes are what was committed."""
        try:
            log = self._disk.read(self.path.with_suffix(".commit"), self._records * COMMIT.size)
        except FileNotFoundError:
            return
        for commit in list(read_commits(log, self._start, self._last_seq)):
            block = self.block(commit)
            self._start, self._last_seq, self._records = commit.end, commit.last_seq, self._records + 1
            yield commit, block

    def block(self, commit: Commit) -> bytes:
        """The bytes of one block. Raises ShardError if they are not what was committed."""
        block = self.where_it_is(lambda path: self._disk.read(path, commit.start, commit.end))
        if not commit.matches(block):
            raise ShardError(f"{self.path}: rows {commit.last_seq - commit.rows + 1} to {commit.last_seq} "
                             f"(bytes {commit.start} to {commit.end}) are damaged",
                             "restore the file from a copy; the other blocks are readable")
        return block

    def where_it_is(self, read: Callable[[Path], T]) -> T:
        """What `read` finds in the segment, which may have been sealed since we looked."""
        try:
            return read(self.path)
        except FileNotFoundError:
            self.path = self.path.with_suffix(".arrow")
            return read(self.path)

    def parse(self, block: bytes, commit: Commit) -> pa.RecordBatch:
        stream = pa.BufferReader(block)
        if self._schema is None:
            if commit.start:
                raise ShardError(f"{self.path}: its first block, which holds the schema, is damaged",
                                 "restore the file from a copy")
            stream.seek(FIRST_BLOCK)
            self._schema = pa.ipc.read_schema(stream)
            check_schema(self._schema, str(self.path))
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(stream), self._schema)
        if batch.num_rows != commit.rows:
            raise ShardError(f"{self.path}: a block holds {batch.num_rows} rows, its commit says {commit.rows}",
                             "restore the file from a copy")
        return batch

    def parse_at(self, mapped: pa.Buffer, start: int) -> pa.RecordBatch:
        """A block that was read before, without a copy, from its mapped file."""
        stream = pa.BufferReader(mapped)
        stream.seek(start or FIRST_BLOCK)
        if not start:
            pa.ipc.read_schema(stream)
        return pa.ipc.read_record_batch(pa.ipc.read_message(stream), self._schema)


def read_blocks(path: Path, disk: Disk = REAL) -> Iterator[pa.RecordBatch]:
    """All acknowledged record batches of one segment, open or sealed."""
    return BlockReader(path, disk).read()


def keys(batch: pa.RecordBatch) -> Iterator[tuple[bytes, int]]:
    """(stream, t) of each row."""
    return zip(batch.column("stream_id").to_pylist(), batch.column("t").to_pylist(), strict=True)
