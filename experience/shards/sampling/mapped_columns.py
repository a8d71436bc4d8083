"""Columns in mapped files: where each block's values lie, and how rows of them are gathered.

Rows are gathered straight from mapped files by numpy and Arrow: one copy, no Python a row. A block
costs 24 bytes, and 16 more for each wanted column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.shards.record.schema import TYPES
from experience.shards.sampling.row_index import Growing

_INLINE = 12  # bytes that an Arrow view holds itself


@dataclass(frozen=True)
class Ragged:
    """Rows of varying length: values [total], read-only, and offsets int64 [n·k + 1].

    Row i is values[offsets[i]:offsets[i+1]]. Text is UTF-8 bytes.
    """

    values: np.ndarray
    offsets: np.ndarray

    def row(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


class Column:
    """Where a column lies: for each block two byte positions in its segment's file.

    `values`: of the values. `guide`: of the bits that tell which values are known (−1: all are), or
    for texts and lists, of the offsets at which each begins.
    """

    def __init__(self, name: str) -> None:
        type_ = TYPES.get(name)
        if type_ is None:
            raise ShardError(f"no column {name!r}", f"there are: {', '.join(TYPES)}")
        self.is_text = pa.types.is_large_string(type_) or pa.types.is_large_binary(type_)
        self.is_list = pa.types.is_list(type_) and pa.types.is_primitive(type_.value_type)
        self.is_id = pa.types.is_fixed_size_binary(type_)
        if not (
            self.is_text
            or self.is_list
            or pa.types.is_primitive(type_)
            or (self.is_id and name == "stream_id")
        ):
            raise ShardError(
                f"column {name} ({type_}) cannot be gathered", "read it with Catalog.dataset()"
            )
        self.is_bits = pa.types.is_boolean(type_)
        plain = type_.value_type if self.is_list else type_
        self.dtype = np.dtype(
            np.uint8 if self.is_text else "V16" if self.is_id else plain.to_pandas_dtype()
        )
        self.guide, self.values = Growing(np.int64), Growing(np.int64)

    def note(self, column: pa.Array, origin: int) -> None:
        """`origin`: the address at which the file would begin if all of it were mapped."""
        buffers = column.buffers()
        guide, values = (buffers[1], buffers[-1]) if self.is_text or self.is_list else buffers
        self.guide.extend(np.array([-1 if guide is None else guide.address - origin]))
        self.values.extend(
            np.array([0 if values is None or not values.size else values.address - origin])
        )


class MappedFile:
    """One segment's file in memory, seen as bytes and as the types that its columns have."""

    def __init__(self, buffer: pa.Buffer) -> None:
        self.buffer = buffer
        self._bytes = np.frombuffer(buffer, np.uint8)

    @property
    def size(self) -> int:
        return len(self._bytes)

    def seen_as(self, dtype: np.dtype[Any]) -> np.ndarray:
        return self._bytes[: self.size - self.size % dtype.itemsize].view(dtype)

    def bits(self, positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        bytes_: np.ndarray = self._bytes[positions + (numbers >> 3)]
        return (bytes_ >> (numbers & 7).astype(np.uint8) & 1).astype(bool)

    def heads(self, positions: np.ndarray) -> np.ndarray:
        """The first bytes at each position, as many as a view holds itself."""
        heads: np.ndarray = self._bytes[
            np.minimum(positions[:, None] + np.arange(_INLINE), self.size - 1)
        ]
        return heads


def gather_numbers(
    column: Column,
    parts: list[tuple[MappedFile, np.ndarray]],
    guide: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
) -> np.ndarray:
    found = np.empty(len(inside), column.dtype)
    unknown = np.nan if column.dtype.kind == "f" else 0
    for mapped, where in parts:
        at, of = inside[where], values[where]
        if column.is_bits:
            found[where] = mapped.bits(of, at)
        elif column.is_id:  # Arrow aligns to 8 bytes, not to 16
            words = mapped.seen_as(np.dtype(np.int64))[(of // 8 + 2 * at)[:, None] + np.arange(2)]
            found[where] = words.view(column.dtype).ravel()
        else:
            found[where] = mapped.seen_as(column.dtype)[of // column.dtype.itemsize + at]
        some = where[guide[where] >= 0]
        if len(some):
            found[some] = np.where(mapped.bits(guide[some], inside[some]), found[some], unknown)
    return found


def gather_ragged(
    column: Column,
    parts: list[tuple[MappedFile, np.ndarray]],
    guide: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
) -> Ragged:
    """The rows of a column of texts or lists, copied together.

    Arrow copies them in one call: each row is a binary view (length, first bytes or number of a
    buffer, position) of a mapped file. No Python runs for a row.
    """
    if not len(inside):
        return Ragged(np.empty(0, column.dtype), np.zeros(1, np.int64))
    width = np.dtype(np.int64 if column.is_text else np.int32)
    views = np.zeros((len(inside), 4), np.int32)
    heads = views.view(np.uint8)
    for number, (mapped, where) in enumerate(parts):
        if mapped.size > np.iinfo(np.int32).max:
            raise ShardError("a segment is larger than 2 GiB", "write with a smaller seal_bytes")
        bounds = mapped.seen_as(width)
        at = guide[where] // width.itemsize + inside[where]
        begins, ends = bounds[at].astype(np.int64), bounds[at + 1].astype(np.int64)
        sizes, positions = (
            (ends - begins) * column.dtype.itemsize,
            values[where] + begins * column.dtype.itemsize,
        )
        views[where, 0], views[where, 2], views[where, 3] = sizes, number, positions
        short = sizes <= _INLINE
        heads[where[short], 4:] = mapped.heads(positions[short])
    view = pa.Array.from_buffers(
        pa.binary_view(),
        len(inside),
        [None, pa.py_buffer(views), *(mapped.buffer for mapped, _ in parts)],
    )
    copied = view.cast(pa.large_binary())
    offsets = np.frombuffer(copied.buffers()[1], np.int64, len(inside) + 1) // column.dtype.itemsize
    return Ragged(np.frombuffer(copied.buffers()[2] or b"", column.dtype), offsets)
