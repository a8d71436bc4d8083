"""Turns of experience, and batches of them as padded tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def _no_ids() -> np.ndarray:
    return np.empty(0, np.int32)


@dataclass(frozen=True)
class Turn:
    """The part of a turn that losses need.

    prompt int32 [P]; action int32 [A]; logprobs float32 [A]: the sampler's log-probabilities, at
    `temperature`, over the tokens that it could choose from (see `Decision.allowed_ids`). pictures:
    the hashes of the blobs that were seen.
    """

    prompt: np.ndarray
    action: np.ndarray
    logprobs: np.ndarray
    advantage: float = 0.0
    temperature: float = 1.0
    allowed_ids: np.ndarray = field(default_factory=_no_ids)
    allowed_counts: np.ndarray = field(default_factory=_no_ids)
    pictures: tuple[bytes, ...] = ()

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.action)


@dataclass(frozen=True)
class TokenBatch:
    """Turns side by side, padded on the right. Column t of a prediction tensor is token t + 1.

    tokens: int64 [B, T]. advantage, temperature: float [B].
    mask: float [B, T−1], 1 where an action token was chosen, not forced by the decoder.
    observed: float [B, T−1], 1 at prompt tokens.
    logp_behaviour: float [B, T−1], the sampler's log-probabilities.
    limited: bool [B, T−1], True where the decoder could choose from `allowed` tokens only.
    allowed: int64 [N, 3], as (row, prediction, token).
    logp_reference: float [B, T−1], under a frozen reference policy; None without one.
    pictures: uint8 [B, S, S, 3], for a model that sees; None for any other.
    """

    tokens: Tensor
    mask: Tensor
    observed: Tensor
    logp_behaviour: Tensor
    advantage: Tensor
    temperature: Tensor
    limited: Tensor
    allowed: Tensor
    logp_reference: Tensor | None = None
    pictures: Tensor | None = None

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> TokenBatch:
        # Padding is on the right, where a causal model never looks: no attention mask is needed.
        longest = max(t.length for t in turns)
        tokens = np.zeros((len(turns), longest), np.int64)
        mask = np.zeros((len(turns), longest - 1), np.float32)
        observed = np.zeros_like(mask)
        behaviour = np.zeros_like(mask)
        limited = np.zeros_like(mask, bool)
        allowed = [np.empty((0, 3), np.int64)]
        for row, turn in enumerate(turns):
            start, end = len(turn.prompt), turn.length
            written = slice(start - 1, end - 1)  # the predictions of the action's tokens
            tokens[row, :start] = turn.prompt
            tokens[row, start:end] = turn.action
            observed[row, : start - 1] = 1.0
            mask[row, written] = 1.0
            behaviour[row, written] = turn.logprobs
            if len(turn.allowed_counts):
                # A forced token was no choice: its probability is 1 under every policy.
                mask[row, written] = turn.allowed_counts != 1
                limited[row, written] = turn.allowed_counts > 0
                where = np.repeat(np.arange(start - 1, end - 1), turn.allowed_counts)
                allowed.append(np.stack([np.full(len(where), row), where, turn.allowed_ids], 1))
        advantage = np.array([t.advantage for t in turns], np.float32)
        temperature = np.array([t.temperature for t in turns], np.float64)
        arrays = (
            tokens,
            mask,
            observed,
            behaviour,
            advantage,
            temperature,
            limited,
            np.concatenate(allowed),
        )
        return cls(*(torch.from_numpy(array) for array in arrays))

    def barred(self, vocabulary: int) -> Tensor | None:
        """The tokens that the decoder could not choose, bool [B, T−1, V]; None if it was free."""
        if not self.limited.any():
            return None
        # Where the decoder was limited, all tokens are barred but those that are listed.
        barred = self.limited[..., None].repeat(1, 1, vocabulary)
        barred[tuple(self.allowed.T)] = False
        return barred


@dataclass(frozen=True)
class TokenCounts:
    """The numbers of tokens in all micro-batches of an update, at least 1 each: what sums over
    tokens are divided by. `chosen` counts choices of action tokens, `observed` prompt tokens."""

    chosen: float
    observed: float

    @classmethod
    def of(cls, batches: Sequence[TokenBatch]) -> TokenCounts:
        chosen = sum(float(b.mask.sum()) for b in batches)
        observed = sum(float(b.observed.sum()) for b in batches)
        return cls(max(chosen, 1.0), max(observed, 1.0))


def micro_batches(turns: Sequence[Turn], most_tokens: int) -> Iterator[list[Turn]]:
    """Cuts `turns` into runs of similar length, each of at most `most_tokens` padded tokens.

    A longer turn is a run of its own.
    """
    run: list[Turn] = []
    # Sorted: padding costs as much time and memory as tokens do.
    for turn in sorted(turns, key=lambda t: t.length):
        if run and turn.length * (len(run) + 1) > most_tokens:
            yield run
            run = []
        run.append(turn)
    if run:
        yield run


def as_arrays(**turns: Sequence[Turn]) -> dict[str, np.ndarray]:
    """The tensors of each batch of turns, named `<name>_<field>`: what is kept of an update for
    inspection."""
    arrays = {}
    for name, some in turns.items():
        fields = vars(TokenBatch.of(some)) if some else {}
        for field_name, tensor in fields.items():
            if tensor is not None:
                arrays[f"{name}_{field_name}"] = tensor.numpy()
    return arrays
