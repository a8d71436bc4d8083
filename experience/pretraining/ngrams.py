"""n-grams: text predicted by counting, with and without smoothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from experience.errors import ConfigError

Context = tuple[int, ...]


class NGrams:
    """Counts of n-grams, as a `Predictor`.

    Without smoothing: Pr(w | h) = c(h w) / c(h), which is 0 for a pair that was never seen.
    With Witten–Bell smoothing (Witten & Bell 1991, method C, interpolated), the shorter context
    stands in where the longer one was seen seldom, and the uniform distribution below all:
        P_k(w | h) = (c(h w) + T(h)·P_{k−1}(w | h')) / (c(h) + T(h)),   T(h): kinds of w seen after h
    A document's first n − 1 tokens have the shorter contexts that they have.
    """

    def __init__(self, order: int, vocabulary: int, smoothed: bool = True) -> None:
        if order < 1:
            raise ConfigError(f"n-grams of order {order}", "the order is 1 or more")
        self.order, self.vocabulary, self.smoothed = order, vocabulary, smoothed
        self._next: dict[Context, Counter[int]] = defaultdict(Counter)
        self._totals: Counter[Context] = Counter()

    def count(self, documents: Sequence[np.ndarray]) -> NGrams:
        """Adds the counts of documents, for contexts of 0 to n − 1 tokens."""
        for document in documents:
            tokens = document.tolist()
            for t in range(1, len(tokens)):
                for length in range(min(self.order - 1, t) + 1):
                    context = tuple(tokens[t - length : t])
                    self._next[context][tokens[t]] += 1
                    self._totals[context] += 1
        return self

    def probability(self, token: int, context: Sequence[int]) -> float:
        """Pr(token | the last n − 1 tokens of `context`)."""
        context = tuple(context)[max(len(context) - self.order + 1, 0) :]
        if not self.smoothed:
            seen = self._totals.get(context, 0)
            return self._next[context][token] / seen if seen else 0.0
        below = 1.0 / self.vocabulary
        for length in range(len(context) + 1):
            history = context[len(context) - length :]
            seen = self._totals.get(history, 0)
            if not seen:
                break  # no longer context was seen either
            after = self._next[history]
            below = (after.get(token, 0) + len(after) * below) / (seen + len(after))
        return below

    def logprobs(self, document: np.ndarray) -> np.ndarray:
        tokens = document.tolist()
        found = [
            self.probability(tokens[t], tokens[max(t - self.order + 1, 0) : t])
            for t in range(1, len(tokens))
        ]
        with np.errstate(divide="ignore"):
            logs: np.ndarray = np.log(np.array(found, float))
        return logs
