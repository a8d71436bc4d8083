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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experience.errors import FencedError, ShardError
from experience.interrupts import whole
from experience.shards.record.encode import to_batch
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import schema
from experience.shards.redaction.redact import Redactor
from experience.shards.sealing import (
    BLOCK_ROWS,
    Encoder,
    is_worth_rewriting,
    publish,
    recover,
    remove_drafts,
    rewrite,
    seal_in_place,
    truncate_log,
)
from experience.shards.storage.blobs import Packer
from experience.shards.storage.blocks import Commit
from experience.shards.storage.disk import REAL, Disk
from experience.signal import SignalKind
from experience.step import Step

Durability = Literal["sync", "group", "os"]
_RESERVE = "RESERVE"
_RESERVE_BYTES = 4 << 20
"""Room for the footer of a segment of many small blocks, and for a longer manifest."""
_MOST_WAITING = 4
"""Blocks that may wait while others are on their way."""


@dataclass(eq=False)
class _Segment:
    """The segment being written. Invariant: its first `commits` records, and their blocks, are acknowledged."""

    path: Path
    data: int
    log: int
    encoder: Encoder
    end: int = 0
    last_seq: int = -1
    commits: int = 0
    encoded: int = 0
    begun: float = field(default_factory=time.monotonic)
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
    and no longer acknowledged; each commit tries again. A segment is sealed once it holds `seal_bytes` or is
    `seal_seconds` old, in a thread of its own while the next one is written; blocks that are small beside `block_rows`
    are rewritten then (0: never).
    """

    def __init__(
        self,
        directory: Path,
        catalogue: Mapping[str, SignalKind],
        *,
        durability: Durability = "group",
        commit_seconds: float = 0.05,
        batch_rows: int = 64,
        seal_bytes: int = 64 << 20,
        seal_seconds: float = 600.0,
        block_rows: int = BLOCK_ROWS,
        low_water_bytes: int = 64 << 20,
        metadata: Mapping[str, Any] | None = None,
        redactor: Redactor | None = None,
        disk: Disk = REAL,
    ) -> None:
        self.directory, self.durability, self.paused = directory, durability, False
        self._commit_seconds, self._batch_rows, self._seal_bytes = (
            commit_seconds,
            batch_rows,
            seal_bytes,
        )
        self._seal_seconds, self._block_rows = seal_seconds, block_rows
        self._low_water_bytes, self._disk = low_water_bytes, disk
        disk.make_directory(directory)
        self.epoch = _next_epoch(directory, disk)
        self.acknowledged: dict[bytes, int] = self._recover()
        self._next_t = {stream: t + 1 for stream, t in self.acknowledged.items()}
        self._redactor = redactor or Redactor.of_environment()
        told = self._redactor.value(metadata or {})
        self._schema = schema(catalogue, writer=directory.name, epoch=self.epoch, **told)
        self.blobs = Packer(directory, self.epoch, disk, durable=durability != "os")
        self._deltas = PromptDeltas()
        self._buffer: list[Step] = []
        self._oldest = 0.0
        self._number = 0
        self._segment: _Segment | None = None
        self._broken: list[_Segment] = []
        self._waiting: list[_Block] = []
        self._flight: _Flight | None = None
        self._sealing: tuple[_Segment, Future[None]] | None = None
        self._thread, self._sealer = disk.thread(), disk.thread()

    def _recover(self) -> dict[bytes, int]:
        """What earlier incarnations left, sealed. Raises ShardError if the disk is full even without the reserve."""
        try:
            return recover(self.directory, self._disk)
        except OSError as error:
            if error.errno not in _FULL or not self._free_reserve():
                raise
        return recover(self.directory, self._disk)

    def next_t(self, stream: bytes) -> int:
        return self._next_t.get(stream, 0)

    @whole
    def append(self, step: Step) -> bool:
        """Buffers `step`, without the secrets it may hold, and commits when due; True once it is acknowledged. A t
        seen before is dropped."""
        expected = self.next_t(step.stream_id)
        if step.t < expected:
            return True
        if step.t > expected:
            raise ShardError(
                f"stream {step.stream_id.hex()} jumps from t = {expected - 1} to {step.t}",
                "a stream's t is gapless; mark lost time with Boundary.GAP",
            )
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer.append(self._redactor.step(step))
        self._next_t[step.stream_id] = step.t + 1
        if self.durability == "sync":
            self.commit()
        elif len(self._buffer) >= self._batch_rows or self._is_due():
            self._launch()
        return not self._buffer and self._flight is None

    @whole
    def commit_if_due(self) -> bool:
        """Sends a buffer older than `commit_seconds` to the disk and acknowledges what has arrived there, without
        waiting for it; True if nothing is left unacknowledged."""
        self._land(wait=False)
        if self._is_due():
            self._launch()
        return not self._buffer and self._flight is None

    def _is_due(self) -> bool:
        return bool(self._buffer) and time.monotonic() - self._oldest >= self._commit_seconds

    @whole
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
        if not self._unless_full(self._seal_if_full):
            return
        if (
            self._segment is None or self.blobs.pending
        ):  # the thread is idle while a file is opened or blobs are kept
            self._land()
        if not self._buffer:
            return
        self._check_fence()
        self.paused = self._disk.free_bytes(self.directory) < self._low_water_bytes
        if self.paused:
            self._unless_full(lambda: self.seal(crowded=True))
            self.paused = True
            return
        if not self._unless_full(self.blobs.flush):
            return
        try:
            self._mend()
            segment = self._segment = self._segment or self._open_segment()
        except OSError as error:
            self._give_up_segment()
            self._pause_or_raise(error)
            return
        block = _Block(
            segment.encoder.block(to_batch(self._buffer, self._schema, self._deltas)), self._buffer
        )
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
            commit = Commit.of(
                block.encoded, end, last_seq + len(block.steps), len(block.steps), time.time_ns()
            )
            end, last_seq, records = commit.end, commit.last_seq, records + commit.pack()
            self._disk.write(segment.data, block.encoded)
            segment.sha256.update(block.encoded)
        self._sync(segment.data)
        self._disk.write(segment.log, records)
        self._sync(segment.log)
        segment.end, segment.last_seq, segment.commits = (
            end,
            last_seq,
            segment.commits + len(blocks),
        )

    def _settle(self) -> None:
        """Waits for what is on its way and acknowledges it; if it did not arrive, its steps are in the buffer again."""
        flight = self._flight
        if flight is None:
            return
        failed = (
            flight.landed.exception()
        )  # a signal that interrupts the wait leaves the flight on its way
        self._flight = None
        try:
            if failed is not None:
                raise failed
            self._check_fence()  # a newer one that came meanwhile may have read the log before our records were there
        except BaseException as error:
            self._buffer[:0] = [
                step for block in [*flight.blocks, *self._waiting] for step in block.steps
            ]
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
        """Begins to seal a segment that is large or old enough; the one before it must be done."""
        self._mend_after_sealing(wait=False)
        segment = self._segment
        if segment is None or self._sealing is not None:
            return
        is_old = segment.commits and time.monotonic() - segment.begun >= self._seal_seconds
        if segment.encoded >= self._seal_bytes or is_old:
            self._begin_sealing(crowded=False)

    def _unless_full(self, write: Callable[[], object]) -> bool:
        """Whether `write` was done; where the disk is full it was not, and the journal pauses."""
        try:
            write()
        except OSError as error:
            self._pause_or_raise(error)
            return False
        return True

    def _pause_or_raise(self, error: OSError) -> None:
        self.paused = error.errno in _FULL
        if not self.paused:
            raise error

    @whole
    def seal(self, *, crowded: bool = False) -> Path | None:
        """Closes the open segment into an immutable shard; None if there was nothing to seal. Raises as commit does,
        and OSError if the disk is full even without the reserve. `crowded`: in the room that there is."""
        self._mend_after_sealing(wait=True)
        segment = self._begin_sealing(crowded=crowded)
        self._mend_after_sealing(wait=True)
        return None if segment is None else segment.path.with_suffix(".arrow")

    def _begin_sealing(self, *, crowded: bool) -> _Segment | None:
        self._land()
        self._check_fence()
        self._mend()
        segment, self._segment = self._segment, None
        if segment is not None:
            self._sealing = segment, self._sealer.submit(self._seal, segment, crowded)
        return segment

    def _seal(self, segment: _Segment, crowded: bool) -> None:
        """In a thread: the segment's rows as few large blocks; where that fails or is not worth it, as they are."""
        rows = segment.last_seq + 1
        if (
            not crowded
            and self._block_rows
            and is_worth_rewriting(rows, segment.commits, self._block_rows)
        ):
            try:
                rewrite(segment.path, self._disk, self._check_fence, self._block_rows)
                return
            except FencedError:
                raise
            except (
                OSError,
                ShardError,
            ):  # no room for a copy, or a call failed: the footer alone needs less
                if self._disk.exists(segment.path.with_suffix(".arrow")):
                    raise  # it has its name; what is left to do is done by `_mend`
        self._check_fence()
        remove_drafts(segment.path, self._disk)
        footer = segment.encoder.footer()
        segment.sha256.update(footer)
        self._disk.write(segment.data, footer)
        self._disk.sync(segment.data)
        publish(
            segment.path,
            segment.path,
            rows,
            segment.end + len(footer),
            segment.sha256.hexdigest(),
            self._disk,
        )

    def _mend_after_sealing(self, wait: bool) -> None:
        """Takes note of a sealing that is done; one that failed is mended. Raises as seal does."""
        self._take_note_of_sealing(wait)
        self._mend()

    def _take_note_of_sealing(self, wait: bool) -> None:
        if self._sealing is None or not (wait or self._sealing[1].done()):
            return
        segment, done = self._sealing
        failed = done.exception()  # a signal that interrupts the wait leaves it on its way
        self._sealing = None
        with contextlib.suppress(OSError):
            self._close_descriptors(segment)
        if failed is None:
            return
        if not isinstance(failed, OSError):
            raise failed
        self._broken.append(segment)

    @whole
    def close(self) -> None:
        """Commits and seals. Raises ShardError if the disk is full and steps are left that nobody has, or the last
        segment could not be sealed: its steps are kept, and a resumed run seals it."""
        self.commit()
        if self._buffer:
            raise ShardError(
                f"{self.directory}: the disk is full; {len(self._buffer)} steps could not be kept",
                "free some space and resume the run",
            )
        try:
            self.seal()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise ShardError(
                f"{self.directory}: the disk is full; the last segment could not be sealed, its steps are "
                "kept",
                "free some space and resume the run",
            ) from error
        self.blobs.close()
        self._thread.shutdown()
        self._sealer.shutdown()
        self._free_reserve()

    def _free_reserve(self) -> bool:
        """Gives the reserve's room to what must be written now; whether there was one. It is taken again with the
        next segment."""
        try:
            self._disk.remove(self.directory / _RESERVE)
        except FileNotFoundError:
            return False
        return True

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
        segment = self._segment = _Segment(path, data, log, Encoder(self._schema))
        self._disk.sync_directory(self.directory)
        self._deltas.forget()
        return segment

    def _give_up_segment(self) -> None:
        """After a failed call the file's unacknowledged bytes are anybody's guess: it is not written to again."""
        segment, self._segment = self._segment, None
        if segment is not None:
            self._broken.append(segment)
            with contextlib.suppress(OSError):
                self._close_descriptors(segment)

    def _mend(self) -> None:
        """Seals segments that were given up, each at its last acknowledged byte. Until that works nothing else is
        written: rows that may be in them are written again only once they are surely not."""
        if not self._broken:
            return
        self._take_note_of_sealing(
            wait=True
        )  # one thread writes the manifest, and segments are sealed in order
        for broken in sorted(self._broken, key=lambda segment: segment.path):
            try:
                self._seal_broken(broken)
            except OSError as error:
                if error.errno not in _FULL or not self._free_reserve():
                    raise
                self._seal_broken(broken)
            self._broken.remove(broken)

    def _seal_broken(self, broken: _Segment) -> None:
        if not self._disk.exists(broken.path.with_suffix(".arrow")):
            truncate_log(broken.path, broken.commits, self._disk)
        seal_in_place(broken.path, self._disk)

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
            raise FencedError(
                f"{self.directory}: incarnation {self.epoch} was replaced by a newer one",
                "this process lost its place and must end",
            )

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
    epoch = 1 + max(
        (
            int(name.split("-")[1].partition(".")[0])
            for name in disk.names(directory)
            if name.startswith(("epoch-", "seg-"))
        ),
        default=-1,
    )
    while True:
        try:
            disk.close(disk.create(directory / f"epoch-{epoch:06d}"))
            disk.sync_directory(directory)
            return epoch
        except FileExistsError:
            epoch += 1
