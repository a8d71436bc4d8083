"""The memory that a Parquet file would take, computed before it is read.

A stranger's file of kilobytes may unpack to more than any memory. Covered are row groups that
unpack to too much, and words that stand in a dictionary once and in very many rows. Not covered is
a file whose metadata gives smaller pages than it holds; Parquet bounds such a page by 2 GiB.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.errors import ShardError

MOST_BYTES = 2 << 30
"""Of one row group. Ours are written to hold an eighth of it (`rows_a_group`)."""


def rows_a_group(table: pa.Table, most_rows: int) -> int:
    """How many rows a group may have so that it is far from MOST_BYTES."""
    a_row: int = max(table.nbytes // max(table.num_rows, 1), 1)
    return max(min(most_rows, (MOST_BYTES >> 3) // a_row), 1)


def check_unpacked(buffer: pa.Buffer, path: Path) -> None:
    """Raises ShardError if a row group of the file in `buffer` unpacks to more than MOST_BYTES."""
    metadata = parquet.ParquetFile(pa.BufferReader(buffer)).metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # A dictionary's word counts once in the metadata, however many rows hold it.
        suspicious = [
            chunk.path_in_schema
            for chunk in map(group.column, range(group.num_columns))
            if chunk.has_dictionary_page
            and chunk.physical_type == "BYTE_ARRAY"
            and chunk.num_values * chunk.total_uncompressed_size > MOST_BYTES
        ]
        size = group.total_byte_size
        if suspicious and size <= MOST_BYTES:
            size += _spelt_out(buffer, number, suspicious, MOST_BYTES - size)
        if size > MOST_BYTES:
            raise ShardError(
                f"{path}: a group of rows unpacks to more than {MOST_BYTES >> 20} MiB",
                "the file was not written by xp",
            )


def _spelt_out(buffer: pa.Buffer, group: int, columns: list[str], most: int) -> int:
    """Bytes of the columns with every word written in full; stops counting above `most`."""
    file = parquet.ParquetFile(pa.BufferReader(buffer), read_dictionary=columns)
    size = 0
    for batch in file.iter_batches(batch_size=1024, row_groups=[group], columns=columns):
        size += sum(map(unpacked, batch.columns))
        if size > most:
            break
    return size


def unpacked(column: pa.Array) -> int:
    """Bytes of the column with each of its words spelt out."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
        return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0) + 8 * len(column)
    if pa.types.is_list(column.type):
        return unpacked(column.flatten()) + 8 * len(column)
    if pa.types.is_struct(column.type):
        return sum(unpacked(part) for part in column.flatten())
    return int(column.nbytes)
