"""A store's rows as pyarrow datasets and tables: sealed files are mapped, growing ones are read."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as datasets
from pyarrow.dataset import Dataset

from experience.errors import ShardError
from experience.shards.follow import PATIENCE_SECONDS, check_patience
from experience.shards.record.schema import PLAIN, SIGNAL, signal_names, signal_values
from experience.shards.storage.blocks import read_blocks
from experience.shards.storage.checked import Expected, open_all
from experience.shards.storage.disk import Disk
from experience.shards.storage.unpacked import check_unpacked
from experience.shards.view import View, Viewer

Names = tuple[str, ...]
"""A signal catalogue: the signals' names in the order of their codes."""
_IPC = datasets.IpcFileFormat()
_PARQUET = datasets.ParquetFileFormat(
    default_fragment_scan_options=datasets.ParquetFragmentScanOptions(
        page_checksum_verification=True
    )
)


def open_datasets(viewer: Viewer, *, growing: bool, checked: bool) -> dict[Names, Dataset]:
    """The rows that are there now, a dataset for each signal catalogue.

    An empty store gives one dataset without rows. Raises ShardError if a file is missing or wrong.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        view = viewer.look()
        try:
            found = _of_view(view, viewer.store, viewer.disk, growing, checked)
        except FileNotFoundError as error:  # a compaction took it since the view was taken
            viewer.raise_if_newest(view, error)
            check_patience(viewer.store, deadline, error)
            continue
        if not found:
            return {(): datasets.dataset([datasets.dataset(PLAIN.empty_table())])}
        return {names: datasets.dataset(parts) for names, parts in found.items()}


def _of_view(
    view: View, store: Path, disk: Disk, growing: bool, checked: bool
) -> dict[Names, list[Dataset]]:
    found: dict[Names, list[Dataset]] = defaultdict(list)
    segments = [segment for segments in view.writers for segment in segments]
    parts = view.snapshot.parts
    for names, fragments in _sealed([s.expected for s in segments if s.is_sealed], disk, checked):
        found[names].append(datasets.FileSystemDataset(fragments, PLAIN, _IPC))
    for names, fragments in _cold(
        [part.expected(store) for part in parts if not part.is_lance], disk, checked
    ):
        found[names].append(datasets.FileSystemDataset(fragments, PLAIN, _PARQUET))
    # Neither Lance's parts nor open segments are files that a dataset could map.
    lance = [part.batches(store, disk, checked=checked) for part in parts if part.is_lance]
    open_ = [s for s in segments if growing and not s.is_sealed]
    read = [read_blocks(segment.path, disk, segment.rows) for segment in open_]
    in_memory: dict[Names, list[pa.RecordBatch]] = defaultdict(list)
    for batch in chain(*lance, *read):
        in_memory[_names(batch.schema)].append(batch.replace_schema_metadata(None))
    for names, batches in in_memory.items():
        found[names].append(datasets.dataset(pa.Table.from_batches(batches, PLAIN)))
    return found


Fragments = Iterator[tuple[Names, list[datasets.Fragment]]]


def _sealed(files: Sequence[Expected], disk: Disk, checked: bool) -> Fragments:
    """Sealed shards by their catalogue, mapped."""
    by_names: dict[Names, list[datasets.Fragment]] = defaultdict(list)
    for file, buffer in zip(files, open_all(files, disk, checked=checked), strict=True):
        fragment = _IPC.make_fragment(buffer)
        by_names[_names(_physical(fragment, file.path))].append(fragment)
    yield from by_names.items()


def _cold(files: Sequence[Expected], disk: Disk, checked: bool) -> Fragments:
    """Cold Parquet parts by their catalogue, mapped; refused if they unpack to too much."""
    by_names: dict[Names, list[datasets.Fragment]] = defaultdict(list)
    for file, buffer in zip(files, open_all(files, disk, checked=checked), strict=True):
        check_unpacked(buffer, file.path)
        fragment = _PARQUET.make_fragment(buffer)
        by_names[_names(_physical(fragment, file.path))].append(fragment)
    yield from by_names.items()


def _physical(fragment: datasets.Fragment, path: Path) -> pa.Schema:
    try:
        return fragment.physical_schema
    except (pa.ArrowException, OSError) as error:
        raise ShardError(
            f"{path} cannot be read: {error}", "restore the file from a copy"
        ) from error


def _names(of: pa.Schema) -> Names:
    return tuple(name for name, _, _ in signal_names(of))


def as_table(groups: dict[Names, Dataset], columns: Sequence[str] | None, store: Path) -> pa.Table:
    """The rows of all `groups`, with each signal as a float64 column `signal.<name>`.

    `columns` None: all of them. Raises ShardError for a column that no shard has.
    """
    signals = sorted({name for names in groups for name in names})
    known = [*PLAIN.names, *(SIGNAL + name for name in signals)]
    wanted = known if columns is None else list(columns)
    _check_columns(wanted, known, store)
    fields = [PLAIN.field(c) if c in PLAIN.names else pa.field(c, pa.float64()) for c in wanted]
    target = pa.schema(fields)
    found = [
        _with_signals(batch, names, wanted, target)
        for names, rows in groups.items()
        for batch in _scan(rows, wanted)
    ]
    return pa.Table.from_batches(found, target)


def _check_columns(wanted: Sequence[str], known: Collection[str], store: Path) -> None:
    unknown = [column for column in wanted if column not in known]
    if unknown:
        raise ShardError(f"no column {unknown[0]!r} in {store}", f"there are: {', '.join(known)}")


def _scan(rows: Dataset, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    columns = [c for c in wanted if c in PLAIN.names]
    if len(columns) < len(wanted) and "signals" not in columns:
        # The signals' own columns are computed from this one.
        columns.append("signals")
    yield from rows.to_batches(columns=columns)


def _with_signals(
    batch: pa.RecordBatch, names: Sequence[str], wanted: Sequence[str], target: pa.Schema
) -> pa.RecordBatch:
    asked = [c.removeprefix(SIGNAL) for c in wanted if c not in PLAIN.names]
    values: dict[str, pa.Array] = {}
    if asked:
        values = dict(zip(asked, signal_values(batch, names, asked), strict=True))
    columns = [
        batch.column(c) if c in PLAIN.names else values[c.removeprefix(SIGNAL)] for c in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, schema=target)
