"""The segment being written: its two files, and the blocks on their way into them."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from experience.shards.storage.blocks import Commit
from experience.shards.storage.disk import Disk
from experience.shards.writing.sealing import Encoder
from experience.step import Step

_MOST_WAITING = 4
"""Blocks that may wait while others are on their way."""


@dataclass(eq=False)
class Segment:
    """Descriptors of a segment's data and commit log, and how far they are written.

    Invariant: its first `commits` records, and their blocks, are acknowledged.
    """

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

    @classmethod
    def create(cls, path: Path, schema: pa.Schema, disk: Disk) -> Segment:
        """A new segment. Raises OSError if the disk failed; then its data file is not there."""
        data = disk.create(path)
        try:
            log = disk.create(path.with_suffix(".commit"))
        except OSError:
            disk.close(data)
            disk.remove(path)
            raise
        return cls(path, data, log, Encoder(schema))

    def close(self, disk: Disk) -> None:
        """Closes both descriptors, each once."""
        data, self.data = self.data, -1
        if data >= 0:
            disk.close(data)
        log, self.log = self.log, -1
        if log >= 0:
            disk.close(log)


@dataclass(frozen=True)
class Block:
    """Encoded steps, not yet on disk."""

    encoded: bytes
    steps: list[Step]


@dataclass(frozen=True)
class _Flight:
    """Blocks on their way to the disk; `landed` is done when they are there, or failed."""

    blocks: list[Block]
    landed: Future[None]


class CommitQueue:
    """Sends blocks to the disk by a thread; blocks that come meanwhile share the next two syncs."""

    def __init__(self, disk: Disk, *, durable: bool) -> None:
        self._disk, self._durable = disk, durable
        self._waiting: list[Block] = []
        self._flight: _Flight | None = None
        self._thread = disk.thread()

    @property
    def is_in_flight(self) -> bool:
        return self._flight is not None

    @property
    def has_landed(self) -> bool:
        return self._flight is not None and self._flight.landed.done()

    @property
    def is_crowded(self) -> bool:
        return len(self._waiting) >= _MOST_WAITING

    def add(self, block: Block) -> None:
        self._waiting.append(block)

    def take_off(self, segment: Segment | None) -> None:
        """Sends the waiting blocks into `segment`, unless others are still on their way."""
        if self._flight is None and self._waiting:
            assert segment is not None
            blocks, self._waiting = self._waiting, []
            self._flight = _Flight(blocks, self._thread.submit(self._write, segment, blocks))

    def wait(self) -> BaseException | None:
        """Waits for the flight; the error with which it failed, None if it landed.

        A signal that interrupts the wait leaves the flight on its way.
        """
        assert self._flight is not None
        return self._flight.landed.exception()

    def end_flight(self) -> list[Step]:
        """The steps of the flight, which has ended."""
        flight, self._flight = self._flight, None
        assert flight is not None
        return [step for block in flight.blocks for step in block.steps]

    def take_back(self) -> list[Step]:
        """The steps that wait. Their blocks were encoded for a segment that is given up."""
        waiting, self._waiting = self._waiting, []
        return [step for block in waiting for step in block.steps]

    def close(self) -> None:
        self._thread.shutdown()

    def _write(self, segment: Segment, blocks: list[Block]) -> None:
        """In the thread: the blocks, then the records that make them count."""
        end, last_seq, records = segment.end, segment.last_seq, b""
        for block in blocks:
            rows = len(block.steps)
            commit = Commit.of(block.encoded, end, last_seq + rows, rows, time.time_ns())
            end, last_seq = commit.end, commit.last_seq
            records += commit.pack()
            self._disk.write(segment.data, block.encoded)
            segment.sha256.update(block.encoded)
        self._sync(segment.data)
        self._disk.write(segment.log, records)
        self._sync(segment.log)
        segment.end, segment.last_seq = end, last_seq
        segment.commits += len(blocks)

    def _sync(self, descriptor: int) -> None:
        if self._durable:
            self._disk.sync(descriptor)
