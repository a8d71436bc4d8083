"""Pre-training: the next token of text, through the trainer that imitates demonstrations too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from experience.learning.batch import Turn
from experience.learning.learner import LearnerSettings
from experience.learning.trainer import Trainer
from experience.pretraining.perplexity import measure_model
from experience.pretraining.text import Corpus, windows

_WARM_UP_SHARE = 0.05
_LAST_RATE = 0.1


@dataclass(frozen=True)
class Pretrained:
    """What a pre-training was, and the held-out loss that it reached.

    parameters: without the embedding, which dominates small models. tokens: predicted ones, those
    of each pass counted. nats: the mean NLL of a held-out token; uninformed: that of the uniform
    distribution. seconds: of training.
    """

    parameters: int
    embedding: int
    tokens: int
    passes: float
    nats: float
    bits_a_byte: float
    seconds: float
    corpus: str

    def record(self) -> dict[str, Any]:
        return dict(vars(self))


def parameters_of(model: nn.Module) -> tuple[int, int]:
    """(parameters without the embedding, parameters of the embedding)."""
    embedding = sum(p.numel() for name, p in model.named_parameters() if "embedding" in name)
    return sum(p.numel() for p in model.parameters()) - embedding, embedding


def rate_at(share: float) -> float:
    """The share of the peak rate after `share` of the training: a linear rise, then a cosine.

    The fall ends with the training: a longer schedule would leave the loss too high for its tokens
    (Hoffmann et al. 2022, figure A1).
    """
    rise = min(1.0, share / _WARM_UP_SHARE)
    return rise * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + float(np.cos(np.pi * share))))


def pretrain(
    model: nn.Module,
    corpus: Corpus,
    tokens: int,
    settings: LearnerSettings,
    context: int,
    said: Callable[[float, float], None] = lambda share, nats: None,
) -> Pretrained:
    """Trains on `tokens` predicted tokens of the corpus, and measures the held-out documents.

    settings: `imitation_rate` is the peak learning rate, `batch_turns` the windows of a step.
    said: told, after each step, the share of tokens done and the training loss.
    """
    cut = windows(corpus.train, context)
    turns = [_as_turn(window) for window in cut]
    trainer = Trainer(model, settings)
    order = _passes(len(turns), np.random.default_rng(settings.seed))
    done, started = 0, time.monotonic()
    while done < tokens:
        shown = [turns[next(order)] for _ in range(settings.batch_turns)]
        trainer.set_rate(settings.imitation_rate * rate_at(done / tokens))
        metrics = trainer.update([], shown, 1.0)
        done += sum(len(turn.action) for turn in shown)
        said(min(done / tokens, 1.0), metrics.get("nll", float("nan")))
    seconds = time.monotonic() - started
    found = measure_model(model, corpus.held_out, context)
    own, embedding = parameters_of(model)
    once = sum(len(turn.action) for turn in turns)
    return Pretrained(
        own, embedding, done, done / once, found.nats, found.bits_a_byte, seconds, corpus.sha256
    )


def _as_turn(window: np.ndarray) -> Turn:
    """A window as a turn: its first token is the prompt, and all others are written."""
    action = window[1:]
    return Turn(window[:1], action, np.zeros(len(action), np.float32))


def _passes(count: int, rng: np.random.Generator) -> Any:
    """Numbers below `count` without end: each once in a pass, in a new order."""
    while True:
        yield from rng.permutation(count).tolist()
