"""Perplexity and bits a byte: how well a model predicts text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from experience.models.decoding import decoder_logprobs
from experience.models.tokenizer import ByteTokenizer
from experience.pretraining.text import windows

_BATCH_TOKENS = 8192


class Predictor(Protocol):
    """What assigns probabilities to the tokens of a document."""

    def logprobs(self, document: np.ndarray) -> np.ndarray:
        """log Pr(token | tokens before it) of each token but the first, float64 [L − 1], in nats;
        −∞ for what it holds impossible."""


@dataclass(frozen=True)
class Predicted:
    """The log-probability of a text in nats, and the numbers of its tokens and bytes."""

    logprob: float
    tokens: int
    bytes: int

    @property
    def nats(self) -> float:
        """The mean negative log-likelihood of a token; NaN without tokens."""
        return -self.logprob / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean NLL a token: inf where a token was held impossible.

        PP = exp(−1/n Σ_t log Pr(w_t | w_<t))    Jurafsky & Martin, eq. 3.14
        """
        return math.exp(self.nats) if self.nats < 700 else math.inf

    @property
    def bits_a_byte(self) -> float:
        """Bits for each byte of text: unlike perplexity it does not depend on the tokenizer."""
        return -self.logprob / math.log(2) / self.bytes if self.bytes else math.nan


def of_probabilities(probabilities: Sequence[float]) -> Predicted:
    """The prediction of a text whose tokens had these probabilities, one byte each.

    Raises ValueError for what is no probability.
    """
    given = np.asarray(probabilities, float)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError("a probability is from 0 to 1")
    with np.errstate(divide="ignore"):
        return Predicted(float(np.log(given).sum()), len(given), len(given))


def measure(predictor: Predictor, documents: Sequence[np.ndarray]) -> Predicted:
    """How well documents are predicted: over tokens, not over documents."""
    total, tokens, size = 0.0, 0, 0
    for document in documents:
        total += float(predictor.logprobs(document).sum())
        tokens += max(len(document) - 1, 0)
        # Marks are predicted too, and are no bytes.
        size += int((document[1:] < ByteTokenizer.BEGIN).sum())
    return Predicted(total, tokens, size)


class ModelPredictor:
    """A causal model as a predictor. It reads at most `context` tokens at once."""

    def __init__(self, model: nn.Module, context: int) -> None:
        self._model, self._context = model, context

    @torch.inference_mode()
    def logprobs(self, document: np.ndarray) -> np.ndarray:
        found = [np.empty(0)]
        self._model.eval()
        for window in windows([document], self._context):
            tokens = torch.from_numpy(window.astype(np.int64))[None]
            found.append(_scored(self._model, tokens)[0])
        return np.concatenate(found)


@torch.inference_mode()
def measure_model(model: nn.Module, documents: Sequence[np.ndarray], context: int) -> Predicted:
    """`measure` of a model, many windows at a time."""
    model.eval()
    total, tokens, size = 0.0, 0, 0
    cut = sorted(windows(documents, context), key=len)
    start = 0
    while start < len(cut):
        # The longest stands last: it decides how many fit.
        end = start + 1
        while end < len(cut) and len(cut[end]) * (end + 1 - start) <= _BATCH_TOKENS:
            end += 1
        batch = cut[start:end]
        padded = np.zeros((len(batch), len(batch[-1])), np.int64)
        known = np.zeros((len(batch), len(batch[-1]) - 1), bool)
        for row, window in enumerate(batch):
            padded[row, : len(window)] = window
            known[row, : len(window) - 1] = True
        given = torch.from_numpy(padded)
        logp = _scored(model, given)
        total += float(logp[known].sum())
        tokens += int(known.sum())
        size += int((padded[:, 1:][known] < ByteTokenizer.BEGIN).sum())
        start = end
    return Predicted(total, tokens, size)


def _scored(model: nn.Module, tokens: torch.Tensor) -> np.ndarray:
    """log Pr of each token but the first, float64 [B, T − 1]. tokens: int64 [B, T]."""
    logp = decoder_logprobs(model(tokens)[:, :-1], 1.0)
    found: np.ndarray = logp.gather(-1, tokens[:, 1:, None])[..., 0].double().numpy()
    return found
