"""The index of rows: each row's successor in its stream, and what decides whether it is drawn.

A row costs 13 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.step import SOURCES, Boundary, Source

INDEXED = ("boundary", "source", "split", "policy_version")
_BREAKS = int(Boundary.WORKER_RESTART | Boundary.GAP)
_SOURCE, _HELD_OUT, _BREAK, _GIVEN_AGAIN = 0b11, 4, 8, 16  # bits of a row's mark
_NO_VERSION = np.iinfo(np.int32).max  # no policy acted: never too old


class Growing:
    """A numpy array that is appended to.

    It grows by half, so that a row costs little more than its own size.
    """

    def __init__(self, dtype: Any, values: np.ndarray | None = None) -> None:
        """`values`: those that it begins with, which are copied."""
        first = np.empty(0, dtype) if values is None else values
        self._data, self.size = np.empty(max(64, len(first)), dtype), len(first)
        self._data[: self.size] = first

    def extend(self, values: np.ndarray) -> None:
        while self.size + len(values) > len(self._data):
            more = np.empty_like(self._data, shape=max(len(self._data) // 2, len(values)))
            self._data = np.concatenate([self._data, more])
        self._data[self.size : self.size + len(values)] = values
        self.size += len(values)

    @property
    def view(self) -> np.ndarray:
        return self._data[: self.size]


class RowIndex:
    """Numbers rows in the order in which they come, and links each to the next row of its stream.

    `note(stream, first, last)` is called for the rows of each stream that are new.
    """

    def __init__(self, note: Callable[[bytes, int, int], None]) -> None:
        self._note = note
        self._last: dict[bytes, tuple[int, int]] = {}  # stream -> (its last row's number, t)
        self._next, self._mark = Growing(np.int64), Growing(np.uint8)
        self._version = Growing(np.int32)
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes in the rows of `batch`; those known already are marked, and never drawn."""
        column = batch.column("stream_id")
        ids = np.frombuffer(column.buffers()[1], "V16", batch.num_rows, 16 * column.offset)
        t = batch.column("t").to_numpy()
        mark = _marks(batch)
        self._version.extend(_versions(batch))
        self._next.extend(np.full(batch.num_rows, -1, np.int64))
        following = self._next.view
        streams, of = np.unique(ids, return_inverse=True)
        for ordinal, stream in enumerate(streams.tolist()):
            at = np.flatnonzero(of == ordinal)
            last, last_t = self._last.get(stream, (-1, -1))
            again = t[at] <= last_t  # rows given again after a failed sync are known already
            mark[at[again]] |= _GIVEN_AGAIN
            at = at[~again]
            if len(at) == 0:
                continue
            self._note(stream, int(t[at[0]]), int(t[at[-1]]))
            rows = self.rows + at
            next_is_there = np.diff(t[at]) == 1  # else rows in between were removed
            following[rows[:-1][next_is_there]] = rows[1:][next_is_there]
            if last >= 0 and t[at[0]] == last_t + 1:
                following[last] = rows[0]
            self._last[stream] = (int(rows[-1]), int(t[at[-1]]))
        self._mark.extend(mark)
        self.rows += batch.num_rows

    def windows_from(
        self,
        first: np.ndarray,
        k: int,
        source: Source,
        split: str,
        oldest_version: int | None,
        across_gaps: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers [n, k] of the windows from `first` [n] on, and which may be drawn [n]."""
        rows = self._successors(first, k, across_gaps)
        usable = rows[:, -1] >= 0
        mark = self._mark.view[rows]
        usable &= ((mark & _SOURCE) == SOURCES.index(source)).all(1)
        usable &= mark[:, 0] & _GIVEN_AGAIN == 0
        if split:
            usable &= (mark[:, 0] & _HELD_OUT != 0) == (split != "train")
        if oldest_version is not None:
            usable &= (self._version.view[rows] >= oldest_version).all(1)
        return rows, usable

    def _successors(self, first: np.ndarray, k: int, across_gaps: bool) -> np.ndarray:
        """Each row and the k − 1 after it in its stream; from where there is none on, −1."""
        following, mark = self._next.view, self._mark.view
        rows = np.empty((len(first), k), np.int64)
        rows[:, 0] = first
        for i in range(1, k):
            row = np.where(rows[:, i - 1] < 0, -1, following[rows[:, i - 1]])
            rows[:, i] = row if across_gaps else np.where(mark[row] & _BREAK, -1, row)
        return rows


def _marks(batch: pa.RecordBatch) -> np.ndarray:
    """uint8 [rows]: the source, whether it is held out, and whether a window may lead up to it."""
    boundary = batch.column("boundary").to_numpy()
    mark = np.where(boundary & _BREAKS, _BREAK, 0).astype(np.uint8)
    source = batch.column("source")
    for number, name in enumerate(SOURCES):
        mark[pc.equal(source, name).to_numpy(zero_copy_only=False)] |= number
    held_out = pc.not_equal(batch.column("split"), "train").to_numpy(zero_copy_only=False)
    mark[held_out] |= _HELD_OUT
    return mark


def _versions(batch: pa.RecordBatch) -> np.ndarray:
    version = batch.column("policy_version")
    if version.null_count:
        version = version.fill_null(_NO_VERSION)
    found: np.ndarray = version.to_numpy().astype(np.int32)
    return found
