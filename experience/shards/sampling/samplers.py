"""Samplers: which rows a window may begin at, and how often each is proposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Proposes rows 0 … rows − 1, newest last, in proportion to `weight`."""

    def propose(self, n: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [n], with replacement."""

    def weight(self, at: np.ndarray, rows: int) -> np.ndarray:
        """float64, of the rows `at`, up to a common factor."""


@dataclass(frozen=True)
class Uniform:
    """Every row alike."""

    def propose(self, n: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(rows, size=n)

    def weight(self, at: np.ndarray, rows: int) -> np.ndarray:
        return np.ones(len(at))


@dataclass(frozen=True)
class Recency:
    """A row's weight halves with every `half_life` rows that came after it."""

    half_life: float

    def propose(self, n: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        # The distribution of ages is a truncated exponential one; its inverse maps a uniform draw.
        oldest = 0.5 ** (rows / self.half_life)
        age = -self.half_life * np.log2(1 - rng.random(n) * (1 - oldest))
        rows_ago: np.ndarray = np.minimum(age.astype(np.int64), rows - 1)
        return rows - 1 - rows_ago

    def weight(self, at: np.ndarray, rows: int) -> np.ndarray:
        return 0.5 ** ((rows - 1 - at) / self.half_life)


class SumTree:
    """Weights by number, and draws in proportion to them in O(log n) vectorised steps.

    It grows by doubling.
    """

    def __init__(self) -> None:
        self._leaves = 1
        self._sums = np.zeros(2)

    @property
    def total(self) -> float:
        return float(self._sums[1])

    def __getitem__(self, at: np.ndarray) -> np.ndarray:
        values: np.ndarray = self._sums[self._leaves + at]
        return values

    def set(self, at: np.ndarray, weights: np.ndarray) -> None:
        """`at`: int64 [n], distinct; `weights`: float64 [n], none negative."""
        if len(at) == 0:
            return
        self._reach(int(at.max()) + 1)
        node = at + self._leaves
        self._sums[node] = weights
        while node[0] > 1:
            node = np.unique(node >> 1)
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        node, left = np.ones(n, np.int64), rng.random(n) * self.total
        while node[0] < self._leaves:
            node = 2 * node
            right = left >= self._sums[node]
            left = np.where(right, left - self._sums[node], left)
            node += right & (self._sums[node + 1] > 0)  # rounding never leads to where nothing is
        return node - self._leaves

    def _reach(self, size: int) -> None:
        while self._leaves < size:
            grown = np.zeros(4 * self._leaves)
            half, width = 1, 1
            while half <= self._leaves:  # every level becomes the left half of the one below
                grown[2 * width : 2 * width + half] = self._sums[half : 2 * half]
                half, width = 2 * half, 2 * width
            self._leaves *= 2
            grown[1] = grown[2]
            self._sums = grown


class Prioritised:
    """Rows in proportion to priority^α.

    A row that was never judged has the greatest priority seen so far.

    Schaul et al. 2016 (arXiv 1511.05952), eq. 1 and §3.4. Priorities belong to one learner, not to
    the store.
    """

    def __init__(self, alpha: float = 0.6) -> None:
        self._alpha, self._greatest, self._known, self._tree = alpha, 1.0, 0, SumTree()

    def propose(self, n: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        self._reach(rows)
        return self._tree.draw(n, rng)

    def weight(self, at: np.ndarray, rows: int) -> np.ndarray:
        self._reach(rows)
        return self._tree[at]

    def judge(self, at: np.ndarray, priorities: np.ndarray) -> None:
        """Sets new priorities of the rows `at`, e.g. absolute TD errors plus a little.

        The later of two for one row holds.
        """
        self._reach(int(at.max()) + 1)
        last = len(at) - 1 - np.unique(at[::-1], return_index=True)[1]
        self._greatest = max(self._greatest, float(priorities.max()))
        self._tree.set(at[last], priorities[last].astype(np.float64) ** self._alpha)

    def importance(self, at: np.ndarray, beta: float) -> np.ndarray:
        """The weights that correct a mean over drawn rows, float64 [n].

        w_i ∝ P(i)^−β, at most 1    Schaul et al. 2016, §3.4
        """
        weights: np.ndarray = self._tree[at] ** -beta
        weights /= weights.max()
        return weights

    def _reach(self, rows: int) -> None:
        if rows > self._known:
            new = np.arange(self._known, rows)
            self._tree.set(new, np.full(len(new), self._greatest**self._alpha))
            self._known = rows

    def save(self, identify: Identify) -> bytes:
        """Priorities by (stream, t), for the learner's checkpoint.

        A row's number holds in one reader only.
        """
        rows = np.arange(self._known)
        kept = np.empty(self._known, _SAVED)
        kept["stream"], kept["t"] = identify(rows)
        kept["weight"] = self._tree[rows]
        return np.array([self._greatest]).tobytes() + kept.tobytes()

    def restore(self, saved: bytes, identify: Identify, rows: int) -> None:
        """Takes saved priorities for a reader of the same store that has `rows` rows.

        Rows that were not known then count as new.
        """
        self._greatest, self._known, self._tree = (
            float(np.frombuffer(saved, count=1)[0]),
            0,
            SumTree(),
        )
        self._reach(rows)
        kept = np.frombuffer(saved, _SAVED, offset=8)
        places = dict(
            zip(
                zip(*(column.tolist() for column in identify(np.arange(rows))), strict=True),
                range(rows),
                strict=True,
            )
        )
        at = [places[key] for key in zip(kept["stream"].tolist(), kept["t"].tolist(), strict=True)]
        self._tree.set(np.array(at, np.int64), kept["weight"])


Identify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Row numbers int64 [n] to (stream ids V16 [n], t int64 [n])."""
_SAVED = np.dtype([("stream", "V16"), ("t", "<i8"), ("weight", "<f8")])
