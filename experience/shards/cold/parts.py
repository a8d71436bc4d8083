"""Cold parts: immutable files of many shards' rows, sorted by stream and t, in Parquet or Lance.

A part is written, synced, read back and compared before anybody may name it.
Does not cover: Lance parts of stores that were compacted before parts had a SHA-256. Only Lance's
own checks hold for these.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.errors import MissingPartError, ShardError
from experience.shards.record.schema import FIELDS, check_schema, conform
from experience.shards.storage.checked import Expected, open_checked
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.unpacked import check_unpacked, rows_a_group

FOLDER = "cold"
Format = Literal["parquet", "lance"]
Streams = Mapping[str, Mapping[str, tuple[int, int]]]
"""By writer and stream (hexadecimal), the first and the last t."""
_GROUP_ROWS = 8_000
_ORDER = [("stream_id", "ascending"), ("t", "ascending")]
# Words repeat in a column, so that a dictionary makes them small. Long texts rarely repeat.
_DICTIONARY_COLUMNS = [name for name, of, _ in FIELDS if pa.types.is_string(of)]


@dataclass(frozen=True)
class Part:
    """One cold file. `streams`: by writer and stream (hex), the first and last t that it holds."""

    file: str
    rows: int
    bytes: int
    sha256: str
    streams: Streams

    def path(self, store: Path) -> Path:
        return store / FOLDER / self.file

    def batches(
        self, store: Path, disk: Disk = REAL, *, checked: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """The part's rows by stream and t, with every column of the newest schema.

        Raises ShardError if a byte of the file is wrong, and FileNotFoundError if the file is
        gone.
        """
        path = self.path(store)
        try:
            for batch in self._read(store, disk, checked):
                check_schema(batch.schema, str(path))
                yield conform(batch)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise ShardError(
                f"{path} is damaged: {error}", "restore the file from a copy"
            ) from error

    def table(self, store: Path, disk: Disk = REAL) -> pa.Table:
        """All rows of the part, by stream and t. Raises as `batches` does."""
        return pa.Table.from_batches(self.batches(store, disk))

    def _read(self, store: Path, disk: Disk, checked: bool) -> Iterator[pa.RecordBatch]:
        if self.is_lance:
            self._check_lance(store, disk, checked)
            yield from _lance().dataset(str(self.path(store))).to_batches()
            return
        buffer = open_checked(self.expected(store), disk, checked=checked)
        check_unpacked(buffer, self.path(store))
        source = parquet.ParquetFile(pa.BufferReader(buffer), page_checksum_verification=True)
        yield from source.iter_batches(batch_size=_GROUP_ROWS)

    @property
    def is_lance(self) -> bool:
        return self.file.endswith(".lance")

    def expected(self, store: Path) -> Expected:
        return Expected(self.path(store), self.bytes, self.sha256)

    def _check_lance(self, store: Path, disk: Disk, checked: bool) -> None:
        """Raises ShardError unless the folder has the SHA-256 that was noted, if one was."""
        path = self.path(store)
        if not disk.exists(path):
            raise FileNotFoundError(str(path))
        if checked and self.sha256 and _tree_sha256(path) != self.sha256:
            raise ShardError(
                f"{path} is damaged: its files differ from the SHA-256 that was noted",
                "restore the folder from a copy",
            )


def write_part(store: Path, name: str, table: pa.Table, streams: Streams, disk: Disk) -> Part:
    """Writes `table`, sorted by stream and t, as a part that was read back and found equal.

    The ending of `name` says the format.
    """
    ordered = table.take(pc.sort_indices(table.select(["stream_id", "t"]), _ORDER)).combine_chunks()
    path = store / FOLDER / name
    if path.suffix == ".lance":
        size = _write_lance(path, ordered, disk)
        digest = _tree_sha256(path)
    else:
        data = _as_parquet(ordered)
        size, digest = len(data), hashlib.sha256(data).hexdigest()
        disk.write_file(path, [data])
    disk.sync_directory(path.parent)
    part = Part(name, ordered.num_rows, size, digest, streams)
    if not part.table(store, disk).equals(ordered):
        raise ShardError(
            f"{path} does not read back as what was written",
            "keep the store as it is and report it",
        )
    return part


def _as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(
        table,
        sink,
        version="2.6",
        compression="zstd",
        compression_level=3,
        row_group_size=rows_a_group(table, _GROUP_ROWS),
        data_page_size=64 << 10,
        write_page_index=True,
        write_page_checksum=True,
        use_dictionary=_DICTIONARY_COLUMNS,
        column_encoding={
            # Floats compress better when their equal bytes (sign and exponent) stand together.
            "action_logprobs.list.element": "BYTE_STREAM_SPLIT",
            "t": "DELTA_BINARY_PACKED",
        },
        sorting_columns=parquet.SortingColumn.from_ordering(table.schema, _ORDER),
    )
    return sink.getvalue()


def _write_lance(path: Path, table: pa.Table, disk: Disk) -> int:
    """Writes a Lance folder and returns its size in bytes."""
    _lance().write_dataset(table, str(path))
    size = 0
    for file in path.rglob("*"):  # Lance itself does not sync
        if file.is_file():
            size += file.stat().st_size
            with disk.appending(file) as descriptor:
                disk.sync(descriptor)
        else:
            disk.sync_directory(file)
    disk.sync_directory(path)
    return size


def _tree_sha256(folder: Path) -> str:
    """One SHA-256 over the names and contents of all files below `folder`."""
    whole = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{digest}  {name}\n".encode())
    return whole.hexdigest()


def _lance() -> Any:
    try:
        import lance
    except ImportError as error:
        raise MissingPartError(
            "a part of this store is in Lance's format, which is not installed",
            ".venv/bin/uv pip install -p .venv pylance",
        ) from error
    return lance
