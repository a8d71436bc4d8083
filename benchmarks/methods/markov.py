"""A Markov source of text whose entropy is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experience.pretraining.text import Corpus, corpus_of

_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)


@dataclass(frozen=True)
class MarkovSource:
    """A chain over letters: transition float64 [K, K], each row a distribution; stationary [K]."""

    transition: np.ndarray
    stationary: np.ndarray

    @classmethod
    def drawn(cls, states: int, concentration: float, seed: int) -> MarkovSource:
        """Rows drawn from a Dirichlet distribution; a small concentration makes sharp rows."""
        rng = np.random.default_rng(seed)
        transition = rng.dirichlet(np.full(states, concentration), states)
        # A little of the uniform distribution: every state is reached, and none is impossible.
        transition = 0.98 * transition + 0.02 / states
        return cls(transition, _stationary(transition))

    @property
    def entropy_rate(self) -> float:
        """H = −Σ_i π_i Σ_j P_ij log P_ij, in nats a letter (Cover & Thomas 2006, theorem 4.2.4)."""
        return float(self.stationary @ -(self.transition * np.log(self.transition)).sum(1))

    def floor(self, length: int) -> float:
        """The entropy of a text of so many letters, in nats a letter: the first has no letter
        before it."""
        first = float(-(self.stationary * np.log(self.stationary)).sum())
        return (first + (length - 1) * self.entropy_rate) / length

    def texts(self, count: int, length: int, seed: int) -> list[bytes]:
        """`count` texts of `length` letters, each begun in the stationary distribution."""
        rng = np.random.default_rng(seed)
        chances = self.transition.cumsum(1)
        state = _drawn(np.tile(self.stationary.cumsum(), (count, 1)), rng)
        written = [state]
        for _ in range(length - 1):
            state = _drawn(chances[state], rng)
            written.append(state)
        return [row.tobytes() for row in _LETTERS[np.stack(written, 1)]]


def letters_only(texts: list[bytes], states: int) -> Corpus:
    """The corpus with its letters as tokens 0 to K − 1, and BEGIN as K: a small vocabulary."""
    place = np.full(257, -1, np.int32)
    place[_LETTERS[:states]] = np.arange(states)
    place[256] = states
    return Corpus(tuple(place[document] for document in corpus_of(texts).documents))


def _drawn(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One state for each row of cumulated chances [N, K]."""
    drawn: np.ndarray = (rng.random((len(chances), 1)) > chances[:, :-1]).sum(1)
    return drawn


def _stationary(transition: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(transition.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    return vector / vector.sum()
