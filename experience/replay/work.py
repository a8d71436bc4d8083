"""Finished work: which pieces of work were lived to an end, and in which stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Set
from typing import TypeVar

import numpy as np

from experience.shards.episodes.key_map import KeyMap
from experience.shards.sampling.row_index import Growing

T = TypeVar("T")


class FinishedWork(Set[bytes]):
    """A set of work ids, about 40 bytes each; it is compared and joined with sets of bytes."""

    def __init__(self) -> None:
        self._known = KeyMap()
        self._lived = KeyMap()
        """Work, or work and its agent where it has several, by which streams are known."""
        self._streams = Growing(np.int32)

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> set[T]:  # type: ignore[override]
        return set(it)

    def __contains__(self, work: object) -> bool:
        return isinstance(work, bytes) and self._known.find(work) >= 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def stream_of(self, work: bytes, agent: str = "") -> int:
        """The number of the stream in which it was lived, as `agent` where it has several; −1 if
        it was not finished."""
        number = self._lived.find(_key(work, agent))
        return -1 if number < 0 else int(self._streams.view[number])

    def finish(self, work: bytes, stream: int, agent: str = "") -> None:
        self._known.add(work)
        number = self._lived.add(_key(work, agent))
        if number == self._streams.size:
            self._streams.extend(np.array([stream], np.int32))
        self._streams.view[number] = stream


def _key(work: bytes, agent: str) -> bytes:
    return hashlib.blake2b(work + agent.encode(), digest_size=16).digest() if agent else work
