"""Turns of experience as padded tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """What one loss term needs of a turn: prompt int32 [P], action int32 [A], behaviour log-probs float32 [A]."""

    prompt: np.ndarray
    action: np.ndarray
    logprobs: np.ndarray
    advantage: float = 0.0

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.action)


@dataclass(frozen=True)
class TokenBatch:
    """tokens int64 [B, T]; advantage float [B]; of the T−1 predictions, float [B, T−1]: which are the action's
    (mask), which the prompt's (observed), and the behaviour's log-probabilities."""

    tokens: Tensor
    mask: Tensor
    observed: Tensor
    logp_behaviour: Tensor
    advantage: Tensor

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> TokenBatch:
        longest = max(t.length for t in turns)
        tokens = np.zeros((len(turns), longest), np.int64)
        mask = np.zeros((len(turns), longest - 1), np.float32)
        observed, behaviour = np.zeros_like(mask), np.zeros_like(mask)
        for row, turn in enumerate(turns):
            start, end = len(turn.prompt), turn.length
            tokens[row, :start], tokens[row, start:end] = turn.prompt, turn.action
            observed[row, :start - 1] = 1.0
            mask[row, start - 1:end - 1], behaviour[row, start - 1:end - 1] = 1.0, turn.logprobs
        advantage = np.array([t.advantage for t in turns], np.float32)
        return cls(*(torch.from_numpy(a) for a in (tokens, mask, observed, behaviour, advantage)))


def micro_batches(turns: Sequence[Turn], most_tokens: int) -> Iterator[list[Turn]]:
    """`turns` in runs of like length, each of at most `most_tokens` padded tokens (or one turn)."""
    run: list[Turn] = []
    for turn in sorted(turns, key=lambda t: t.length):
        if run and turn.length * (len(run) + 1) > most_tokens:
            yield run
            run = []
        run.append(turn)
    if run:
        yield run


def as_arrays(**turns: Sequence[Turn]) -> dict[str, np.ndarray]:
    """The tensors of each batch of turns, as `<name>_<field>`: what is kept of a batch for inspection."""
    return {f"{name}_{field}": tensor.numpy() for name, of in turns.items() if of
            for field, tensor in vars(TokenBatch.of(of)).items()}
