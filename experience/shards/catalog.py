"""The catalog: every writer's committed rows as one dataset that grows while it is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as dataset

from experience.errors import ShardError
from experience.shards.blocks import BlockReader, Commit, keys, read_blocks
from experience.shards.cold import Part, Snapshot, newest_snapshot, read_snapshot
from experience.shards.disk import REAL, Disk
from experience.shards.schema import PLAIN, PromptDeltas, signal_names, to_steps
from experience.step import Step


class Catalog:
    """Follows the shards below one directory, one sub-directory a writer, hot and cold; or those of one `writer`.

    Invariant: every committed row is given exactly once, rows of a stream in order of t.
    """

    def __init__(self, directory: Path, *, writer: str = "", disk: Disk = REAL) -> None:
        self.directory, self._writer, self._disk = directory, writer, disk
        self._readers: dict[str, BlockReader] = {}
        self._deltas: dict[BlockReader, PromptDeltas] = defaultdict(PromptDeltas)
        self._given: dict[bytes, int] = {}
        self._snapshot = Snapshot()
        self._parts_given: set[str] = set()

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time."""
        for part in self.parts():
            deltas = PromptDeltas()
            for batch in part.batches(self.directory, self._disk):
                yield [step for step in to_steps(batch, deltas) if self._is_new(step)]
        for reader, commit, block in self.blocks():
            batch = reader.parse(block, commit)
            yield [step for step in to_steps(batch, self._deltas[reader]) if self._is_new(step)]
        if newest_snapshot(self.directory, self._disk) != self._snapshot.version:
            yield from self.follow()  # shards went cold under our eyes

    def blocks(self) -> Iterator[tuple[BlockReader, Commit, bytes]]:
        """The same as checked blocks, of hot segments. Rows that a writer took back after a failed sync may come
        twice."""
        for segment in self.segments():
            key = f"{segment.parent.name}/{segment.stem}"
            if key not in self._readers:
                self._readers[key] = BlockReader(segment, self._disk)
            reader = self._readers[key]
            try:
                for commit, block in reader.blocks():
                    yield reader, commit, block
            except FileNotFoundError:
                if newest_snapshot(self.directory, self._disk) == self._snapshot.version:
                    raise

    def parts(self) -> Iterator[Part]:
        """The cold parts that hold rows not given yet."""
        for part in self._newest().parts:
            spans = part.streams.get(self._writer, {}) if self._writer else {
                stream: span for of in part.streams.values() for stream, span in of.items()}
            if part.file not in self._parts_given and any(
                    last > self._given.get(bytes.fromhex(stream), -1) for stream, (_, last) in spans.items()):
                yield part
            self._parts_given.add(part.file)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Everything that is there now, checked, cold first."""
        for part in self._newest().parts:
            yield from part.batches(self.directory, self._disk)
        for segment in self.segments():
            yield from read_blocks(segment, self._disk)

    def _newest(self) -> Snapshot:
        if newest_snapshot(self.directory, self._disk) != self._snapshot.version:
            self._snapshot = read_snapshot(self.directory, self._disk)
        return self._snapshot

    def _is_new(self, step: Step) -> bool:
        """A block whose sync failed may have been seen here before its writer took it back and wrote it again; a
        shard, before it went cold."""
        if step.t <= self._given.get(step.stream_id, -1):
            return False
        self._given[step.stream_id] = step.t
        return True

    def segments(self) -> list[Path]:
        """Hot segments in the order they were written, per writer; open and sealed."""
        replaced, found = self._newest().replaced, {}
        writers = [d for d in self._disk.directories(self.directory) if not self._writer or d.name == self._writer]
        for suffix in (".open", ".arrow"):  # sealed after open: a rename in between is seen once
            for writer in writers:
                for name in self._disk.names(writer):
                    if name.endswith(suffix) and f"{writer.name}/{name}" not in replaced:
                        found[(writer.name, name.partition(".")[0])] = writer / name
        return [found[key] for key in sorted(found)]

    def dataset(self, *, growing: bool = False) -> dataset.Dataset:
        """The sealed shards as a pyarrow dataset, for DuckDB, Polars or pyarrow itself; `growing` adds what is
        committed to segments still being written, read now, into memory."""
        segments = self.segments()
        parts = [dataset.dataset([str(p) for p in segments if p.suffix == ".arrow"], format="ipc", schema=PLAIN),
                 *(part.dataset(self.directory) for part in self._snapshot.parts)]
        if growing:
            batches = [b.replace_schema_metadata(None) for path in segments if path.suffix == ".open"
                       for b in read_blocks(path)]
            parts.append(dataset.dataset(pa.Table.from_batches(batches, PLAIN)))
        return dataset.dataset(parts)

    def where(self, predicate: Callable[[pa.RecordBatch], pa.Array], columns: Sequence[str] | None = None) -> pa.Table:
        """The hot sealed rows that `predicate` picks of each batch, e.g. `lambda b: pc.greater(b["reward"], 0)`.

        Shards are mapped, so only what the predicate reads and what it picks is touched. As with `dataset`, blocks are
        not held against their CRC: `./xp verify` does that.
        """
        found = []
        for path in (p for p in self.segments() if p.suffix == ".arrow"):
            shard = pa.ipc.open_file(pa.memory_map(str(path)))
            for number in range(shard.num_record_batches):
                batch = shard.get_batch(number)
                picked = np.flatnonzero(predicate(batch).fill_null(False).to_numpy(zero_copy_only=False))
                if len(picked) == 0:
                    continue
                rows = (batch if columns is None else batch.select(columns)).replace_schema_metadata(None)
                breaks = np.flatnonzero(np.diff(picked) != 1) + 1  # runs of rows, each a view without a copy
                found += [rows.slice(run[0], len(run)) for run in np.split(picked, breaks)]
        wanted = PLAIN if columns is None else pa.schema([PLAIN.field(name) for name in columns])
        return pa.Table.from_batches(found, wanted).combine_chunks()

    def signal_names(self) -> list[str]:
        """The signals' names in the order of their codes, as the first shard says."""
        return next(([name for name, _, _ in signal_names(b.schema)] for b in self.batches()), [])


def check_acknowledged(directory: Path, acknowledged: Mapping[bytes, int]) -> int:
    """Rows on disk. Raises ShardError unless every stream holds t = 0, 1, 2 … once each, as far as acknowledged, less
    what was let go."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for name, gone in read_snapshot(directory).let_go.items():
        found[bytes.fromhex(name)] += range(gone)
    for batch in Catalog(directory).batches():
        for stream, t in keys(batch):
            found[stream].append(t)
    for stream in found.keys() | acknowledged.keys():
        rows, last = sorted(found[stream]), acknowledged.get(stream, -1)
        if rows != list(range(len(rows))):
            raise ShardError(f"{directory}: stream {stream.hex()} has missing or doubled rows among its {len(rows)}",
                             "keep the run directory and report it")
        if len(rows) <= last:
            raise ShardError(f"{directory}: stream {stream.hex()} holds {len(rows)} rows, but {last + 1} were "
                             "acknowledged", "keep the run directory and report it")
    return sum(map(len, found.values()))


def lineage(stores: Sequence[Path], stream: bytes, t: int) -> list[Step]:
    """The steps that led to step (stream, t), it included, oldest first: its stream up to it and, where that is a
    branch, what came before the step that it branches from, whose observation it shares; and so on.

    `stores` are searched together: imagined branches lie in another than what they branch from. Raises ShardError if a
    step on the way is missing. Reads the stores once a branch.
    """
    rows = sorted((s for store in stores for steps in Catalog(store).follow() for s in steps
                   if s.stream_id == stream and s.t <= t), key=lambda s: s.t)
    if not rows or rows[-1].t != t:
        raise ShardError(f"step {t} of stream {stream.hex()} is not in {', '.join(map(str, stores))}",
                         "name every store that holds a part of its past")
    parent = rows[0].parent
    if parent is None:
        return rows
    return [*lineage(stores, *parent)[:-1], *rows]
