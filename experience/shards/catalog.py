"""The catalog: every writer's committed rows as one dataset that grows while it is read."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as datasets
from pyarrow.dataset import Dataset

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.cold.snapshot import Snapshot
from experience.shards.record.decode import to_steps
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import PLAIN, conform, signal_names, signal_values
from experience.shards.storage.blocks import Block, BlockReader, keys, read_blocks
from experience.shards.storage.checked import open_all
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import find_store, given_store
from experience.shards.storage.unpacked import check_unpacked
from experience.shards.view import Segment, View, Viewer
from experience.step import Step

SIGNAL = "signal."
"""What stands before a signal's name where it is a column of its own."""
_PATIENCE_SECONDS = 30.0
"""How long a store may go on changing under one pass before it is given up."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that were committed since the last pass: a block of `reader`, or a batch of a cold `part`."""

    rows: pa.RecordBatch
    reader: BlockReader | None = None
    block: Block | None = None
    part: Part | None = None


class Catalog:
    """Follows the shards below one directory, one sub-directory a writer, hot and cold; or those of one `writer`.

    Every reading method holds what it reads against its CRC or SHA-256 (`checked` False leaves out the SHA-256 of
    sealed files in `dataset`, `table` and `where`), and raises ShardError if a byte or a file is missing or wrong.
    Invariants: every committed row is given exactly once, rows of a stream in order of t; `given` names the last t
    of each stream that `follow`, or who called `note`, was given, and every row before it was given too.
    """

    def __init__(
        self, directory: str | Path, *, writer: str = "", disk: Disk = REAL, checked: bool = True
    ) -> None:
        directory = given_store(directory) if disk is REAL else Path(directory)
        self.directory, self.given = directory, dict[bytes, int]()
        self._writer, self._disk, self._checked = writer, disk, checked
        self._viewer = Viewer(directory, writer, disk)
        self._readers: dict[str, BlockReader] = {}
        self._deltas: dict[BlockReader, PromptDeltas] = defaultdict(PromptDeltas)
        self._parts_given: set[str] = set()
        self._snapshot = Snapshot()
        self._passes = 0

    @classmethod
    def of(cls, run: str | Path, *, imagined: bool = False) -> Catalog:
        """All rows of a run, hot, growing and cold: `of("runs/latest")`; `imagined`: those of its world model.

        `dataset()` is for DuckDB and pyarrow, `table()` for pandas and Polars, `follow()` gives steps. Raises
        ShardError, with what to name instead, if `run` is no run's directory and no store.
        """
        return cls(find_store(run, imagined=imagined))

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time. Raises ShardError if one is missing."""
        of_part: dict[str, PromptDeltas] = defaultdict(PromptDeltas)
        for found in self.found():
            deltas = (
                self._deltas[found.reader]
                if found.reader
                else of_part[found.part.file if found.part else ""]
            )
            yield [
                step
                for step in to_steps(found.rows, deltas)
                if self._is_new(step.stream_id, step.t)
            ]

    def found(self) -> Iterator[Found]:
        """The rows committed since the last call, cold ones first, by one view of the store a pass.

        Where a segment went cold since the view was taken, its writer's later ones wait for the next pass, in which its
        part comes first. Rows that a writer took back after a failed sync, or that were given hot and are now cold,
        may come again: who reads tells by `given`, and tells what was taken by `note`.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            view = self._viewer.look()
            self._snapshot = view.snapshot
            self._passes += 1
            yield from self._pass(view)
            if self._viewer.is_newest(view.snapshot):
                return
            if time.monotonic() > deadline:
                raise ShardError(
                    f"{self.directory} changes faster than it can be read", "try again"
                )

    def _pass(self, view: View) -> Iterator[Found]:
        try:
            for part in view.snapshot.parts:
                yield from self._of_part(part)
        except FileNotFoundError as error:  # written anew by a compaction, or lost
            self._raise_if_newest(view, error)
            return
        hot = {segment.path.with_suffix("") for segments in view.writers for segment in segments}
        self._forget({key for key, r in self._readers.items() if r.path.with_suffix("") not in hot})
        for segments in view.writers:
            try:
                for segment in segments:
                    yield from self._of_segment(segment)
            except FileNotFoundError as error:
                self._raise_if_newest(view, error)

    def _of_part(self, part: Part) -> Iterator[Found]:
        spans = [
            span
            for writer, of in part.streams.items()
            if self._writer in ("", writer)
            for span in of.items()
        ]
        if part.file in self._parts_given:
            return
        if any(last > self.given.get(bytes.fromhex(stream), -1) for stream, (_, last) in spans):
            wanted = {bytes.fromhex(stream) for stream, _ in spans}
            for batch in part.batches(self.directory, self._disk):
                yield Found(_of_streams(batch, wanted) if self._writer else batch, part=part)
        self._parts_given.add(part.file)

    def _of_segment(self, segment: Segment) -> Iterator[Found]:
        key = f"{segment.path.parent.name}/{segment.path.stem}"
        reader = self._readers.get(key) or self._readers.setdefault(
            key, BlockReader(segment.path, self._disk)
        )
        if reader.path != segment.path and segment.is_sealed:
            reader.go_to(segment.path)
        elif (
            segment.is_sealed
            and segment.rows is not None
            and reader.rows >= segment.rows
            and reader.held
        ):
            return
        for block in reader.read(segment.rows):
            yield Found(block.rows, reader, block)

    def _forget(self, keys_: set[str]) -> None:
        for key in keys_:
            self._deltas.pop(self._readers.pop(key), None)

    def _raise_if_newest(self, view: View, error: FileNotFoundError) -> None:
        if self._viewer.is_newest(view.snapshot):
            raise ShardError(
                f"{error.filename or error} is missing", "restore the file from a copy"
            ) from error

    def _is_new(self, stream: bytes, t: int) -> bool:
        """A block whose sync failed may have been seen here before its writer took it back and wrote it again; a
        shard, before it went cold. Raises ShardError if rows before the step were never given."""
        if t <= self.given.get(stream, -1):
            return False
        self.note(stream, t, t)
        return True

    def note(self, stream: bytes, first: int, last: int) -> None:
        """Rows `first` to `last` of a stream were taken by who reads. Raises ShardError if rows before are missing."""
        expected = self._snapshot.next_kept(stream, self.given.get(stream, -1) + 1)
        if first > expected:
            raise ShardError(
                f"{self.directory}: stream {stream.hex()} jumps from t = {expected - 1} to {first}",
                "./xp verify says what is missing",
            )
        self.given[stream] = last

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Everything that is there now, checked, cold first: rows of each batch under its own signal catalogue."""
        catalog = Catalog(self.directory, writer=self._writer, disk=self._disk)
        for found in catalog.found():
            new = [catalog._is_new(stream, t) for stream, t in keys(found.rows)]
            if any(new):
                yield found.rows if all(new) else found.rows.filter(pa.array(new))

    def segments(self) -> list[Path]:
        """Hot segments in the order they were written, per writer; open and sealed."""
        return [segment.path for segments in self._viewer.look().writers for segment in segments]

    def dataset(self, *, growing: bool = True) -> Dataset:
        """Every row, hot and cold, as a pyarrow dataset, for DuckDB, Polars or pyarrow itself; `growing` False leaves
        out what is not sealed yet, which is read now, into memory.

        Sealed files are mapped now, so that a compaction meanwhile takes nothing away, and each is held against its
        SHA-256 once a process (see checked). A signal's code is a position in its own shard's catalogue: `table` and
        `./xp query` give signals by name.
        """
        return datasets.dataset(list(self.by_catalogue(growing=growing).values()))

    def by_catalogue(self, *, growing: bool = True) -> dict[tuple[str, ...], Dataset]:
        """The same, by the signals' names in the order of their codes; of an empty store one dataset without rows."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            view = self._viewer.look()
            try:
                found = self._datasets(view, growing) or {
                    (): [datasets.dataset(PLAIN.empty_table())]
                }
                return {names: datasets.dataset(parts) for names, parts in found.items()}
            except FileNotFoundError as error:
                self._raise_if_newest(view, error)
                if time.monotonic() > deadline:
                    raise ShardError(
                        f"{self.directory} changes faster than it can be read", "try again"
                    ) from error

    def _datasets(self, view: View, growing: bool) -> dict[tuple[str, ...], list[Dataset]]:
        found: dict[tuple[str, ...], list[Dataset]] = defaultdict(list)
        segments = [s for segments in view.writers for s in segments]
        for files, of in (
            ([s.expected for s in segments if s.is_sealed], _IPC),
            ([p.expected(self.directory) for p in view.snapshot.parts if not p.is_lance], _PARQUET),
        ):
            by_names: dict[tuple[str, ...], list[datasets.Fragment]] = defaultdict(list)
            for file, buffer in zip(
                files, open_all(files, self._disk, checked=self._checked), strict=True
            ):
                if of is _PARQUET:
                    check_unpacked(buffer, file.path)
                fragment = of.make_fragment(buffer)
                by_names[_names(_physical(fragment, file.path))].append(fragment)
            for names, fragments in by_names.items():
                found[names].append(datasets.FileSystemDataset(fragments, PLAIN, of))
        lance = [
            part.batches(self.directory, self._disk, checked=self._checked)
            for part in view.snapshot.parts
            if part.is_lance
        ]
        open_ = [
            read_blocks(s.path, self._disk, s.rows) for s in segments if growing and not s.is_sealed
        ]
        in_memory: dict[tuple[str, ...], list[pa.RecordBatch]] = defaultdict(list)
        for batch in chain(*lance, *open_):
            in_memory[_names(batch.schema)].append(batch.replace_schema_metadata(None))
        for names, batches in in_memory.items():
            found[names].append(datasets.dataset(pa.Table.from_batches(batches, PLAIN)))
        return found

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every row, hot and cold, with each signal as a float64 column `signal.<name>` (null where a row has none):
        for pandas, Polars or Arrow. `columns`: some of them, e.g. ["t", "reward", "signal.done"].

        Raises ShardError for a column that no shard has.
        """
        groups = self.by_catalogue()
        signals = sorted({name for names in groups for name in names})
        wanted = (
            list(columns)
            if columns is not None
            else [*PLAIN.names, *(SIGNAL + name for name in signals)]
        )
        self._check_columns(wanted, signals)
        target = _schema_of(wanted)
        found = [
            _with_signals(batch, names, wanted, target)
            for names, rows in groups.items()
            for batch in _scan(rows, wanted)
        ]
        return pa.Table.from_batches(found, target)

    def _check_columns(self, wanted: Sequence[str], signals: Collection[str]) -> None:
        known = [*PLAIN.names, *(SIGNAL + name for name in sorted(signals))]
        unknown = [c for c in wanted if c not in known]
        if unknown:
            raise ShardError(
                f"no column {unknown[0]!r} in {self.directory}", f"there are: {', '.join(known)}"
            )

    def where(
        self, predicate: Callable[[pa.RecordBatch], pa.Array], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows, hot and cold, that `predicate` picks of each batch, e.g. `lambda b: pc.greater(b["reward"], 0)`.
        `columns`: some of them, signals by name as in `table`. Raises ShardError for a column that no shard has.

        Sealed shards are mapped, and checked as by `dataset`, so only what the predicate reads and what it picks is
        touched. A signal's code in the column `signals` is a position in its own shard's catalogue, as in `dataset`.
        """
        wanted = list(PLAIN.names if columns is None else columns)
        target, found, signals = _schema_of(wanted), list[pa.RecordBatch](), set[str]()
        for batch in self._mapped_batches():
            signals.update(_names(batch.schema))
            picked = np.flatnonzero(
                predicate(batch).fill_null(False).to_numpy(zero_copy_only=False)
            )
            if len(picked) == 0:
                continue
            rows = _with_signals(batch, _names(batch.schema), wanted, target)
            breaks = (
                np.flatnonzero(np.diff(picked) != 1) + 1
            )  # runs of rows, each a view without a copy
            found += [rows.slice(run[0], len(run)) for run in np.split(picked, breaks)]
        self._check_columns(wanted, signals)
        return pa.Table.from_batches(found, target).combine_chunks()

    def _mapped_batches(self) -> Iterator[pa.RecordBatch]:
        """Everything that is there now; sealed shards straight from their mapped files, which are opened first."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            view = self._viewer.look()
            segments = [s for segments in view.writers for s in segments]
            try:
                shards = open_all(
                    [s.expected for s in segments if s.is_sealed], self._disk, checked=self._checked
                )
                others: list[pa.RecordBatch] = [
                    b
                    for s in segments
                    if not s.is_sealed
                    for b in read_blocks(s.path, self._disk, s.rows)
                ]
                for part in view.snapshot.parts:
                    others += part.batches(self.directory, self._disk, checked=self._checked)
                break
            except FileNotFoundError as error:
                self._raise_if_newest(view, error)
                if time.monotonic() > deadline:
                    raise ShardError(
                        f"{self.directory} changes faster than it can be read", "try again"
                    ) from error
        yield from others
        for buffer in shards:
            shard = pa.ipc.open_file(buffer)
            for number in range(shard.num_record_batches):
                yield conform(
                    shard.get_batch(number).replace_schema_metadata(shard.schema.metadata)
                )

    def signal_names(self) -> list[str]:
        """The names of all signals that any shard tells of, sorted."""
        return sorted({name for names in self.by_catalogue() for name in names})


_IPC = datasets.IpcFileFormat()
_PARQUET = datasets.ParquetFileFormat(
    default_fragment_scan_options=datasets.ParquetFragmentScanOptions(
        page_checksum_verification=True
    )
)


def _physical(fragment: datasets.Fragment, path: Path) -> pa.Schema:
    try:
        return fragment.physical_schema
    except (pa.ArrowException, OSError) as error:
        raise ShardError(
            f"{path} cannot be read: {error}", "restore the file from a copy"
        ) from error


def _names(of: pa.Schema) -> tuple[str, ...]:
    return tuple(name for name, _, _ in signal_names(of))


def _scan(rows: Dataset, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    columns = [c for c in wanted if c in PLAIN.names]
    if len(columns) < len(wanted) and "signals" not in columns:
        columns.append("signals")
    yield from rows.to_batches(columns=columns)


def _schema_of(wanted: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [PLAIN.field(c) if c in PLAIN.names else pa.field(c, pa.float64()) for c in wanted]
    )


def _with_signals(
    batch: pa.RecordBatch, names: Sequence[str], wanted: Sequence[str], target: pa.Schema
) -> pa.RecordBatch:
    asked = [c.removeprefix(SIGNAL) for c in wanted if c not in PLAIN.names]
    values = dict(zip(asked, signal_values(batch, names, asked) if asked else (), strict=True))
    return pa.RecordBatch.from_arrays(
        [batch.column(c) if c in PLAIN.names else values[c.removeprefix(SIGNAL)] for c in wanted],
        schema=target,
    )


def _of_streams(batch: pa.RecordBatch, wanted: set[bytes]) -> pa.RecordBatch:
    kept = [stream in wanted for stream in batch.column("stream_id").to_pylist()]
    return batch if all(kept) else batch.filter(pa.array(kept))


def check_acknowledged(
    directory: Path, acknowledged: Mapping[bytes, int], given: Mapping[bytes, int] | None = None
) -> int:
    """The number of rows on disk, removed rows counted.

    Raises ShardError unless every stream holds t = 0, 1, 2 … once each, as far as acknowledged. Where
    `given` (Catalog.given) says what a follower was given, that must be all of it too.
    """
    found = _rows_of(directory)
    for stream in found.keys() | acknowledged.keys():
        rows, last = sorted(found[stream]), acknowledged.get(stream, -1)
        if rows != list(range(len(rows))):
            raise ShardError(
                f"{directory}: stream {stream.hex()} has missing or doubled rows among its {len(rows)}",
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
    """Every t of each stream, as often as it is there, by one view of the store; removed rows count as there."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        catalog, found = Catalog(directory), defaultdict[bytes, list[int]](list)
        for rows in catalog.found():
            for stream, t in keys(rows.rows):
                found[stream].append(t)
        if catalog._passes == 1:
            break
        if time.monotonic() > deadline:
            raise ShardError(f"{directory} changes faster than it can be read", "try again")
    for stream, spans in catalog._snapshot.removed_spans.items():
        for first, end in spans:
            found[stream] += range(first, end + 1)
    return found
