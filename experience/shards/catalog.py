"""The catalog: every writer's committed rows as one dataset that grows while it is read."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.follow import PATIENCE_SECONDS, Follower, Found, check_patience
from experience.shards.record.schema import SIGNAL
from experience.shards.storage.blocks import keys
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import find_store, given_store
from experience.shards.view import Viewer
from experience.step import Step

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

    from experience.shards.tables import Names

__all__ = ["SIGNAL", "Catalog", "check_acknowledged"]


class Catalog:
    """Follows the shards below one directory, hot and cold, of all writers or of one `writer`.

    The directory has one sub-directory a writer. Every reading method compares what it reads with
    its CRC or SHA-256 (`checked` False leaves out the SHA-256 of sealed files in `dataset` and
    `table`), and raises ShardError if a byte or a file is missing or wrong.
    Invariants of `follow` and `found`: see `Follower`.
    """

    def __init__(
        self, directory: str | Path, *, writer: str = "", disk: Disk = REAL, checked: bool = True
    ) -> None:
        self.directory = given_store(directory) if disk is REAL else Path(directory)
        self._writer, self._disk, self._checked = writer, disk, checked
        self._follower = Follower(self.directory, writer, disk)
        self._viewer = Viewer(self.directory, writer, disk)

    @classmethod
    def of(cls, run: str | Path, *, imagined: bool = False) -> Catalog:
        """All rows of a run: `of("runs/latest")`; `imagined`: the rows of its world model.

        `dataset()` is for DuckDB and pyarrow, `table()` for pandas and Polars, `follow()` gives
        steps. Raises ShardError, with what to name instead, if `run` is no run's directory and no
        store.
        """
        return cls(find_store(run, imagined=imagined))

    @property
    def given(self) -> dict[bytes, int]:
        """By stream, the last t that `follow` gave, or that was reported by `note`."""
        return self._follower.given

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time.

        Raises ShardError if one is missing.
        """
        return self._follower.steps()

    def found(self) -> Iterator[Found]:
        """The rows committed since the last call, as they lie in files: see `Follower.found`."""
        return self._follower.found()

    def note(self, stream: bytes, first: int, last: int) -> None:
        """Notes that rows `first` to `last` of a stream were taken: see `Follower.note`."""
        self._follower.note(stream, first, last)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Everything that is there now, cold rows first, each batch under its own catalogue."""
        return Follower(self.directory, self._writer, self._disk).batches()

    def segments(self) -> list[Path]:
        """Hot segments in the order they were written, per writer; open and sealed."""
        return [segment.path for segments in self._viewer.look().writers for segment in segments]

    def dataset(self, *, growing: bool = True) -> Dataset:
        """Every row, hot and cold, as a pyarrow dataset, for DuckDB, Polars or pyarrow itself.

        `growing` False leaves out rows that are not sealed yet, which are read now, into memory.
        Sealed files are mapped now, so that a compaction meanwhile takes nothing away, and each is
        compared with its SHA-256 once a process (see checked). A signal's code is a position in its
        own shard's catalogue: `table` and `./xp query` give signals by name.
        """
        import pyarrow.dataset as datasets

        return datasets.dataset(list(self.by_catalogue(growing=growing).values()))

    def by_catalogue(self, *, growing: bool = True) -> dict[Names, Dataset]:
        """The rows of `dataset`, a dataset for each signal catalogue."""
        # Datasets cost 40 MB, which those who only follow rows never need.
        from experience.shards.tables import open_datasets

        return open_datasets(self._viewer, growing=growing, checked=self._checked)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every row, hot and cold, for pandas, Polars or Arrow.

        Each signal is a float64 column `signal.<name>`, null where a row has none. `columns`: some
        of all columns, e.g. ["t", "reward", "signal.done"]. Raises ShardError for a column that no
        shard has.
        """
        from experience.shards.tables import as_table

        return as_table(self.by_catalogue(), columns, self.directory)

    def signal_names(self) -> list[str]:
        """The names of all signals that any shard declares, sorted."""
        return sorted({name for names in self.by_catalogue() for name in names})


def check_acknowledged(
    directory: Path, acknowledged: Mapping[bytes, int], given: Mapping[bytes, int] | None = None
) -> int:
    """The number of rows on disk, removed rows counted.

    Raises ShardError unless every stream holds t = 0, 1, 2 … once each, as far as acknowledged.
    Where `given` (Catalog.given) says what a follower was given, that must be all of it too.
    """
    found = _rows_of(directory)
    for stream in found.keys() | acknowledged.keys():
        rows, last = sorted(found[stream]), acknowledged.get(stream, -1)
        if rows != list(range(len(rows))):
            raise ShardError(
                f"{directory}: stream {stream.hex()} has missing or doubled rows among its "
                f"{len(rows)}",
                "keep the run directory and report it",
            )
        if len(rows) <= last:
            raise ShardError(
                f"{directory}: stream {stream.hex()} holds {len(rows)} rows, but {last + 1} were "
                "acknowledged",
                "keep the run directory and report it",
            )
        if given is not None and given.get(stream, -1) < len(rows) - 1:
            raise ShardError(
                f"{directory}: of {len(rows)} rows of stream {stream.hex()} the learner was given "
                f"{given.get(stream, -1) + 1}",
                "keep the run directory and report it",
            )
    return sum(map(len, found.values()))


def _rows_of(directory: Path) -> dict[bytes, list[int]]:
    """Every t of each stream, as often as it is there; removed rows count as there.

    All by one view of the store: between two views a row may move, and would be counted twice.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        follower, found = Follower(directory), defaultdict[bytes, list[int]](list)
        for rows in follower.found():
            for stream, t in keys(rows.rows):
                found[stream].append(t)
        if follower.passes == 1:
            break
        check_patience(directory, deadline)
    # Retention took these rows: they were acknowledged, and are not lost.
    for stream, spans in follower.snapshot.removed_spans.items():
        for first, end in spans:
            found[stream] += range(first, end + 1)
    return found
