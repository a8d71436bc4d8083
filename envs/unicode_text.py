"""The space of texts in any script: Gymnasium's `Text` wants a list of its characters."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Text

from experience.text.characters import is_readable

_SAMPLED = tuple(c for c in string.printable if is_readable(c))
"""Random texts are of these characters."""


class _CodePoints(Sequence[str]):
    """All of Unicode by code point, without a list in memory. A lone surrogate is in no text."""

    def __len__(self) -> int:
        return sys.maxunicode + 1

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [chr(point) for point in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"code point {place}: Unicode has {len(self)}")
        return chr(place % len(self))

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and is_readable(character)

    def __iter__(self) -> Iterator[str]:
        return map(chr, range(len(self)))


_ALL = _CodePoints()


class UnicodeText(Text):
    """Texts of at most `max_length` characters (code points) in any script, the empty one too.

    What is not in the space is said in experience/text/characters.py: control characters but tab
    and line ends, and lone surrogates. A text is flattened to its code points. Samples are ASCII.
    """

    def __init__(self, max_length: int, *, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length, min_length=0, charset="", seed=seed)

    @property
    def character_set(self) -> Any:
        return _ALL

    @property
    def character_list(self) -> Any:
        return _ALL

    @property
    def characters(self) -> str:
        """The characters that samples are drawn from."""
        return "".join(_SAMPLED)

    def character_index(self, char: str) -> np.int32:
        return np.int32(ord(char))

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A text at random. A mask or probabilities are over all code points, as Gymnasium's."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        length = int(self.np_random.integers(self.max_length + 1))
        return "".join(_SAMPLED[i] for i in self.np_random.integers(len(_SAMPLED), size=length))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length and is_readable(x)

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]
