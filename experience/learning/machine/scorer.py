"""Scoring by the model that is trained: batches on its device, log-probabilities of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from experience.learning.machine.precision import Precision
from experience.learning.sequences.batch import TokenBatch, micro_batches
from experience.learning.sequences.scoring import score
from experience.learning.sequences.sequence import TokenSequence, as_sequence, join
from experience.learning.sequences.turn import Turn
from experience.models.sight import Album


class Scorer:
    """Reads batches with one model, at most `most_tokens` padded tokens at a time.

    album: the pictures of turns, for a model that sees.
    """

    def __init__(
        self, model: nn.Module, precision: Precision, most_tokens: int, album: Album | None = None
    ) -> None:
        self._model, self._precision, self._album = model, precision, album
        self._most_tokens = most_tokens

    def batch(self, parts: Sequence[Turn | TokenSequence]) -> TokenBatch:
        """The batch of sequences, with their pictures, on the model's device."""
        batch = TokenBatch.of(parts)
        if self._album is not None:
            seen = [as_sequence(part).turns[0].pictures for part in parts]
            batch = replace(batch, pictures=self._album.pictures(seen))
        return batch.to(next(self._model.parameters()).device)

    def score(self, model: nn.Module, batch: TokenBatch, temperature: float | None) -> Tensor:
        """Log-probabilities of a batch under `model`, in the precision of training."""
        return score(self._precision.of(model), batch, temperature)

    @torch.no_grad()
    def proximal(self, sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
        """The sequences with their log-probabilities under the present policy."""
        found: dict[int, TokenSequence] = {}
        for sequence, logp in self._scored(sequences):
            found[id(sequence)] = replace(sequence, proximal=logp)
        return [found[id(sequence)] for sequence in sequences]

    @torch.no_grad()
    def log_ratios(self, turns: Sequence[Turn]) -> list[float]:
        """log π/μ of each turn under the present policy: the sum over its chosen tokens."""
        found: dict[int, float] = {}
        for sequence, logp in self._scored(join(turns)):
            for turn in sequence.turns:
                found[id(turn)] = float(_away(logp, turn).sum())
        return [found[id(turn)] for turn in turns]

    @torch.no_grad()
    def differences(self, turns: Sequence[Turn]) -> np.ndarray:
        """log π − log μ of every chosen action token of `turns`, float [N]: the model's against
        those of its sampler."""
        scored = self._scored(turns)
        return np.concatenate([_away(logp, t) for sequence, logp in scored for t in sequence.turns])

    @torch.no_grad()
    def likelihoods(self, turns: Sequence[Turn], model: nn.Module) -> Tensor:
        """log π of each turn's action under `model`, float [N]: the sum over its chosen tokens."""
        model.eval()
        found = torch.zeros(len(turns))
        place = {id(turn): number for number, turn in enumerate(turns)}
        for micro in micro_batches(turns, self._most_tokens):
            batch = self.batch(micro)
            logp = self.score(model, batch, None)
            # Where the mask is 0, a log-probability may be −∞.
            found[[place[id(turn)] for turn in micro]] = (
                torch.where(batch.mask > 0, logp, 0.0).sum(1).cpu()
            )
        return found

    def _scored(
        self, sequences: Sequence[Turn | TokenSequence]
    ) -> Iterator[tuple[TokenSequence, np.ndarray]]:
        """Each sequence with its log-probabilities, float32 [L − 1], in the order of lengths."""
        self._model.eval()
        for micro in micro_batches(sequences, self._most_tokens):
            logp = self.score(self._model, self.batch(micro), None).cpu().numpy()
            for row, part in enumerate(micro):
                sequence = as_sequence(part)
                yield sequence, logp[row, : sequence.length - 1]


def _away(logp: np.ndarray, turn: Turn) -> np.ndarray:
    """log π − log μ of the tokens of a turn that were chosen, not forced by the decoder."""
    start = len(turn.prompt) - 1
    away: np.ndarray = logp[start : start + len(turn.action)] - turn.logprobs
    return away[turn.allowed_counts != 1] if len(turn.allowed_counts) else away
