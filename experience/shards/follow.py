"""Following: every committed row once, in the order of its stream, while the store grows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.cold.snapshot import Snapshot
from experience.shards.record.decode import to_steps
from experience.shards.record.prompts import PromptDeltas
from experience.shards.storage.blocks import Block, BlockReader, keys
from experience.shards.storage.disk import REAL, Disk
from experience.shards.view import Segment, View, Viewer
from experience.step import Step

PATIENCE_SECONDS = 30.0
"""How long a store may go on changing under one pass before the pass is given up."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows committed since the last pass: a block of `reader`, or a batch of a cold `part`."""

    rows: pa.RecordBatch
    reader: BlockReader | None = None
    block: Block | None = None
    part: Part | None = None


class Follower:
    """Reads the rows committed since it read last: all of a store's, or those of one writer.

    Invariants: every committed row is given exactly once, rows of a stream in order of t. `given`
    names the last t of each stream that `steps` gave, or that `note` was called for; every row
    before it was given too.
    """

    def __init__(self, store: Path, writer: str = "", disk: Disk = REAL) -> None:
        self.given: dict[bytes, int] = {}
        self.snapshot = Snapshot()
        self.passes = 0
        self._store, self._writer, self._disk = store, writer, disk
        self._viewer = Viewer(store, writer, disk)
        self._readers: dict[str, BlockReader] = {}
        self._deltas: dict[BlockReader, PromptDeltas] = defaultdict(PromptDeltas)
        self._parts_given: set[str] = set()
        self._read_whole: set[str] = set()

    def resume(self, given: Mapping[bytes, int], segments: Iterable[str], of: Snapshot) -> None:
        """Goes on after rows that were read by another follower, at the snapshot `of`.

        given: as `self.given`. segments: "writer/seg-…" of the sealed segments that it read whole.
        """
        self.given, self._read_whole, self.snapshot = dict(given), set(segments), of

    def steps(self) -> Iterator[list[Step]]:
        """The new steps, a block at a time. Raises ShardError if one is missing."""
        # A prompt is stored as what is new since the row before it in the same file. Each file
        # therefore has its own deltas; those of growing segments live on between two calls.
        of_part: dict[str, PromptDeltas] = defaultdict(PromptDeltas)
        for found in self.found():
            if found.reader is not None:
                deltas = self._deltas[found.reader]
            else:
                deltas = of_part[found.part.file if found.part else ""]
            decoded = to_steps(found.rows, deltas)
            yield [step for step in decoded if self.is_new(step.stream_id, step.t)]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The new rows, each batch under its own signal catalogue."""
        for found in self.found():
            new = [self.is_new(stream, t) for stream, t in keys(found.rows)]
            if any(new):
                yield found.rows if all(new) else found.rows.filter(pa.array(new))

    def found(self) -> Iterator[Found]:
        """The new rows, cold ones first, by one view of the store a pass.

        If a segment went cold after the view was taken, its writer's later segments wait for the
        next pass, in which its part comes first. Some rows may come again: rows that a writer took
        back after a failed sync, and rows that were given hot and are now cold. The caller compares
        with `given`, and reports what it took by `note`.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            view = self._viewer.look()
            self.snapshot = view.snapshot
            self.passes += 1
            yield from self._pass(view)
            if self._viewer.is_newest(view.snapshot):
                return
            check_patience(self._store, deadline)

    def is_new(self, stream: bytes, t: int) -> bool:
        """Whether a row was not given before; if so, it is noted. Raises as `note` does."""
        if t <= self.given.get(stream, -1):
            return False
        self.note(stream, t, t)
        return True

    def note(self, stream: bytes, first: int, last: int) -> None:
        """Notes that rows `first` to `last` of a stream were taken.

        Raises ShardError if rows before them are missing.
        """
        expected = self.snapshot.next_kept(stream, self.given.get(stream, -1) + 1)
        if first > expected:
            raise ShardError(
                f"{self._store}: stream {stream.hex()} jumps from t = {expected - 1} to {first}",
                "./xp verify says what is missing",
            )
        self.given[stream] = last

    def _pass(self, view: View) -> Iterator[Found]:
        try:
            for part in view.snapshot.parts:
                yield from self._of_part(part)
        except FileNotFoundError as error:  # written anew by a compaction, or lost
            self._viewer.raise_if_newest(view, error)
            return
        hot = {segment.path.with_suffix("") for segments in view.writers for segment in segments}
        self._forget({key for key, r in self._readers.items() if r.path.with_suffix("") not in hot})
        for segments in view.writers:
            try:
                for segment in segments:
                    yield from self._of_segment(segment)
            except FileNotFoundError as error:
                self._viewer.raise_if_newest(view, error)

    def _of_part(self, part: Part) -> Iterator[Found]:
        if part.file in self._parts_given:
            return
        lasts: dict[bytes, int] = {}
        for writer, streams in part.streams.items():
            if self._writer in ("", writer):
                lasts |= {bytes.fromhex(stream): last for stream, (_, last) in streams.items()}
        # Rows that were given hot are in the part too: a part without news is not read at all.
        if any(last > self.given.get(stream, -1) for stream, last in lasts.items()):
            for batch in part.batches(self._store, self._disk):
                rows = _of_streams(batch, set(lasts)) if self._writer else batch
                yield Found(rows, part=part)
        self._parts_given.add(part.file)

    def _of_segment(self, segment: Segment) -> Iterator[Found]:
        # By stem: the segment keeps its reader, and so its place, when it is sealed and renamed.
        key = f"{segment.path.parent.name}/{segment.path.stem}"
        if key in self._read_whole:
            return
        if key not in self._readers:
            self._readers[key] = BlockReader(segment.path, self._disk)
        reader = self._readers[key]
        if reader.path != segment.path and segment.is_sealed:
            reader.go_to(segment.path)
        elif segment.is_sealed and _is_read(reader, segment.rows):
            return
        for block in reader.read(segment.rows):
            yield Found(block.rows, reader, block)

    def _forget(self, segments: set[str]) -> None:
        """Drops what was kept of segments that are hot no more."""
        for key in segments:
            self._deltas.pop(self._readers.pop(key), None)


def _is_read(reader: BlockReader, rows: int | None) -> bool:
    """Whether all `rows` of a segment were read and compared with their checksums."""
    return rows is not None and reader.rows >= rows and reader.held


def check_patience(store: Path, deadline: float, cause: Exception | None = None) -> None:
    """Raises ShardError once `deadline` (of `time.monotonic`) has passed."""
    if time.monotonic() > deadline:
        raise ShardError(f"{store} changes faster than it can be read", "try again") from cause


def _of_streams(batch: pa.RecordBatch, wanted: set[bytes]) -> pa.RecordBatch:
    kept = [stream in wanted for stream in batch.column("stream_id").to_pylist()]
    return batch if all(kept) else batch.filter(pa.array(kept))
