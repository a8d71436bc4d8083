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
from experience.shards.schema import PLAIN, PromptDeltas, signal_names, to_steps
from experience.step import Step


class Catalog:
    """Follows the shards below one directory, one sub-directory a writer.

    Invariant: every committed row is given exactly once, rows of a stream in order of t.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._readers: dict[str, BlockReader] = {}
        self._deltas: dict[BlockReader, PromptDeltas] = defaultdict(PromptDeltas)
        self._given: dict[bytes, int] = {}

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time."""
        for reader, commit, block in self.blocks():
            batch = reader.parse(block, commit)
            yield [step for step in to_steps(batch, self._deltas[reader]) if self._is_new(step)]

    def blocks(self) -> Iterator[tuple[BlockReader, Commit, bytes]]:
        """The same as checked blocks. Rows that a writer took back after a failed sync may come twice."""
        for segment in self.segments():
            key = f"{segment.parent.name}/{segment.stem}"
            if key not in self._readers:
                self._readers[key] = BlockReader(segment)
            reader = self._readers[key]
            for commit, block in reader.blocks():
                yield reader, commit, block

    def _is_new(self, step: Step) -> bool:
        """A block whose sync failed may have been seen here before its writer took it back and wrote it again."""
        if step.t <= self._given.get(step.stream_id, -1):
            return False
        self._given[step.stream_id] = step.t
        return True

    def segments(self) -> list[Path]:
        """Segments in the order they were written, per writer; open and sealed."""
        found = {}
        for path in [*self.directory.glob("*/*.open"), *self.directory.glob("*/*.arrow")]:
            found[(path.parent.name, path.stem)] = path  # sealed after open: a rename in between is seen once
        return [found[key] for key in sorted(found)]

    def dataset(self, *, growing: bool = False) -> dataset.Dataset:
        """The sealed shards as a pyarrow dataset, for DuckDB, Polars or pyarrow itself; `growing` adds what is
        committed to segments still being written, read now, into memory."""
        parts = [dataset.dataset([str(p) for p in sorted(self.directory.glob("*/*.arrow"))], format="ipc",
                                 schema=PLAIN)]
        if growing:
            batches = [b.replace_schema_metadata(None) for path in self.segments() if path.suffix == ".open"
                       for b in read_blocks(path)]
            parts.append(dataset.dataset(pa.Table.from_batches(batches, PLAIN)))
        return dataset.dataset(parts)

    def where(self, predicate: Callable[[pa.RecordBatch], pa.Array], columns: Sequence[str] | None = None) -> pa.Table:
        """The sealed rows that `predicate` picks of each batch, e.g. `lambda b: pc.greater(b["reward"], 0)`.

        Shards are mapped, so only what the predicate reads and what it picks is touched. As with `dataset`, blocks are
        not held against their CRC: `./xp verify` does that.
        """
        found = []
        for path in sorted(self.directory.glob("*/*.arrow")):
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
        """The signals' names in the order of their codes, as the first segment says."""
        for path in self.segments():
            for batch in read_blocks(path):
                return [name for name, _, _ in signal_names(batch.schema)]
        return []


def check_acknowledged(directory: Path, acknowledged: Mapping[bytes, int]) -> int:
    """Rows on disk. Raises ShardError unless every stream holds t = 0, 1, 2 … once each, as far as acknowledged."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for segment in Catalog(directory).segments():
        for batch in read_blocks(segment):
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
