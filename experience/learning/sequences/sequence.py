"""Token sequences: turns whose prompts continue each other, read by the model once.

Trained one by one, the turns of an episode cost the square of its length, since each prompt holds
all that came before. As one sequence they cost its length. Where a history was edited, the next
turn begins another sequence: a lineage forks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from experience.learning.sequences.turn import Turn

_OPEN = 64
"""Sequences of one stream that a turn may continue. Older ones are closed: else an endless stream
without a history would be compared with all of its past."""


@dataclass(frozen=True)
class TokenSequence:
    """Turns in their order, each of whose prompts begins with all tokens of the turn before it.

    The tokens are those of the last turn. What stands in them between two actions was inserted by
    the world or the agent. proximal float32 [L − 1]: the log-probability of each token but the
    first when the present update began; None: not measured.
    """

    turns: tuple[Turn, ...]
    proximal: np.ndarray | None = None

    @property
    def length(self) -> int:
        return self.turns[-1].length

    @property
    def tokens(self) -> np.ndarray:
        """int32 [L]"""
        last = self.turns[-1]
        return np.concatenate([last.prompt, last.action])


def as_sequence(part: Turn | TokenSequence) -> TokenSequence:
    return part if isinstance(part, TokenSequence) else TokenSequence((part,))


def join(turns: Sequence[Turn]) -> list[TokenSequence]:
    """The turns as sequences, in the order of their first turns. Each turn is in one of them.

    A turn is attached to the longest sequence of its stream that its prompt begins with. So the
    turns of two agents that interleave in one stream are two sequences, not many.
    """
    found: list[_Open] = []
    open_of: dict[bytes, list[_Open]] = {}
    for number in sorted(range(len(turns)), key=lambda n: (turns[n].stream, turns[n].t, n)):
        turn = turns[number]
        candidates = open_of.setdefault(turn.stream, []) if turn.stream else []
        fitting = [one for one in candidates if one.is_continued_by(turn)]
        if fitting:
            max(fitting, key=lambda one: len(one.tokens)).take(turn, number)
        else:
            found.append(_Open(turn, number))
            candidates.append(found[-1])
            del candidates[:-_OPEN]
    found.sort(key=lambda one: one.first)
    return [TokenSequence(tuple(one.turns)) for one in found]


def count_turns(sequences: Iterable[TokenSequence]) -> int:
    return sum(len(sequence.turns) for sequence in sequences)


class _Open:
    """A sequence that turns may still continue."""

    def __init__(self, turn: Turn, number: int) -> None:
        self.first = number
        self.turns: list[Turn] = []
        self.tokens = np.empty(0, np.int32)
        self.take(turn, number)

    def take(self, turn: Turn, number: int) -> None:
        self.first = min(self.first, number)
        self.turns.append(turn)
        self.tokens = np.concatenate([turn.prompt, turn.action])

    def is_continued_by(self, turn: Turn) -> bool:
        length = len(self.tokens)
        # A picture stands before all tokens, so that another picture makes another sequence.
        if length > len(turn.prompt) or turn.pictures != self.turns[0].pictures:
            return False
        # The last token first: nearly all that do not fit differ there, and it costs nothing.
        is_near = turn.prompt[length - 1] == self.tokens[-1]
        return bool(is_near and np.array_equal(turn.prompt[:length], self.tokens))
