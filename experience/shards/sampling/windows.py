"""Windows: runs of successive rows of a stream, drawn from a growing store as contiguous arrays.

Blocks are compared with their CRC once, when first seen, and it is noted where the wanted columns
lie in the file (see mapped_columns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.shards.follow import Follower
from experience.shards.sampling.row_files import RowFiles, Windows
from experience.shards.sampling.row_index import RowIndex
from experience.shards.sampling.samplers import Sampler, Uniform
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import given_store
from experience.step import Source

_THAW_BATCHES = 64  # that share a temporary file
_TRIES = 32  # rounds of rejection sampling before all rows are looked at
_LOOKED_AT_ONCE = 100_000
Usable = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class WindowReader:
    """Draws and gathers windows of `columns` from the shards below one directory.

    Invariants: only committed rows whose block's CRC is right are ever given; a window is k
    successive rows of one stream; it crosses no restart and no gap, mixes no sources, and is of the
    wanted split, unless asked.
    """

    def __init__(
        self, directory: Path, columns: Sequence[str], *, seed: int = 0, disk: Disk = REAL
    ) -> None:
        store = given_store(directory) if disk is REAL else Path(directory)
        self._follower = Follower(store, disk=disk)
        self._files, self._index = RowFiles(columns), RowIndex(self._follower.note)
        self._rng = np.random.default_rng(seed)

    @property
    def rows(self) -> int:
        """How many rows were taken in."""
        return self._index.rows

    def refresh(self) -> int:
        """Takes in the rows committed since; returns how many.

        Raises ShardError if a row before them is missing.
        """
        before = self.rows
        thawing: list[pa.RecordBatch] = []
        for found in self._follower.found():
            segment = self._files.segment_of(found)
            if segment is None:
                thawing.append(found.rows)
            if segment is not None or len(thawing) == _THAW_BATCHES:
                self._thaw(thawing)  # before what follows: rows of a stream are taken in order
                thawing = []
            if segment is not None and found.block is not None:
                block = found.block
                self._take(block.batch, segment, block.origin, block.skip)
        self._thaw(thawing)
        return self.rows - before

    def _thaw(self, batches: Sequence[pa.RecordBatch]) -> None:
        if batches:
            for batch, segment, origin in self._files.thaw(batches):
                self._take(batch, segment, origin)

    def _take(self, batch: pa.RecordBatch, segment: int, origin: int, skip: int = 0) -> None:
        """`skip` rows at the head of the batch are known already."""
        self._files.note(batch, self.rows, segment, origin, skip)
        self._index.add(batch.slice(skip))

    def draw(
        self,
        n: int,
        k: int,
        sampler: Sampler | None = None,
        *,
        source: Source = "real",
        split: str = "train",
        oldest_version: int | None = None,
        across_gaps: bool = False,
    ) -> np.ndarray:
        """Row numbers int64 [n, k] of windows of k rows, with replacement.

        `sampler` says how often each first row is drawn. `oldest_version`: no row was acted by an
        older policy. `split` "" takes any. Raises ShardError if there is no such window.
        """
        sampler = sampler or Uniform()

        def usable(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self._index.windows_from(first, k, source, split, oldest_version, across_gaps)

        drawn, missing = np.empty((n, k), np.int64), np.arange(n)
        for _ in range(_TRIES if self.rows else 0):
            rows, ok = usable(sampler.propose(len(missing), self.rows, self._rng))
            drawn[missing[ok]] = rows[ok]
            missing = missing[~ok]
            if len(missing) == 0:
                return drawn
        drawn[missing] = self._draw_among_few(len(missing), sampler, usable)
        return drawn

    def _draw_among_few(self, n: int, sampler: Sampler, usable: Usable) -> np.ndarray:
        """Draws from the same distribution by looking at all rows, where few of them are usable."""
        kept, weights = [], []
        for start in range(0, self.rows, _LOOKED_AT_ONCE):
            first = np.arange(start, min(start + _LOOKED_AT_ONCE, self.rows))
            rows, ok = usable(first)
            kept.append(rows[ok])
            weights.append(sampler.weight(first[ok], self.rows))
        rows = np.concatenate(kept) if kept else np.empty((0, 1), np.int64)
        weight = np.concatenate(weights) if weights else np.empty(0)
        if not weight.sum():
            raise ShardError(
                "no window of that length and kind is in the store yet",
                "collect more, ask for shorter windows, or across_gaps=True",
            )
        chosen: np.ndarray = rows[self._rng.choice(len(rows), n, p=weight / weight.sum())]
        return chosen

    def draw_mixture(
        self, n: int, k: int, shares: Mapping[Source, float], **how: Any
    ) -> np.ndarray:
        """Windows of several sources, each its share of `n` (the nearest whole numbers), one
        source after another."""
        wanted = np.array(list(shares.values())) / sum(shares.values()) * n
        counts = wanted.astype(int)
        # The windows left over by rounding down go to the sources that lost most by it.
        counts[np.argsort(counts - wanted, kind="stable")[: n - counts.sum()]] += 1
        drawn = [
            self.draw(int(count), k, source=source, **how)
            for source, count in zip(shares, counts, strict=True)
            if count
        ]
        return np.concatenate(drawn)

    def identify(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(stream ids V16 [n], t int64 [n]) of row numbers [n]: what names a row for ever.

        A row's number holds only in this reader.
        """
        return self._files.keys(rows)

    def gather(self, rows: np.ndarray) -> Windows:
        """The columns of `rows` [n, k], each as one contiguous array."""
        return self._files.gather(rows)
