"""The journal: one writer's steps, acknowledged when they are on disk, sealed into shards.

A segment being written is `seg-<epoch>-<n>.open`, an Arrow IPC file without its footer, one record
batch a commit, and its commit log (see blocks). A commit is acknowledged after `fdatasync` of the
data, then of the record, and a last look at the fence. A thread waits for the disk; what is
committed meanwhile shares the next pair of syncs (group commit), and the caller's worlds go on.
Sealing writes the footer, syncs, renames to `.arrow` (the commit log stays, to check blocks by) and
adds a line to the manifest.

Covers: kill -9 at any instant; power loss for acknowledged steps (where the disk honours fdatasync,
and unless durability is `os`); torn tails; damaged blocks (noticed); two incarnations of one writer
(the older is refused before it acknowledges); a write or sync that fails (never retried on the same
file: the segment is closed at its last acknowledged byte and a new one begun); a full disk (pauses;
a reserve keeps room to seal).
Does not cover: a disk that lies about syncing; damage that is repaired by no copy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experience.errors import ShardError
from experience.interrupts import whole
from experience.shards.record.schema import schema
from experience.shards.redaction.redact import Redactor
from experience.shards.storage.blobs import Packer
from experience.shards.storage.disk import REAL, Disk
from experience.shards.writing.fence import Fence
from experience.shards.writing.reserve import RESERVE_BYTES, Reserve, is_full
from experience.shards.writing.sealer import Sealer
from experience.shards.writing.sealing import BLOCK_ROWS, recover
from experience.shards.writing.segment import CommitQueue
from experience.shards.writing.writer import Limits, SegmentWriter
from experience.signal import SignalKind
from experience.step import Step

Durability = Literal["sync", "group", "os"]


class Journal:
    """Appends steps of any number of streams for one writer. Acknowledged steps survive kill -9.

    Invariant: `acknowledged[stream]` is the highest t whose row, and every row before it, with the
    blobs that they name, is on disk.
    Opening a journal fences older incarnations, recovers what they left, and continues their
    streams. While less than `low_water_bytes` are free, or a disk says it is full, `paused` is
    True: steps are kept in memory and no longer acknowledged; each commit tries again. A segment is
    sealed once it holds `seal_bytes` or is `seal_seconds` old, in a thread of its own while the
    next one is written; blocks that are small beside `block_rows` are rewritten then (0: never).
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
        self.directory, self.durability = directory, durability
        self._commit_seconds, self._batch_rows = commit_seconds, batch_rows
        disk.make_directory(directory)
        fence = Fence(directory, disk)
        reserve = Reserve(directory, RESERVE_BYTES if low_water_bytes else 0, disk)
        self.epoch = fence.epoch
        self.acknowledged = _recovered(directory, reserve, disk)
        self._next_t = {stream: t + 1 for stream, t in self.acknowledged.items()}
        self._redactor = redactor or Redactor.of_environment()
        given = self._redactor.value(metadata or {})
        about = {"writer": directory.name, "epoch": self.epoch, **given}
        self.blobs = Packer(directory, self.epoch, disk, durable=durability != "os")
        self._oldest = 0.0
        self._writer = SegmentWriter(
            directory,
            schema(catalogue, **about),
            self.acknowledged,
            Limits(seal_bytes, seal_seconds, low_water_bytes),
            self.blobs,
            CommitQueue(disk, durable=durability != "os"),
            Sealer(disk, fence, reserve, block_rows),
            fence,
            reserve,
            disk,
        )

    @property
    def paused(self) -> bool:
        """Whether the disk is too full to acknowledge steps."""
        return self._writer.paused

    def next_t(self, stream: bytes) -> int:
        return self._next_t.get(stream, 0)

    @whole
    def append(self, step: Step, *, with_next: bool = False) -> bool:
        """Buffers `step`, without the secrets it may hold, and commits when due.

        with_next: nothing is committed before the next step is appended, so that either both are
        on disk after a crash, or neither.

        True once it is acknowledged. A t seen before is dropped. Raises ShardError if rows before
        the step are missing, and as `commit` does.
        """
        expected = self.next_t(step.stream_id)
        if step.t < expected:
            return True
        if step.t > expected:
            raise ShardError(
                f"stream {step.stream_id.hex()} jumps from t = {expected - 1} to {step.t}",
                "a stream's t is gapless; mark lost time with Boundary.GAP",
            )
        if not self._writer.buffer:
            self._oldest = time.monotonic()
        self._writer.buffer.append(self._redactor.step(step))
        self._next_t[step.stream_id] = step.t + 1
        if with_next:
            pass
        elif self.durability == "sync":
            self.commit()
        elif len(self._writer.buffer) >= self._batch_rows or self._is_due():
            self._writer.launch()
        return self._writer.is_settled

    @whole
    def commit_if_due(self) -> bool:
        """Sends a buffer older than `commit_seconds` to the disk, without waiting for it.

        Acknowledges what has arrived there; True if nothing is left unacknowledged.
        """
        self._writer.land(wait=False)
        if self._is_due():
            self._writer.launch()
        return self._writer.is_settled

    def _is_due(self) -> bool:
        waited = time.monotonic() - self._oldest
        return bool(self._writer.buffer) and waited >= self._commit_seconds

    @whole
    def commit(self) -> None:
        """Puts all that was appended on disk and acknowledges it.

        A full disk pauses. Raises FencedError if a newer incarnation took over, OSError if the disk
        failed: what was not acknowledged stays in the buffer, and the next commit tries it in a new
        segment.
        """
        self._writer.launch()
        self._writer.land()
        with contextlib.suppress(OSError):  # what it holds is safe; the next commit seals it
            self._writer.seal_if_full()

    @whole
    def seal(self, *, crowded: bool = False) -> Path | None:
        """Closes the open segment into an immutable shard; None if there was nothing to seal.

        `crowded`: without room for a copy. Raises as `commit` does, and OSError if the disk is full
        even without the reserve.
        """
        return self._writer.seal(crowded=crowded)

    @whole
    def close(self) -> None:
        """Commits and seals.

        Raises ShardError if the disk is full and steps are left that nobody has, or the last
        segment could not be sealed: its steps are kept, and a resumed run seals it.
        """
        self.commit()
        if self._writer.buffer:
            raise ShardError(
                f"{self.directory}: the disk is full; {len(self._writer.buffer)} steps could not "
                "be kept",
                "free some space and resume the run",
            )
        try:
            self.seal()
        except OSError as error:
            if not is_full(error):
                raise
            raise ShardError(
                f"{self.directory}: the disk is full; the last segment could not be sealed, its "
                "steps are kept",
                "free some space and resume the run",
            ) from error
        self._writer.close()


def _recovered(directory: Path, reserve: Reserve, disk: Disk) -> dict[bytes, int]:
    """Seals what earlier incarnations left; by stream, the last t that is on disk.

    Raises OSError if the disk is full even without the reserve, and as `recover` does.
    """
    try:
        return recover(directory, disk)
    except OSError as error:
        if not is_full(error) or not reserve.free():
            raise
    return recover(directory, disk)
