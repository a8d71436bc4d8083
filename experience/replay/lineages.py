"""Lineages: rows whose prompts continue each other are one sequence of tokens.

A row continues another if its prompt begins with all that the other read and wrote. What was
edited or left out between two rows makes the second one the beginning of a new sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from experience.step import Step


@dataclass(frozen=True)
class LineageCount:
    """How much of a stream's tokens a learner must read.

    rows: decisions whose tokens are known. sequences: lineages. sampled: action tokens.
    read_by_row: tokens if each row is learned from by itself. read_by_sequence: tokens if each
    lineage is one sequence.
    """

    rows: int = 0
    sequences: int = 0
    sampled: int = 0
    read_by_row: int = 0
    read_by_sequence: int = 0

    @property
    def rows_a_sequence(self) -> float:
        return self.rows / self.sequences if self.sequences else 0.0


def continues(before: np.ndarray, prompt: np.ndarray) -> bool:
    """Whether a prompt, int32 [P], begins with the tokens `before`, int32 [B]."""
    return len(before) <= len(prompt) and np.array_equal(before, prompt[: len(before)])


def count_lineages(steps: Iterable[Step]) -> LineageCount:
    """Counts the lineages of rows that are given in the order of their streams."""
    rows = sequences = sampled = by_row = by_sequence = 0
    ends: dict[bytes, np.ndarray] = {}
    for step in steps:
        decision = step.decision
        if decision is None or not decision.token_exact or not len(decision.prompt_ids):
            continue
        whole = np.concatenate([decision.prompt_ids, decision.action_ids])
        before = ends.get(step.stream_id)
        rows += 1
        sampled += len(decision.action_ids)
        by_row += len(whole)
        if before is not None and continues(before, decision.prompt_ids):
            by_sequence += len(whole) - len(before)
        else:
            sequences += 1
            by_sequence += len(whole)
        ends[step.stream_id] = whole
    return LineageCount(rows, sequences, sampled, by_row, by_sequence)
