"""The segment writer: puts steps into segments, and acknowledges them once they are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from experience.shards.record.encode import to_batch
from experience.shards.record.prompts import PromptDeltas
from experience.shards.storage.blobs import Packer
from experience.shards.storage.disk import Disk
from experience.shards.writing.fence import Fence
from experience.shards.writing.reserve import Reserve, is_full
from experience.shards.writing.sealer import Sealer
from experience.shards.writing.segment import Block, CommitQueue, Segment
from experience.step import Step


@dataclass(frozen=True)
class Limits:
    """When a segment is sealed, and how much must be free on the disk to write on."""

    seal_bytes: int
    seal_seconds: float
    low_water_bytes: int


@dataclass(eq=False)
class SegmentWriter:
    """Writes `buffer` to the disk, a block at a time, and notes in `acknowledged` what is there.

    Invariant: a step is in `buffer`, in a block on its way, or acknowledged.
    """

    directory: Path
    schema: pa.Schema
    acknowledged: dict[bytes, int]
    limits: Limits
    blobs: Packer
    commits: CommitQueue
    sealer: Sealer
    fence: Fence
    reserve: Reserve
    disk: Disk
    paused: bool = False
    buffer: list[Step] = field(default_factory=list)
    _deltas: PromptDeltas = field(default_factory=PromptDeltas)
    _number: int = 0
    _segment: Segment | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left unacknowledged."""
        return not self.buffer and not self.commits.is_in_flight

    def launch(self) -> None:
        """Sends the buffer on its way, as soon as the block before it has landed.

        Raises as `Journal.commit` does; a full disk pauses.
        """
        if not self._unless_full(self.seal_if_full):
            return
        # The thread must be idle while a file is opened or blobs are written.
        if self._segment is None or self.blobs.pending:
            self.land()
        if not self.buffer:
            return
        self.fence.check()
        self.paused = self.disk.free_bytes(self.directory) < self.limits.low_water_bytes
        if self.paused:
            self._unless_full(lambda: self.seal(crowded=True))
            self.paused = True
            return
        if not self._unless_full(self.blobs.flush):
            return
        try:
            self.sealer.mend()
            segment = self._segment = self._segment or self._open_segment()
        except OSError as error:
            self._give_up_segment()
            self._pause_or_raise(error)
            return
        encoded = segment.encoder.block(to_batch(self.buffer, self.schema, self._deltas))
        segment.encoded += len(encoded)
        self.commits.add(Block(encoded, self.buffer))
        self.buffer = []
        if self.commits.is_crowded:
            self._settle()
        self.land(wait=False)

    def land(self, wait: bool = True) -> None:
        """Acknowledges what has arrived, and sends what waited; `wait`: until nothing is left."""
        self.commits.take_off(self._segment)
        while self.commits.is_in_flight and (wait or self.commits.has_landed):
            self._settle()
            self.commits.take_off(self._segment)

    def _settle(self) -> None:
        """Waits for the flight and acknowledges it; what did not arrive is in the buffer again."""
        if not self.commits.is_in_flight:
            return
        failed = self.commits.wait()
        steps = self.commits.end_flight()
        try:
            if failed is not None:
                raise failed
            # A newer incarnation may have read the log before our records were there.
            self.fence.check()
        except BaseException as error:
            self.buffer[:0] = [*steps, *self.commits.take_back()]
            self._give_up_segment()
            if not isinstance(error, OSError):
                raise
            self._pause_or_raise(error)
            return
        for step in steps:
            self.acknowledged[step.stream_id] = step.t

    def seal_if_full(self) -> None:
        """Begins to seal a segment that is large or old enough; the one before it must be done."""
        self.sealer.settle(wait=False)
        segment = self._segment
        if segment is None or self.sealer.is_busy:
            return
        is_old = segment.commits and time.monotonic() - segment.begun >= self.limits.seal_seconds
        if segment.encoded >= self.limits.seal_bytes or is_old:
            self._begin_sealing(crowded=False)

    def seal(self, *, crowded: bool) -> Path | None:
        """Seals the open segment; the shard's path, or None if there was nothing to seal."""
        self.sealer.settle(wait=True)
        segment = self._begin_sealing(crowded=crowded)
        self.sealer.settle(wait=True)
        return None if segment is None else segment.path.with_suffix(".arrow")

    def _begin_sealing(self, *, crowded: bool) -> Segment | None:
        self.land()
        self.fence.check()
        self.sealer.mend()
        segment, self._segment = self._segment, None
        if segment is not None:
            self.sealer.begin(segment, crowded=crowded)
        return segment

    def _open_segment(self) -> Segment:
        self.reserve.keep()
        path = self.directory / f"seg-{self.fence.epoch:06d}-{self._number:06d}.open"
        self._number += 1
        segment = self._segment = Segment.create(path, self.schema, self.disk)
        self.disk.sync_directory(self.directory)
        self._deltas.forget()
        return segment

    def _give_up_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self.sealer.give_up(segment)

    def _unless_full(self, write: Callable[[], object]) -> bool:
        """Whether `write` was done; where the disk is full it was not, and the writer pauses."""
        try:
            write()
        except OSError as error:
            self._pause_or_raise(error)
            return False
        return True

    def _pause_or_raise(self, error: OSError) -> None:
        self.paused = is_full(error)
        if not self.paused:
            raise error

    def close(self) -> None:
        """Ends the threads and gives the reserve back; all was committed and sealed before."""
        self.blobs.close()
        self.commits.close()
        self.sealer.close()
        self.reserve.free()
