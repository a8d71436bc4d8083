"""Which of many words stand in a text: one pass over the text, whatever the number of words.

The text is cut into pieces of 4 bytes. Wherever a word begins, any 7 of its bytes contain a whole
piece, which is one of 4. So each word gives 4 pieces, and the pieces of all words make a hash
table. A text without a piece in the table holds no word. Other texts are compared exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

_PIECE = np.dtype(np.uint32)
SHORTEST = 2 * _PIECE.itemsize - 1
"""Bytes of the shortest word that a sieve can find."""
_MIX = np.uint32(2654435761)  # 2^32 / golden ratio: Knuth's multiplicative hash
_FEWEST_BITS, _MOST_BITS = 16, 22
_ROOM = 1024
"""Slots in the table per piece, so that pieces of ordinary text rarely hit a taken slot."""
_ORDINARY = b"etaoinsrhldcumfpgwybvkxjqz10 "
"""Bytes that ordinary text holds most, the most frequent first."""


class Sieve:
    """Finds words (bytes, each of at least SHORTEST) in texts."""

    def __init__(self, words: Iterable[bytes]) -> None:
        words_of: dict[int, list[bytes]] = defaultdict(list)
        for word in words:
            for piece in _pieces(word):
                words_of[piece].append(word)
        self._words_of = dict(words_of)
        bits = min(max((_ROOM * len(words_of)).bit_length(), _FEWEST_BITS), _MOST_BITS)
        self._shift = np.uint32(32 - bits)
        self._taken = np.zeros(1 << bits, np.bool_)
        self._taken[self._places(np.fromiter(words_of, _PIECE, len(words_of)))] = True

    def found_in(self, text: bytes) -> set[bytes]:
        """The words that stand in `text`."""
        if len(text) < SHORTEST:
            return set()
        pieces = np.frombuffer(text, _PIECE, len(text) // _PIECE.itemsize)
        taken = self._taken.take(self._places(pieces))
        if not taken[taken.argmax()]:
            return set()
        begun = {word for piece in pieces[taken].tolist() for word in self._words_of.get(piece, ())}
        return {word for word in begun if word in text}

    def _places(self, pieces: np.ndarray) -> np.ndarray:
        """Where in the table each piece has its place."""
        mixed = pieces * _MIX
        mixed >>= self._shift
        return mixed


def _pieces(word: bytes) -> set[int]:
    """The distinct pieces within the 7 bytes of `word` that are rarest in ordinary text."""
    rare = [_ORDINARY.find(byte) % 64 for byte in word]  # -1, not in it, is 63
    start = max(range(len(word) - SHORTEST + 1), key=lambda at: sum(rare[at : at + SHORTEST]))
    return {int(np.frombuffer(word, _PIECE, 1, start + i)[0]) for i in range(_PIECE.itemsize)}
