"""Row files: in which mapped file each indexed row lies, and its columns gathered from there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from experience.shards.follow import Found
from experience.shards.sampling.mapped_columns import (
    Column,
    MappedFile,
    Ragged,
    gather_numbers,
    gather_ragged,
)
from experience.shards.sampling.row_index import INDEXED, Growing
from experience.shards.storage.blocks import BlockReader

_KEYS = ("stream_id", "t")


@dataclass(frozen=True)
class Windows:
    """n windows of k rows, row-major.

    numbers[name] is [n, k], an unknown value NaN or 0; ragged[name] holds n·k rows.
    """

    numbers: dict[str, np.ndarray]
    ragged: dict[str, Ragged]


class RowFiles:
    """Keeps the files mapped in which the wanted columns lie, so that they outlive their names."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = {name: Column(name) for name in columns}
        self._keys = {name: Column(name) for name in _KEYS}
        self._segments: dict[tuple[BlockReader, str] | MappedFile, int] = {}
        self._mapped: dict[int, MappedFile] = {}
        self._block_row, self._block_segment = Growing(np.int64), Growing(np.int32)
        self._block_skip = Growing(np.int32)

    def segment_of(self, found: Found) -> int | None:
        """The number of the file in which the rows lie ready; None if they must be thawed."""
        block, reader = found.block, found.reader
        if block is None or reader is None or not block.lies_ready((*self._columns, *self._keys)):
            return None
        segment = self._segments.setdefault((reader, reader.path.suffix), len(self._segments))
        if segment not in self._mapped or self._mapped[segment].size < block.commit.end:
            try:
                # Mapped now: the file stays readable when its name goes.
                self._mapped[segment] = MappedFile(reader.mapped())
            except FileNotFoundError:  # it was sealed or went cold since the block was read
                return None
        return segment

    def thaw(self, batches: Sequence[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Writes rows into a temporary file: each batch, its file's number and its address.

        For rows that do not lie ready in a file: cold, compressed, or of an older format. The
        temporary file goes with this process.
        """
        wanted = list(dict.fromkeys((*self._columns, *self._keys, *INDEXED)))
        with tempfile.TemporaryFile() as file:
            schema = batches[0].select(wanted).schema.remove_metadata()
            with pa.ipc.new_file(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch.select(wanted).replace_schema_metadata(None))
            file.flush()
            mapped = MappedFile(pa.memory_map(f"/proc/self/fd/{file.fileno()}").read_buffer())
        segment = self._segments[mapped] = len(self._segments)
        self._mapped[segment] = mapped
        thawed = pa.ipc.open_file(mapped.buffer)
        for number in range(thawed.num_record_batches):
            yield thawed.get_batch(number), segment, mapped.buffer.address

    def note(
        self, batch: pa.RecordBatch, first_row: int, segment: int, origin: int, skip: int
    ) -> None:
        """Notes where a block lies, whose rows from `skip` on have numbers from `first_row` on.

        `origin`: the address at which the file would begin, were all of it where the batch is.
        """
        self._block_row.extend(np.array([first_row]))
        self._block_skip.extend(np.array([skip]))
        self._block_segment.extend(np.array([segment]))
        for name, column in (*self._columns.items(), *self._keys.items()):
            column.note(batch.column(name), origin)

    def gather(self, rows: np.ndarray) -> Windows:
        """The wanted columns of `rows` [n, k], each as one contiguous array."""
        return self._gather(rows, self._columns)

    def keys(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stream ids V16 and t int64, each in the shape of `rows`."""
        found = self._gather(rows, self._keys)
        return found.numbers["stream_id"], found.numbers["t"]

    def _gather(self, rows: np.ndarray, columns: Mapping[str, Column]) -> Windows:
        flat = rows.ravel()
        block = np.searchsorted(self._block_row.view, flat, side="right") - 1
        inside = flat - self._block_row.view[block] + self._block_skip.view[block]
        parts = list(self._by_segment(self._block_segment.view[block]))
        windows = Windows({}, {})
        for name, column in columns.items():
            guide, values = column.guide.view[block], column.values.view[block]
            if column.is_text or column.is_list:
                windows.ragged[name] = gather_ragged(column, parts, guide, values, inside)
            else:
                numbers = gather_numbers(column, parts, guide, values, inside)
                windows.numbers[name] = numbers.reshape(rows.shape)
        return windows

    def _by_segment(self, segment: np.ndarray) -> Iterator[tuple[MappedFile, np.ndarray]]:
        """Each segment's file, and which of the rows lie in it; nothing of no rows."""
        if not len(segment):
            return
        order = np.argsort(segment, kind="stable")
        numbers, starts = np.unique(segment[order], return_index=True)
        for number, where in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            yield self._mapped[number], where
