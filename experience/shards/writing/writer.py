"""The segment writer: steps become blocks of segments, and are acknowledged when they are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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


class SegmentWriter:
    """Writes `buffer` to the disk, a block at a time, and notes in `acknowledged` what is there.

    Invariant: a step is in `buffer`, in a block on its way, or acknowledged; a call that fails
    brings the steps on their way back into `buffer`.
    """

    def __init__(
        self,
        directory: Path,
        schema: pa.Schema,
        acknowledged: dict[bytes, int],
        limits: Limits,
        blobs: Packer,
        commits: CommitQueue,
        sealer: Sealer,
        fence: Fence,
        reserve: Reserve,
        disk: Disk,
    ) -> None:
        self.buffer: list[Step] = []
        self.acknowledged, self.paused = acknowledged, False
        self._directory, self._schema, self._limits, self._disk = directory, schema, limits, disk
        self._blobs, self._commits, self._sealer = blobs, commits, sealer
        self._fence, self._reserve = fence, reserve
        self._deltas = PromptDeltas()
        self._number = 0
        self._segment: Segment | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left unacknowledged."""
        return not self.buffer and not self._commits.is_in_flight

    def launch(self) -> None:
        """Sends the buffer on its way, as soon as the block before it has landed.

        Raises FencedError if a newer incarnation took over, and OSError if the disk failed; a full
        disk pauses.
        """
        if not self._unless_full(self.seal_if_full):
            return
        # The thread must be idle while a file is opened or blobs are written.
        if self._segment is None or self._blobs.pending:
            self.land()
        if not self.buffer:
            return
        self._fence.check()
        self.paused = self._disk.free_bytes(self._directory) < self._limits.low_water_bytes
        if self.paused:
            self._unless_full(self._seal_crowded)
            self.paused = True
            return
        if not self._unless_full(self._blobs.flush):
            return
        try:
            self._sealer.mend()
            segment = self._segment = self._segment or self._open_segment()
        except OSError as error:
            self._give_up_segment()
            self._pause_or_raise(error)
            return
        encoded = segment.encoder.block(to_batch(self.buffer, self._schema, self._deltas))
        segment.encoded += len(encoded)
        self._commits.add(Block(encoded, self.buffer))
        self.buffer = []
        if self._commits.is_crowded:
            self._settle()
        self.land(wait=False)

    def land(self, wait: bool = True) -> None:
        """Acknowledges what has arrived, and sends what waited; `wait`: until nothing is left."""
        self._commits.take_off(self._segment)
        while self._commits.is_in_flight and (wait or self._commits.has_landed):
            self._settle()
            self._commits.take_off(self._segment)

    def _settle(self) -> None:
        """Waits for the flight and acknowledges it; what did not arrive is in the buffer again."""
        if not self._commits.is_in_flight:
            return
        failed = self._commits.wait()
        steps = self._commits.end_flight()
        try:
            if failed is not None:
                raise failed
            # A newer incarnation may have read the log before our records were there.
            self._fence.check()
        except BaseException as error:
            self.buffer[:0] = [*steps, *self._commits.take_back()]
            self._give_up_segment()
            if not isinstance(error, OSError):
                raise
            self._pause_or_raise(error)
            return
        for step in steps:
            self.acknowledged[step.stream_id] = step.t

    def seal_if_full(self) -> None:
        """Begins to seal a segment that is large or old enough; the one before it must be done."""
        self._sealer.settle(wait=False)
        segment = self._segment
        if segment is None or self._sealer.is_busy:
            return
        is_old = segment.commits and time.monotonic() - segment.begun >= self._limits.seal_seconds
        if segment.encoded >= self._limits.seal_bytes or is_old:
            self._begin_sealing(crowded=False)

    def seal(self, *, crowded: bool) -> Path | None:
        """Seals the open segment; the shard's path, or None if there was nothing to seal."""
        self._sealer.settle(wait=True)
        segment = self._begin_sealing(crowded=crowded)
        self._sealer.settle(wait=True)
        return None if segment is None else segment.path.with_suffix(".arrow")

    def _seal_crowded(self) -> None:
        self.seal(crowded=True)

    def _begin_sealing(self, *, crowded: bool) -> Segment | None:
        self.land()
        self._fence.check()
        self._sealer.mend()
        segment, self._segment = self._segment, None
        if segment is not None:
            self._sealer.begin(segment, crowded=crowded)
        return segment

    def _open_segment(self) -> Segment:
        self._reserve.keep()
        path = self._directory / f"seg-{self._fence.epoch:06d}-{self._number:06d}.open"
        self._number += 1
        segment = self._segment = Segment.create(path, self._schema, self._disk)
        self._disk.sync_directory(self._directory)
        self._deltas.forget()
        return segment

    def _give_up_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._sealer.give_up(segment)

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
        self._blobs.close()
        self._commits.close()
        self._sealer.close()
        self._reserve.free()
