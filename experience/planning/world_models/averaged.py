"""A transformer that is trained, and the running mean of its weights, which predicts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from experience.learning.batch import TokenBatch, Turn, as_arrays, micro_batches
from experience.learning.machine.finite import FiniteSteps
from experience.learning.sequences.scoring import token_logprobs
from experience.learning.surrogates.likelihood import negative_log_likelihood
from experience.models.decoding import Sampled, sample
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer

_MICRO_BATCH_TOKENS = 8192
_TOGETHER = 256
"""Prompts continued at once; with more, the key-value caches no longer fit the processor's."""

_SHORTEST_MEAN = 0.01
"""Weight of the newest weights in the running mean, once a hundred updates were made."""


class AveragedTransformer:
    """`mean` predicts: the running mean of the last hundred updates' weights.

    The weights of a single update are too noisy for predictions that must be exact to the byte
    (Polyak & Juditsky 1992).
    """

    def __init__(self, shape: TransformerShape, seed: int) -> None:
        torch.manual_seed(seed)
        self._trained = Transformer(shape)
        self.mean = copy.deepcopy(self._trained).requires_grad_(False)
        self.updates = 0
        self._optimizer = torch.optim.AdamW(
            self._trained.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._finite = FiniteSteps("world model")
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def skipped(self) -> int:
        return self._finite.skipped

    def update(self, turns: Sequence[Turn]) -> float:
        """One optimiser step, unless it is not finite; the loss before it, in nats a token."""
        self._optimizer.zero_grad()
        tokens = sum(len(turn.action) for turn in turns)
        loss_of_all = 0.0
        for micro in micro_batches(turns, _MICRO_BATCH_TOKENS):
            batch = TokenBatch.of(micro)
            logp = token_logprobs(self._trained(batch.tokens), batch.tokens)
            # By the tokens of the whole update: the cut into micro-batches changes nothing.
            loss = negative_log_likelihood(logp, batch.mask) / tokens
            loss.backward()
            loss_of_all += float(loss.detach())
        taken = self._finite.take(
            self._optimizer, loss_of_all, lambda: as_arrays(transitions=turns), 1.0
        )
        if taken is not None:
            self._average()
        return loss_of_all

    def _average(self) -> None:
        self.updates += 1
        # A plain mean at first: else the random first weights would weigh for hundreds of updates.
        new = max(_SHORTEST_MEAN, 1 / self.updates)
        pairs = zip(self.mean.parameters(), self._trained.parameters(), strict=True)
        with torch.no_grad():
            for mean, weight in pairs:
                mean.lerp_(weight, new)

    def write(self, prompts: Sequence[np.ndarray], end: int, most_tokens: int) -> list[Sampled]:
        """The likeliest continuation of each prompt, up to `end` or `most_tokens` tokens."""
        written: list[Sampled] = []
        for start in range(0, len(prompts), _TOGETHER):
            written += sample(
                self.mean,
                prompts[start : start + _TOGETHER],
                end=end,
                most_tokens=most_tokens,
                # Greedy: a prediction is the likeliest change, the same whenever asked for.
                temperature=0,
                generator=self._generator,
            )
        return written

    def save(self, version: int) -> dict[str, bytes]:
        """The state of training, by file name; `updates` is saved by the caller."""
        return {
            "world_model.safetensors": Weights.of(self._trained, version).data,
            **self.export(version),
            "world_model_optimizer.safetensors": pack_optimizer(self._optimizer),
        }

    def restore(self, saved: Mapping[str, bytes], version: int, updates: int) -> None:
        """Continues training where `save` was called."""
        self.updates = updates
        Weights.read(version, saved["world_model.safetensors"]).put_into(self._trained)
        self.load(saved, version)
        unpack_optimizer(saved["world_model_optimizer.safetensors"], self._optimizer)

    def export(self, version: int) -> dict[str, bytes]:
        """The weights that predict, by file name."""
        return {"world_model_mean.safetensors": Weights.of(self.mean, version).data}

    def load(self, exported: Mapping[str, bytes], version: int) -> None:
        Weights.read(version, exported["world_model_mean.safetensors"]).put_into(self.mean)
