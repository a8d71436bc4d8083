"""The catalog: every writer's committed rows as one dataset that grows while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as dataset

from experience.shards.journal import BlockReader
from experience.shards.schema import PromptDeltas, to_steps
from experience.step import Step


class Catalog:
    """Follows the shards below one directory, one sub-directory a writer.

    Invariant: every committed row is given exactly once, rows of a stream in order of t.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._readers: dict[str, tuple[BlockReader, PromptDeltas]] = {}

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time."""
        for _, steps in self.follow_blocks():
            yield steps

    def follow_blocks(self) -> Iterator[tuple[pa.RecordBatch, list[Step]]]:
        for segment in self.segments():
            key = f"{segment.parent.name}/{segment.stem}"
            if key not in self._readers:
                self._readers[key] = (BlockReader(segment), PromptDeltas())
            reader, deltas = self._readers[key]
            for batch in reader.read():
                yield batch, to_steps(batch, deltas)

    def segments(self) -> list[Path]:
        """Segments in the order they were written, per writer; open and sealed."""
        found = {}
        for path in [*self.directory.glob("*/*.open"), *self.directory.glob("*/*.arrow")]:
            found[(path.parent.name, path.stem)] = path  # sealed after open: a rename in between is seen once
        return [found[key] for key in sorted(found)]

    def dataset(self) -> dataset.Dataset:
        """The sealed shards as a pyarrow dataset, for DuckDB, Polars or pyarrow itself."""
        return dataset.dataset([str(p) for p in sorted(self.directory.glob("*/*.arrow"))], format="ipc")
