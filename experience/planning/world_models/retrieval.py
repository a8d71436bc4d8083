"""The most similar texts to a question: cosine similarity of hashed words, weighted by idf."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WIDTH = 512


class Memory:
    """The newest `most` texts with their keys. Words that all texts share weigh little (idf)."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._vectors = np.zeros((0, _WIDTH), np.float32)
        self._keys: list[int] = []
        self._texts_with = np.zeros(_WIDTH, np.float64)
        self._seen = 0
        self._weighed: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: int, texts: Sequence[str]) -> None:
        """Texts with the keys `key`, `key` + 1, …"""
        if not texts:
            return
        vectors = np.stack([_counts(text) for text in texts])
        self._texts_with += (vectors > 0).sum(0)
        self._seen += len(texts)
        self._vectors = np.concatenate([self._vectors, vectors])[-self._most :]
        self._keys = [*self._keys, *range(key, key + len(texts))][-self._most :]
        self._weighed = None

    def nearest(self, texts: Sequence[str], k: int, without: Sequence[int] = ()) -> list[list[int]]:
        """For each text the keys of the `k` most similar ones, the most similar last.

        The key `without[i]` is never among those of text i.
        """
        if not self._keys or k == 0:
            return [[] for _ in texts]
        if self._weighed is None:
            # The 0.01 keeps a text of common words only from becoming a zero vector.
            weight = np.log((1 + self._seen) / (1 + self._texts_with)).astype(np.float32) + 0.01
            self._weighed = weight, _unit(self._vectors * weight)
        weight, known = self._weighed
        alike = _unit(np.stack([_counts(text) for text in texts]) * weight) @ known.T
        first = self._keys[0]
        for row, key in enumerate(without):
            if 0 <= key - first < len(self._keys):
                # Counts are not negative, and so is no cosine of them: −1 is below all.
                alike[row, key - first] = -1
        k = min(k, len(self._keys) - bool(len(without)))
        order = np.argsort(alike, axis=1, kind="stable")[:, len(self._keys) - k :]
        return [[self._keys[i] for i in row] for row in order]


def _counts(text: str) -> NDArray[np.float32]:
    """float [_WIDTH]: how often each word stands there, by hash; numbers and signs are words."""
    found = np.zeros(_WIDTH, np.float32)
    for word in re.findall(r"\w+|[^\w\s]", text):
        # crc32 and not hash(): Python's differs from process to process.
        found[zlib.crc32(word.encode()) % _WIDTH] += 1
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9
    )
    return unit
