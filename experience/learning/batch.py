"""Turns, token sequences and their batches, under the names that losses of others import."""

from __future__ import annotations

from experience.learning.sequences.batch import (
    Role,
    TokenBatch,
    TokenCounts,
    as_arrays,
    micro_batches,
)
from experience.learning.sequences.sequence import TokenSequence, join
from experience.learning.sequences.turn import Turn

__all__ = [
    "Role",
    "TokenBatch",
    "TokenCounts",
    "TokenSequence",
    "Turn",
    "as_arrays",
    "join",
    "micro_batches",
]
