"""Rows of a store by number, gathered from mapped files, with signals and amended rewards beside.

`WindowReader` gathers columns as they were written. Signals by name, and rewards that were amended
or are computed again, are no such columns: they are read once, 8 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experience.errors import ShardError
from experience.reward import RewardModel
from experience.shards.amend import in_force
from experience.shards.catalog import SIGNAL
from experience.shards.sampling.row_files import Windows
from experience.shards.sampling.windows import WindowReader
from experience.shards.selection import Store, Table, select


@dataclass(frozen=True)
class Spans:
    """Episodes as rows of their streams: stream ids V16 [n], the first t [n], how many rows [n]."""

    streams: np.ndarray
    first_t: np.ndarray
    rows: np.ndarray


def spans_of(episodes: Table, run: str) -> Spans:
    """The rows of those `episodes` (see Run.episodes) that are of one run."""
    of_run = np.array([name == run for name in episodes.column("run").to_pylist()], bool)
    ids = np.array(episodes.column("stream_id").to_pylist(), "V16")
    first, last = (episodes.column(name).to_numpy() for name in ("first_t", "last_t"))
    return Spans(ids[of_run], first[of_run], (last - first + 1)[of_run])


class RowReader:
    """Gathers `columns` of one store's rows that were committed when it was made.

    columns: of the record, and `signal.NAME`. Unknown numbers are NaN, or 0 in a column of whole
    numbers. `reward`: computes the column `reward` again; None: each row's newest.
    """

    def __init__(
        self,
        store: Store,
        columns: Sequence[str],
        reward: RewardModel | None = None,
        *,
        seed: int = 0,
    ) -> None:
        amended = reward is not None or in_force(store.path, store.disk).rewards.num_rows > 0
        self._beside = [c for c in columns if c.startswith(SIGNAL) or (c == "reward" and amended)]
        written = [c for c in columns if c not in self._beside]
        self.windows = WindowReader(store.path, written, seed=seed, disk=store.disk)
        self.windows.refresh()
        self._by_stream = dict(_by_stream(self.windows))
        self._values = self._read_beside(store, reward)

    def _read_beside(self, store: Store, reward: RewardModel | None) -> dict[str, np.ndarray]:
        if not self._beside:
            return {}
        values = {name: np.full(self.windows.rows, np.nan) for name in self._beside}
        steps = select([store], ["stream_id", "t", *self._beside], "", reward)
        for batch in steps.batches():
            ids = np.array(batch.column("stream_id").to_pylist(), "V16")
            rows = self._known(ids, batch.column("t").to_numpy())
            for name in self._beside:
                found = batch.column(name).to_numpy(zero_copy_only=False)
                values[name][rows[rows >= 0]] = found[rows >= 0]
        return values

    def gather(self, rows: np.ndarray) -> Windows:
        """The columns of `rows` int64 [n, k], each as one contiguous array."""
        found = self.windows.gather(rows)
        return Windows(
            found.numbers | {name: of[rows] for name, of in self._values.items()}, found.ragged
        )

    def rows_of(self, spans: Spans, at: np.ndarray, offset: np.ndarray, k: int) -> np.ndarray:
        """Row numbers int64 [n, k] of the rows from `offset` on of the spans `at`.

        −1 after a span's end. Raises ShardError where a row is no longer in the store.
        """
        place = offset[:, None] + np.arange(k)
        inside = place < spans.rows[at][:, None]
        ids = np.repeat(spans.streams[at], k)
        rows = self._known(ids, (spans.first_t[at][:, None] + place).ravel()).reshape(place.shape)
        if (rows[inside] < 0).any():
            raise ShardError(
                "rows of a chosen episode were removed from the store", "open the run again"
            )
        return np.where(inside, rows, -1)

    def _known(self, ids: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Row numbers int64 [n] of the rows (ids V16 [n], t [n]); −1 of a row that is not there."""
        rows = np.full(len(t), -1, np.int64)
        streams, of = np.unique(ids, return_inverse=True)
        for ordinal, stream in enumerate(streams.tolist()):
            if stream not in self._by_stream:
                continue
            known_t, numbers = self._by_stream[stream]
            where = np.flatnonzero(of == ordinal)
            near = np.minimum(np.searchsorted(known_t, t[where]), len(known_t) - 1)
            rows[where] = np.where(known_t[near] == t[where], numbers[near], -1)
        return rows


def _by_stream(reader: WindowReader) -> Iterator[tuple[bytes, tuple[np.ndarray, np.ndarray]]]:
    """Each stream's t, ascending and each once, and the numbers of their rows."""
    ids, t = reader.identify(np.arange(reader.rows))
    order = np.argsort(ids, kind="stable")
    streams, starts = np.unique(ids[order], return_index=True)
    for stream, where in zip(streams.tolist(), np.split(order, starts[1:]), strict=True):
        # A row that was given again after a failed sync has two numbers: the first one holds.
        known, first = np.unique(t[where], return_index=True)
        yield bytes(stream), (known, where[first])
