"""A run as a dataset for `torch.utils.data.DataLoader`: every row once a pass, by any workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from experience.opened.rows import RowReader, Spans
from experience.reward import RewardModel
from experience.shards.record.schema import TYPES
from experience.shards.sampling.mapped_columns import Ragged
from experience.shards.sampling.row_files import Windows
from experience.shards.selection import Store

Batch = dict[str, Any]


class StepDataset(IterableDataset[Batch]):
    """Batches of windows: each window is up to `k` successive rows of one episode.

    Invariant: one pass gives every row of the chosen episodes exactly once, whatever the number of
    DataLoader workers and of processes (`share`), while the store grows or is compacted: what is
    given was chosen when the dataset was made. Batches mix no two stores.
    """

    def __init__(
        self,
        chosen: Sequence[tuple[Store, Spans]],
        columns: Sequence[str],
        reward: RewardModel | None,
        *,
        k: int,
        batch: int,
        seed: int | None,
        share: tuple[int, int],
    ) -> None:
        self.epoch = 0
        """Set it before each pass: passes of different epochs have different orders."""
        self._chosen, self._columns, self._reward = chosen, list(columns), reward
        self._k, self._batch, self._seed, self._share = k, batch, seed, share
        self._windows = [np.cumsum(-(-spans.rows // k)) for _, spans in chosen]
        self._readers = self._open()

    def _open(self) -> list[RowReader]:
        return [RowReader(store, self._columns, self._reward) for store, _ in self._chosen]

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files are not sent to a worker: it opens its own.
        return self.__dict__ | {"_readers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers = self._open()

    def loader(self, workers: int = 0) -> DataLoader[Batch]:
        """A DataLoader of this dataset with so many worker processes; 0 reads in this one.

        Workers are started anew, not forked: Arrow, DuckDB and Polars have threads, and a fork of a
        process with threads may crash. A script keeps its own work below `if __name__ ==
        "__main__":`, because each worker imports it.
        """
        anew = {"multiprocessing_context": "forkserver"} if workers else {}
        return DataLoader(self, batch_size=None, num_workers=workers, **anew)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Batches of a pass, of all workers of this process together."""
        rank, processes = self._share
        return len(range(rank, len(self._batches()), processes))

    def _batches(self) -> list[tuple[int, int]]:
        """(store, number of its first window) of each batch of a pass, in order."""
        return [
            (number, start)
            for number, ends in enumerate(self._windows)
            for start in range(0, int(ends[-1]) if len(ends) else 0, self._batch)
        ]

    def __iter__(self) -> Iterator[Batch]:
        rank, processes = self._share
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        batches = self._batches()
        orders = [self._order(number) for number in range(len(self._chosen))]
        if self._seed is not None:
            np.random.default_rng([self._seed, self.epoch]).shuffle(batches)
        for store, start in batches[rank + processes * number :: processes * workers]:
            yield self._read(store, orders[store][start : start + self._batch])

    def _order(self, store: int) -> np.ndarray:
        """The numbers of a store's windows in the order of this pass: the same for all workers."""
        ends = self._windows[store]
        total = int(ends[-1]) if len(ends) else 0
        if self._seed is None:
            return np.arange(total)
        return np.random.default_rng([self._seed, self.epoch, store]).permutation(total)

    def _read(self, store: int, windows: np.ndarray) -> Batch:
        ends, spans, reader = self._windows[store], self._chosen[store][1], self._readers[store]
        at = np.searchsorted(ends, windows, side="right")
        begins = np.where(at > 0, ends[at - 1], 0)
        rows = reader.rows_of(spans, at, (windows - begins) * self._k, self._k)
        return as_tensors(reader.gather(np.maximum(rows, 0)), rows >= 0)


def as_tensors(windows: Windows, mask: np.ndarray) -> Batch:
    """Columns as tensors [n, k] and lists; `mask` bool [n, k] says which rows there are.

    Numbers are 0 where the mask is False. A text is a str, bytes are bytes, a list of numbers is a
    tensor: they stand in one list a window, which is as long as the window. With k = 1 there is no
    mask: tensors are [n], and each list holds the rows themselves.
    """
    batch: Batch = {}
    for name, column in windows.numbers.items():
        if column.dtype.kind == "V":
            batch[name] = _by_window([bytes(one) for one in column.ravel().tolist()], mask)
        else:
            batch[name] = torch.from_numpy(np.where(mask, column, column.dtype.type(0)))
    for name, ragged in windows.ragged.items():
        rows = [_value(name, ragged, row) for row in range(mask.size)]
        batch[name] = _by_window(rows, mask)
    if mask.shape[1] > 1:
        return batch | {"mask": torch.from_numpy(mask)}
    return {name: of[:, 0] if torch.is_tensor(of) else _flat(of) for name, of in batch.items()}


def _value(name: str, ragged: Ragged, row: int) -> Any:
    of = ragged.row(row)
    if str(TYPES[name]) == "large_string":
        return of.tobytes().decode()
    if str(TYPES[name]) == "large_binary":
        return of.tobytes()
    return torch.from_numpy(of.copy())  # a row of a mapped file is read-only


def _by_window(rows: list[Any], mask: np.ndarray) -> list[list[Any]]:
    k = mask.shape[1]
    return [rows[n * k : n * k + int(count)] for n, count in enumerate(mask.sum(1))]


def _flat(windows: list[list[Any]]) -> list[Any]:
    return [row for window in windows for row in window]
