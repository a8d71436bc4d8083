"""The journal: steps appended by one writer, acknowledged when they are on disk, sealed into shards.

A segment being written is two files:
    seg-<epoch>-<n>.open     Arrow IPC file bytes, no footer yet: one record batch a commit
    seg-<epoch>-<n>.commit   one 32-byte record a commit: end u64 | last_seq u64 | rows u32 | crc32 u32 | t_ns u64
The CRC covers the block's bytes and the record's other fields. A commit is acknowledged after `fdatasync` of the
data, then of the record. Readers and recovery trust only the commit log, and check a block before Arrow parses it.
Sealing writes the footer, syncs, renames to `.arrow` (the commit log stays, to check blocks by) and adds a line to
MANIFEST with the file's SHA-256, chained to the line before.

Covers: kill -9 at any instant, power loss for acknowledged steps (where the disk honours fdatasync), torn tails,
damaged blocks (noticed), two incarnations of one writer (the older one is refused at its next commit).
Does not cover: a disk that lies about syncing; damage that is repaired by no copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from experience.errors import FencedError, ShardError
from experience.shards.schema import PromptDeltas, check_schema, schema, to_batch
from experience.signal import SignalKind
from experience.step import Step

Durability = Literal["sync", "group", "os"]
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

    def matches(self, block: bytes | memoryview) -> bool:
        head = zlib.crc32(_UNSEALED.pack(self.end, self.last_seq, self.rows, self.t_ns))
        return len(block) == self.end - self.start and zlib.crc32(block, head) == self.crc


def read_commits(log: bytes, start: int = 0, last_seq: int = -1) -> Iterator[Commit]:
    """The self-consistent records at the head of a commit log; a torn or impossible record ends it."""
    for offset in range(0, len(log) - COMMIT.size + 1, COMMIT.size):
        end, seq, rows, crc, t_ns = COMMIT.unpack_from(log, offset)
        if end <= start or rows == 0 or seq != last_seq + rows:
            return
        yield Commit(start, end, seq, rows, crc, t_ns)
        start, last_seq = end, seq


class _Bytes:
    """A file that Arrow writes to: every byte goes to the descriptor, the running CRC and the block length."""

    closed = False

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.offset, self._pending = descriptor, 0, bytearray()

    def write(self, data: Any) -> int:
        self._pending += data
        return len(data)

    def take(self) -> bytes:
        block, self._pending = bytes(self._pending), bytearray()
        return block

    def tell(self) -> int:
        return self.offset + len(self._pending)

    def flush(self) -> None: ...
    def writable(self) -> bool: return True
    def readable(self) -> bool: return False
    def seekable(self) -> bool: return False
    def close(self) -> None: self.closed = True


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Journal:
    """Appends steps of any number of streams for one writer. Acknowledged steps survive kill -9.

    Invariant: `acknowledged[stream]` is the highest t whose row, and every row before it, is on disk.
    Opening a journal fences older incarnations, recovers what they left, and continues their streams.
    """

    def __init__(self, directory: Path, catalogue: Mapping[str, SignalKind], *, durability: Durability = "group",
                 commit_seconds: float = 0.05, batch_rows: int = 64, seal_bytes: int = 256 << 20,
                 metadata: Mapping[str, Any] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.durability = directory, durability
        self._commit_seconds, self._batch_rows, self._seal_bytes = commit_seconds, batch_rows, seal_bytes
        self.epoch = _next_epoch(directory)
        self.acknowledged: dict[bytes, int] = recover(directory)
        self._next_t = {stream: t + 1 for stream, t in self.acknowledged.items()}
        self._schema = schema(catalogue, writer=directory.name, epoch=self.epoch, **dict(metadata or {}))
        self._deltas = PromptDeltas()
        self._buffer: list[Step] = []
        self._oldest = 0.0
        self._number, self._seq = 0, -1
        self._sink: _Bytes | None = None

    def next_t(self, stream: bytes) -> int:
        return self._next_t.get(stream, 0)

    def append(self, step: Step) -> bool:
        """Buffers `step` and commits when due; True once it is acknowledged. A t seen before is dropped."""
        expected = self.next_t(step.stream_id)
        if step.t < expected:
            return True
        if step.t > expected:
            raise ShardError(f"stream {step.stream_id.hex()} jumps from t = {expected - 1} to {step.t}",
                             "a stream's t is gapless; mark lost time with Boundary.GAP")
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer.append(step)
        self._next_t[step.stream_id] = step.t + 1
        if self.durability == "sync" or len(self._buffer) >= self._batch_rows:
            self.commit()
        return self.commit_if_due()

    def commit_if_due(self) -> bool:
        """Commits a buffer older than `commit_seconds`; True if nothing is left unacknowledged."""
        if self._buffer and time.monotonic() - self._oldest >= self._commit_seconds:
            self.commit()
        return not self._buffer

    def commit(self) -> None:
        """Puts the buffer on disk and acknowledges it. Any error leaves it unacknowledged and closes the segment."""
        if not self._buffer:
            return
        if (self.directory / f"epoch-{self.epoch + 1:06d}").exists():
            raise FencedError(f"{self.directory}: incarnation {self.epoch} was replaced by a newer one",
                              "this process lost its place and must end")
        if self._sink is None:
            self._open_segment()
        assert self._sink is not None
        rows = len(self._buffer)
        batch = to_batch(self._buffer, self._schema, self._deltas)
        self._writer.write_batch(batch)
        block = self._sink.take()
        _write_all(self._sink.descriptor, block)
        end, t_ns, self._seq = self._sink.offset + len(block), time.time_ns(), self._seq + rows
        crc = zlib.crc32(block, zlib.crc32(_UNSEALED.pack(end, self._seq, rows, t_ns)))
        self._sync(self._sink.descriptor)
        _write_all(self._log, COMMIT.pack(end, self._seq, rows, crc, t_ns))
        self._sync(self._log)
        self._sink.offset = end
        for step in self._buffer:
            self.acknowledged[step.stream_id] = step.t
        self._buffer.clear()
        if end >= self._seal_bytes:
            self.seal()

    def seal(self) -> Path | None:
        """Closes the open segment into an immutable shard; None if there was nothing to seal."""
        if self._sink is None:
            return None
        self._writer.close()
        _write_all(self._sink.descriptor, self._sink.take())
        os.fsync(self._sink.descriptor)
        os.close(self._sink.descriptor)
        os.close(self._log)
        self._sink = None
        return _publish(self._open_path)

    def close(self) -> None:
        self.commit()
        self.seal()

    def _open_segment(self) -> None:
        name = f"seg-{self.epoch:06d}-{self._number:06d}"
        self._number, self._seq = self._number + 1, -1
        self._open_path = self.directory / f"{name}.open"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._sink = _Bytes(os.open(self._open_path, flags, 0o644))
        self._log = os.open(self._open_path.with_suffix(".commit"), flags, 0o644)
        sync_directory(self.directory)
        self._deltas.forget()
        self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), self._schema)

    def _sync(self, descriptor: int) -> None:
        if self.durability != "os":
            os.fdatasync(descriptor)


def _next_epoch(directory: Path) -> int:
    """Takes the next incarnation number; creating its file exclusively is the fence."""
    taken = [int(p.name.partition("-")[2]) for p in directory.glob("epoch-*")]
    epoch = max(taken, default=-1) + 1
    while True:
        try:
            os.close(os.open(directory / f"epoch-{epoch:06d}", os.O_CREAT | os.O_EXCL, 0o644))
            sync_directory(directory)
            return epoch
        except FileExistsError:
            epoch += 1


def recover(directory: Path) -> dict[bytes, int]:
    """Seals what earlier incarnations left open, keeping exactly the acknowledged rows.

    Returns the last acknowledged t per stream, over all shards of this writer.
    Raises ShardError if an acknowledged block is damaged: that is never repaired silently.
    """
    for path in sorted(directory.glob("*.open")):
        _recover_segment(path)
    known = {line["file"] for line in read_manifest(directory)}
    for path in sorted(directory.glob("*.arrow")):
        if path.name not in known:  # killed between the rename and the manifest line
            _append_manifest(path)
    last: dict[bytes, int] = {}
    for path in sorted(directory.glob("*.arrow")):
        for batch in read_blocks(path):
            for stream, t in zip(batch.column("stream_id").to_pylist(), batch.column("t").to_pylist(), strict=True):
                last[stream] = max(t, last.get(stream, -1))
    return last


def _recover_segment(path: Path) -> None:
    log_path = path.with_suffix(".commit")
    commits = list(read_commits(log_path.read_bytes())) if log_path.exists() else []
    if not commits:  # nothing was ever acknowledged
        path.unlink()
        log_path.unlink(missing_ok=True)
        return
    batches = list(read_blocks(path))
    draft = path.with_suffix(".draft")
    sink = _Bytes(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))
    try:
        # The same batches through the same writer give the same bytes at the same offsets, and then the footer.
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        whole = sink.take()
        acknowledged = path.read_bytes()[:commits[-1].end]
        if whole[:len(acknowledged)] != acknowledged:
            raise ShardError(f"{path}: recovery would change acknowledged bytes", "keep the file and report it")
        _write_all(sink.descriptor, whole)
        os.fsync(sink.descriptor)
    finally:
        os.close(sink.descriptor)
    with open(log_path, "r+b") as log:
        log.truncate(len(commits) * COMMIT.size)
        os.fsync(log.fileno())
    os.replace(draft, path)
    _publish(path)


def _publish(path: Path) -> Path:
    sealed = path.with_suffix(".arrow")
    os.rename(path, sealed)  # a reader sees a whole shard or an open segment, never half of one
    sync_directory(path.parent)
    _append_manifest(sealed)
    return sealed


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """The manifest's lines. Each carries the hash of the one before, so a dropped or swapped line shows."""
    path, lines, previous = directory / "MANIFEST", [], ""
    if not path.exists():
        return []
    for number, raw in enumerate(path.read_text().splitlines(keepends=True), 1):
        if not raw.endswith("\n"):
            break  # a torn last line was never relied on; it is written again
        line = json.loads(raw)
        if line["previous"] != previous:
            raise ShardError(f"{path}:{number}: the chain is broken", "a line was lost or changed; restore the file")
        previous = hashlib.sha256(raw.encode()).hexdigest()
        lines.append(line)
    return lines


def _append_manifest(sealed: Path) -> None:
    path = sealed.parent / "MANIFEST"
    read_manifest(sealed.parent)
    whole = path.read_bytes() if path.exists() else b""
    kept = whole[:whole.rfind(b"\n") + 1]
    previous = hashlib.sha256(kept.splitlines(keepends=True)[-1]).hexdigest() if kept else ""
    commits = list(read_commits(sealed.with_suffix(".commit").read_bytes()))
    digest = hashlib.sha256(sealed.read_bytes()).hexdigest()
    line = json.dumps({"file": sealed.name, "rows": commits[-1].last_seq + 1, "bytes": sealed.stat().st_size,
                       "sha256": digest, "previous": previous}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, len(kept))
        os.lseek(descriptor, 0, os.SEEK_END)
        _write_all(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(sealed.parent)


class BlockReader:
    """Reads a segment block by block as its commit log grows, checking each before Arrow sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start, self._last_seq, self._records = 0, -1, 0
        self._schema: pa.Schema | None = None

    def read(self) -> Iterator[pa.RecordBatch]:
        """The record batches committed since the last call. Raises ShardError on damage."""
        try:
            with open(self.path.with_suffix(".commit"), "rb") as log:
                log.seek(self._records * COMMIT.size)
                commits = list(read_commits(log.read(), self._start, self._last_seq))
        except FileNotFoundError:
            return
        if not commits:
            return
        with self._open_data() as data:
            for commit in commits:
                data.seek(commit.start)
                block = data.read(commit.end - commit.start)
                if not commit.matches(block):
                    raise ShardError(f"{self.path}: rows {commit.last_seq - commit.rows + 1} to {commit.last_seq} "
                                     f"(bytes {commit.start} to {commit.end}) are damaged",
                                     "restore the file from a copy; the other blocks are readable")
                yield self._parse(block, commit)
                self._start, self._last_seq, self._records = commit.end, commit.last_seq, self._records + 1

    def _open_data(self) -> Any:
        try:
            return open(self.path, "rb")
        except FileNotFoundError:  # sealed since we looked
            self.path = self.path.with_suffix(".arrow")
            return open(self.path, "rb")

    def _parse(self, block: bytes, commit: Commit) -> pa.RecordBatch:
        stream = pa.BufferReader(block)
        if self._schema is None:
            stream.seek(FIRST_BLOCK)
            self._schema = pa.ipc.read_schema(stream)
            check_schema(self._schema, str(self.path))
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(stream), self._schema)
        if batch.num_rows != commit.rows:
            raise ShardError(f"{self.path}: a block holds {batch.num_rows} rows, its commit says {commit.rows}",
                             "restore the file from a copy")
        return batch


def read_blocks(path: Path) -> Iterator[pa.RecordBatch]:
    """All acknowledged record batches of one segment, open or sealed."""
    return BlockReader(path).read()
