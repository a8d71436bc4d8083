"""The journal: steps appended by one writer, acknowledged when they are on disk, sealed into shards.

A segment being written is `seg-<epoch>-<n>.open`, an Arrow IPC file without its footer, one record batch a commit,
and its commit log (see blocks). A commit is acknowledged after `fdatasync` of the data, then of the record, and a
last look at the fence. A thread waits for the disk; what is committed meanwhile shares the next pair of syncs (group
commit), and the caller's worlds go on. Sealing writes the footer, syncs, renames to `.arrow` (the commit log stays, to
check blocks by) and adds a line to the manifest.

Covers: kill -9 at any instant; power loss for acknowledged steps (where the disk honours fdatasync, and unless
durability is `os`); torn tails; damaged blocks (noticed); two incarnations of one writer (the older is refused before
it acknowledges); a write or sync that fails (never retried on the same file: the segment is closed at its last
acknowledged byte and a new one begun); a full disk (pauses; a reserve keeps room to seal).
Does not cover: a disk that lies about syncing; damage that is repaired by no copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from experience.errors import FencedError, ShardError
from experience.shards.blobs import Packer
from experience.shards.blocks import COMMIT, BlockReader, Commit, ends_the_stream, keys, read_blocks, read_commits
from experience.shards.cold import newest_snapshot, read_snapshot
from experience.shards.disk import REAL, Disk
from experience.shards.manifest import append_manifest, read_manifest
from experience.shards.redact import Redactor
from experience.shards.schema import PromptDeltas, schema, to_batch
from experience.signal import SignalKind
from experience.step import Step

Durability = Literal["sync", "group", "os"]
_RESERVE = "RESERVE"
_RESERVE_BYTES = 1 << 20
_MOST_WAITING = 4
"""Blocks that may wait while others are on their way."""


class _Encoder:
    """An Arrow file in the making: gives the bytes of each part as it comes."""

    def __init__(self, of: pa.Schema) -> None:
        self._pending: list[bytes] = []
        self._file = pa.BufferedOutputStream(pa.PythonFile(_Sink(self._pending), mode="w"), 1 << 20)
        self._writer = pa.ipc.new_file(self._file, of)

    def block(self, batch: pa.RecordBatch) -> bytes:
        self._writer.write_batch(batch)
        return self._take()

    def footer(self) -> bytes:
        self._writer.close()
        return self._take()

    def _take(self) -> bytes:
        self._file.flush()
        block = b"".join(self._pending)
        self._pending.clear()
        return block


class _Sink:
    """A file, as Arrow wants one, that is a list of what was written."""

    closed = False

    def __init__(self, parts: list[bytes]) -> None:
        self._parts, self._size = parts, 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int: return self._size
    def flush(self) -> None: ...
    def writable(self) -> bool: return True
    def readable(self) -> bool: return False
    def seekable(self) -> bool: return False
    def close(self) -> None: self.closed = True


@dataclass
class _Segment:
    """The segment being written. Invariant: its first `commits` records, and their blocks, are acknowledged."""

    path: Path
    data: int
    log: int
    encoder: _Encoder
    end: int = 0
    last_seq: int = -1
    commits: int = 0
    encoded: int = 0
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)


@dataclass(frozen=True)
class _Block:
    """Encoded steps, not yet on disk."""

    encoded: bytes
    steps: list[Step]


@dataclass(frozen=True)
class _Flight:
    """Blocks on their way to the disk, acknowledged once they have landed."""

    blocks: list[_Block]
    landed: Future[None]


class Journal:
    """Appends steps of any number of streams for one writer. Acknowledged steps survive kill -9.

    Invariant: `acknowledged[stream]` is the highest t whose row, and every row before it, with the blobs that they
    name, is on disk.
    Opening a journal fences older incarnations, recovers what they left, and continues their streams.
    While less than `low_water_bytes` are free, or a disk says it is full, `paused` is True: steps are kept in memory
    and no longer acknowledged; each commit tries again.
    """

    def __init__(self, directory: Path, catalogue: Mapping[str, SignalKind], *, durability: Durability = "group",
                 commit_seconds: float = 0.05, batch_rows: int = 64, seal_bytes: int = 256 << 20,
                 low_water_bytes: int = 64 << 20, metadata: Mapping[str, Any] | None = None,
                 redactor: Redactor | None = None, disk: Disk = REAL) -> None:
        self.directory, self.durability, self.paused = directory, durability, False
        self._commit_seconds, self._batch_rows, self._seal_bytes = commit_seconds, batch_rows, seal_bytes
        self._low_water_bytes, self._disk = low_water_bytes, disk
        disk.make_directory(directory)
        self.epoch = _next_epoch(directory, disk)
        self.acknowledged: dict[bytes, int] = recover(directory, disk)
        self._next_t = {stream: t + 1 for stream, t in self.acknowledged.items()}
        self._schema = schema(catalogue, writer=directory.name, epoch=self.epoch, **dict(metadata or {}))
        self._redactor = redactor or Redactor.of_environment()
        self.blobs = Packer(directory, self.epoch, disk, durable=durability != "os")
        self._deltas = PromptDeltas()
        self._buffer: list[Step] = []
        self._oldest = 0.0
        self._number = 0
        self._segment: _Segment | None = None
        self._broken: _Segment | None = None
        self._waiting: list[_Block] = []
        self._flight: _Flight | None = None
        self._thread = disk.thread()

    def next_t(self, stream: bytes) -> int:
        return self._next_t.get(stream, 0)

    def append(self, step: Step) -> bool:
        """Buffers `step`, without the secrets it may hold, and commits when due; True once it is acknowledged. A t
        seen before is dropped."""
        expected = self.next_t(step.stream_id)
        if step.t < expected:
            return True
        if step.t > expected:
            raise ShardError(f"stream {step.stream_id.hex()} jumps from t = {expected - 1} to {step.t}",
                             "a stream's t is gapless; mark lost time with Boundary.GAP")
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer.append(self._redactor.step(step))
        self._next_t[step.stream_id] = step.t + 1
        if self.durability == "sync":
            self.commit()
        elif len(self._buffer) >= self._batch_rows or self._is_due():
            self._launch()
        return not self._buffer and self._flight is None

    def commit_if_due(self) -> bool:
        """Sends a buffer older than `commit_seconds` to the disk and acknowledges what has arrived there, without
        waiting for it; True if nothing is left unacknowledged."""
        self._land(wait=False)
        if self._is_due():
            self._launch()
        return not self._buffer and self._flight is None

    def _is_due(self) -> bool:
        return bool(self._buffer) and time.monotonic() - self._oldest >= self._commit_seconds

    def commit(self) -> None:
        """Puts all that was appended on disk and acknowledges it.

        A full disk pauses. Raises FencedError if a newer incarnation took over, OSError if the disk failed: what was
        not acknowledged stays in the buffer, and the next commit tries it in a new segment.
        """
        self._launch()
        self._land()
        with contextlib.suppress(OSError):  # what it holds is safe; the next commit seals it
            self._seal_if_full()

    def _launch(self) -> None:
        """Sends the buffer on its way to the disk, as soon as the block before it has landed. Raises as commit does."""
        self._seal_if_full()
        if self._segment is None or self.blobs.pending:  # the thread is idle while a file is opened or blobs are kept
            self._land()
        if not self._buffer:
            return
        self._check_fence()
        self.paused = self._disk.free_bytes(self.directory) < self._low_water_bytes
        if self.paused:
            self.seal()
            return
        try:
            self.blobs.flush()
        except OSError as error:
            self._pause_or_raise(error)
            return
        try:
            self._mend()
            segment = self._segment = self._segment or self._open_segment()
        except OSError as error:
            self._give_up_segment()
            self._pause_or_raise(error)
            return
        block = _Block(segment.encoder.block(to_batch(self._buffer, self._schema, self._deltas)), self._buffer)
        segment.encoded += len(block.encoded)
        self._waiting.append(block)
        self._buffer = []
        if len(self._waiting) >= _MOST_WAITING:
            self._settle()
        self._land(wait=False)

    def _land(self, wait: bool = True) -> None:
        """Acknowledges what has arrived on the disk, and sends what waited; with `wait`, until nothing is left."""
        self._take_off()
        while self._flight is not None and (wait or self._flight.landed.done()):
            self._settle()
            self._take_off()

    def _take_off(self) -> None:
        if self._flight is None and self._waiting:
            blocks, self._waiting = self._waiting, []
            assert self._segment is not None
            self._flight = _Flight(blocks, self._thread.submit(self._write, self._segment, blocks))

    def _write(self, segment: _Segment, blocks: list[_Block]) -> None:
        """In the thread: the blocks, then the records that make them count."""
        end, last_seq, records = segment.end, segment.last_seq, b""
        for block in blocks:
            commit = Commit.of(block.encoded, end, last_seq + len(block.steps), len(block.steps), time.time_ns())
            end, last_seq, records = commit.end, commit.last_seq, records + commit.pack()
            self._disk.write(segment.data, block.encoded)
            segment.sha256.update(block.encoded)
        self._sync(segment.data)
        self._disk.write(segment.log, records)
        self._sync(segment.log)
        segment.end, segment.last_seq, segment.commits = end, last_seq, segment.commits + len(blocks)

    def _settle(self) -> None:
        """Waits for what is on its way and acknowledges it; if it did not arrive, its steps are in the buffer again."""
        flight = self._flight
        if flight is None:
            return
        failed = flight.landed.exception()  # a signal that interrupts the wait leaves the flight on its way
        self._flight = None
        try:
            if failed is not None:
                raise failed
            self._check_fence()  # a newer one that came meanwhile may have read the log before our records were there
        except BaseException as error:
            self._buffer[:0] = [step for block in [*flight.blocks, *self._waiting] for step in block.steps]
            self._waiting.clear()  # they were encoded for the segment that is given up
            self._give_up_segment()
            if not isinstance(error, OSError):
                raise
            self._pause_or_raise(error)
            return
        for block in flight.blocks:
            for step in block.steps:
                self.acknowledged[step.stream_id] = step.t

    def _seal_if_full(self) -> None:
        if self._segment is not None and self._segment.encoded >= self._seal_bytes:
            self.seal()

    def _pause_or_raise(self, error: OSError) -> None:
        self.paused = error.errno in _FULL
        if not self.paused:
            raise error

    def seal(self) -> Path | None:
        """Closes the open segment into an immutable shard; None if there was nothing to seal. Raises as commit does."""
        self._land()
        self._check_fence()
        self._mend()
        segment = self._segment
        if segment is None:
            return None
        footer = segment.encoder.footer()
        segment.sha256.update(footer)
        try:
            self._disk.write(segment.data, footer)
            self._disk.sync(segment.data)
            self._close_descriptors(segment)
            _publish(segment.path, segment.path, segment.last_seq + 1, segment.end + len(footer),
                     segment.sha256.hexdigest(), self._disk)
        except OSError:
            self._give_up_segment()
            self._mend()
        self._segment = None
        return segment.path.with_suffix(".arrow")

    def close(self) -> None:
        """Commits and seals. Raises ShardError if the disk is full and steps are left that nobody has."""
        self.commit()
        if self._buffer:
            raise ShardError(f"{self.directory}: the disk is full; {len(self._buffer)} steps could not be kept",
                             "free some space and resume the run")
        self.seal()
        self.blobs.close()
        self._thread.shutdown()
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(self.directory / _RESERVE)

    def _open_segment(self) -> _Segment:
        self._keep_reserve()
        path = self.directory / f"seg-{self.epoch:06d}-{self._number:06d}.open"
        self._number += 1
        data = self._disk.create(path)
        try:
            log = self._disk.create(path.with_suffix(".commit"))
        except OSError:
            self._disk.close(data)
            self._disk.remove(path)
            raise
        segment = self._segment = _Segment(path, data, log, _Encoder(self._schema))
        self._disk.sync_directory(self.directory)
        self._deltas.forget()
        return segment

    def _give_up_segment(self) -> None:
        """After a failed call the file's unacknowledged bytes are anybody's guess: it is not written to again."""
        segment, self._segment = self._segment, None
        if segment is not None:
            self._broken = segment
            with contextlib.suppress(OSError):
                self._close_descriptors(segment)

    def _mend(self) -> None:
        """Seals a segment that was given up, at its last acknowledged byte. Until that works nothing else is written:
        rows that may be in it are written again only once they are surely not."""
        broken = self._broken
        if broken is None:
            return
        try:
            _truncate_log(broken.path, broken.commits, self._disk)
            _seal_in_place(broken.path, self._disk)
        except OSError as error:
            if error.errno in _FULL:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.remove(self.directory / _RESERVE)  # room for the footer, at the next try
            raise
        self._broken = None

    def _keep_reserve(self) -> None:
        if _RESERVE in self._disk.names(self.directory):
            return
        descriptor = self._disk.create(self.directory / _RESERVE)
        try:
            self._disk.write(descriptor, bytes(_RESERVE_BYTES if self._low_water_bytes else 0))
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.remove(self.directory / _RESERVE)
            raise
        finally:
            self._disk.close(descriptor)

    def _check_fence(self) -> None:
        if self._disk.exists(self.directory / f"epoch-{self.epoch + 1:06d}"):
            raise FencedError(f"{self.directory}: incarnation {self.epoch} was replaced by a newer one",
                              "this process lost its place and must end")

    def _close_descriptors(self, segment: _Segment) -> None:
        for name in ("data", "log"):
            descriptor = getattr(segment, name)
            setattr(segment, name, -1)
            if descriptor >= 0:
                self._disk.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        if self.durability != "os":
            self._disk.sync(descriptor)


_FULL = (28, 122)  # ENOSPC, EDQUOT


def _next_epoch(directory: Path, disk: Disk) -> int:
    """Takes the next incarnation number; creating its file exclusively is the fence."""
    epoch = 1 + max((int(name.split("-")[1].partition(".")[0]) for name in disk.names(directory)
                     if name.startswith(("epoch-", "seg-"))), default=-1)
    while True:
        try:
            disk.close(disk.create(directory / f"epoch-{epoch:06d}"))
            disk.sync_directory(directory)
            return epoch
        except FileExistsError:
            epoch += 1


def recover(directory: Path, disk: Disk = REAL) -> dict[bytes, int]:
    """Seals what earlier incarnations left open, keeping exactly the acknowledged rows.

    Returns the last acknowledged t per stream, over all shards of this writer, hot and cold.
    Raises ShardError if an acknowledged block is damaged: that is never repaired silently.
    """
    names = disk.names(directory)
    for name in names:
        path = directory / name
        if path.suffix in (".draft", ".log-draft"):
            disk.remove(path)
        elif path.suffix == ".open" and path.with_suffix(".arrow").name in names:
            disk.remove(path)  # killed after its copy was sealed
        elif path.suffix == ".open":
            _seal_copy(path, disk)
    lines = {line["file"]: line for line in read_manifest(directory, disk)}
    shards = [directory / name for name in disk.names(directory) if name.endswith(".arrow")]
    snapshot = read_snapshot(directory.parent, disk)
    last = snapshot.last(directory.name)
    lost = [name for name in lines if directory / name not in shards and f"{directory.name}/{name}" not in
            snapshot.replaced]
    if lost and newest_snapshot(directory.parent, disk) == snapshot.version:
        raise ShardError(f"{directory / lost[0]} is missing: the manifest names it", "restore the file from a copy")
    for path in shards:
        if f"{directory.name}/{path.name}" in snapshot.replaced:
            continue
        line = lines.get(path.name)
        try:
            for batch in read_blocks(path, disk, line["rows"] if line else None):
                for stream, t in keys(batch):
                    last[stream] = max(t, last.get(stream, -1))
        except FileNotFoundError:
            if newest_snapshot(directory.parent, disk) == snapshot.version:
                raise
            return recover(directory, disk)  # the shard went cold meanwhile
        if line is None:
            _add_to_manifest(path, disk)
    return last


def _seal_copy(path: Path, disk: Disk) -> None:
    """Seals what another incarnation left open, as a copy: should it still be writing, it writes to the old files."""
    log = path.with_suffix(".commit")
    commits = list(read_commits(disk.read(log), where=str(log))) if disk.exists(log) else []
    if not commits:  # nothing was ever acknowledged
        disk.remove(path)
        if disk.exists(log):
            disk.remove(log)
        return
    footer = _footer(path, disk)
    disk.write_file(path.with_suffix(".log-draft"), [b"".join(c.pack() for c in commits)])
    parts = chain((disk.read(path, c.start, c.end) for c in commits), [footer])
    draft, whole = path.with_suffix(".draft"), hashlib.sha256()
    disk.write_file(draft, _hashing(parts, whole))
    disk.rename(path.with_suffix(".log-draft"), log)
    disk.sync_directory(path.parent)
    _publish(path, draft, commits[-1].last_seq + 1, commits[-1].end + len(footer), whole.hexdigest(), disk)
    disk.remove(path)


def _hashing(parts: Iterable[bytes], whole: hashlib._Hash) -> Iterator[bytes]:
    """`parts` as they are, each added to `whole` on its way."""
    for part in parts:
        whole.update(part)
        yield part


def _seal_in_place(path: Path, disk: Disk) -> None:
    """Seals our own segment at its last commit; it needs room for the footer alone."""
    log, sealed = path.with_suffix(".commit"), path.with_suffix(".arrow")
    commits = list(read_commits(disk.read(log), where=str(log)))
    if not commits:
        for leftover in (path, log):
            if disk.exists(leftover):
                disk.remove(leftover)
        return
    if disk.exists(sealed):  # the failure came after the rename
        disk.sync_directory(path.parent)
        return
    footer = _footer(path, disk)
    with disk.appending(path) as descriptor:
        disk.truncate(descriptor, commits[-1].end)
        disk.write(descriptor, footer)
        disk.sync(descriptor)
    whole = hashlib.sha256(disk.read(path)).hexdigest()
    _publish(path, path, commits[-1].last_seq + 1, commits[-1].end + len(footer), whole, disk)


def _add_to_manifest(path: Path, disk: Disk) -> None:
    """A shard of an older format, whose line was written after its name: killed in between, it has none yet."""
    commits = list(read_commits(disk.read(path.with_suffix(".commit")), where=str(path)))
    if not commits or not ends_the_stream(path, commits[-1].end, disk):
        raise ShardError(f"{path}: its commit log and the manifest lack rows that it holds",
                         "restore the manifest from a copy")
    append_manifest(path, commits[-1].last_seq + 1, disk.size(path), hashlib.sha256(disk.read(path)).hexdigest(), disk)


def _truncate_log(path: Path, commits: int, disk: Disk) -> None:
    """Takes back a record that may be there although its commit failed."""
    with disk.appending(path.with_suffix(".commit")) as log:
        disk.truncate(log, commits * COMMIT.size)
        disk.sync(log)


def _footer(path: Path, disk: Disk) -> bytes:
    """What the writer would have put behind the committed blocks: the same batches give the same bytes, then it."""
    encoder = None
    for block in BlockReader(path, disk).read():
        encoder = encoder or _Encoder(block.batch.schema)
        if encoder.block(block.batch) != block.data:
            raise ShardError(f"{path}: sealing would change acknowledged bytes", "keep the file and report it")
    assert encoder is not None
    return encoder.footer()


def _publish(path: Path, contents: Path, rows: int, size: int, sha256: str, disk: Disk) -> Path:
    """Gives `contents`, which is on disk, the sealed name of segment `path`."""
    sealed = path.with_suffix(".arrow")
    append_manifest(sealed, rows, size, sha256, disk)  # first: a sealed shard without a line is one whose line is lost
    disk.rename(contents, sealed)  # a reader sees a whole shard or an open segment, never half of one
    disk.sync_directory(path.parent)
    return sealed
