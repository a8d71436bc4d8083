"""Ids of 16 bytes, each with a number: 0, 1, 2 … in the order in which they came.

A hash table in numpy, open addressing with linear probing: about 32 bytes an id, where a dict of
bytes takes about 180.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experience.shards.sampling.row_index import Growing

_EMPTY = -1
_AT_ONCE = 4096
"""Ids that are Python objects at one time."""


class KeyMap:
    """Numbers for ids that are added one after another. An id that is there keeps its number."""

    def __init__(self, ids: np.ndarray | None = None) -> None:
        self._ids = Growing("V16")
        self._slots = np.full(64, _EMPTY, np.int32)
        if ids is not None and len(ids):
            self._ids = Growing("V16", ids)
            self._grow()

    def __len__(self) -> int:
        return self._ids.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._ids.view.tolist())

    @property
    def ids(self) -> np.ndarray:
        """V16 [n], by number."""
        return self._ids.view

    def find(self, key: bytes) -> int:
        """The number of an id; −1 if it is not there."""
        return int(self._slots[self._slot(key)])

    def add(self, key: bytes) -> int:
        """The number of an id, which is added if it is new."""
        slot = self._slot(key)
        if self._slots[slot] != _EMPTY:
            return int(self._slots[slot])
        number = len(self)
        self._ids.extend(np.frombuffer(key, "V16"))
        self._slots[slot] = number
        if 2 * len(self) > len(self._slots):
            self._grow()
        return number

    def _slot(self, key: bytes) -> int:
        """Where the id is, or where it would be."""
        slots, ids, mask = self._slots, self._ids.view, len(self._slots) - 1
        slot = hash(key) & mask
        while (number := slots[slot]) != _EMPTY and ids[number].tobytes() != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        size = len(self._slots)
        while size < 2 * len(self) + 1:
            size *= 2
        self._slots = np.full(size, _EMPTY, np.int32)
        slots = memoryview(self._slots)  # type: ignore[arg-type]
        for first in range(0, len(self), _AT_ONCE):
            for number, key in enumerate(self._ids.view[first : first + _AT_ONCE].tolist(), first):
                slot = hash(key) & (size - 1)
                while slots[slot] != _EMPTY:
                    slot = (slot + 1) & (size - 1)
                slots[slot] = number
