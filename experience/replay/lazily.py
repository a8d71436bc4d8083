"""Sequences of episodes, groups and transitions whose rows are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from experience.episode import Episode
from experience.step import Step

T = TypeVar("T")


class Lazily(Sequence[T]):
    """`size()` items, of which `read(first, end)` reads some. A slice is a list, read at once."""

    def __init__(self, size: Callable[[], int], read: Callable[[int, int], list[T]]) -> None:
        self._size, self._read = size, read

    def __len__(self) -> int:
        return self._size()

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            first, end, step = at.indices(len(self))
            if step == 1:
                return self._read(first, max(first, end))
            return [self[number] for number in range(first, end, step)]
        number = range(len(self))[at]
        return self._read(number, number + 1)[0]

    def __iter__(self) -> Iterator[T]:
        """One after another, so that no more than one is in memory for it."""
        for number in range(len(self)):
            yield self[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def pairs_of(
    numbers: np.ndarray, ends: np.ndarray, read: Callable[[int], Episode], first: int, end: int
) -> list[tuple[Step, Step]]:
    """Transitions `first` to `end` of episodes whose counts sum up to `ends`; asides left out."""
    found: list[tuple[Step, Step]] = []
    place = int(np.searchsorted(ends, first, side="right"))
    while place < len(numbers) and (before := int(ends[place - 1]) if place else 0) < end:
        pairs = [p for p in read(int(numbers[place])).transitions if not p[0].is_aside]
        found += pairs[max(first - before, 0) : end - before]
        place += 1
    return found
