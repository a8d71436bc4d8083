"""Optimiser steps on a policy: gradients of an objective and of imitation, over micro-batches."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from experience.learning.batch import TokenBatch, TokenCounts, Turn, as_arrays, micro_batches
from experience.learning.finite import FiniteSteps
from experience.learning.learner import LearnerSettings
from experience.learning.losses import token_logprobs
from experience.learning.objectives import SFT, Objective, ReadsReference, objective
from experience.models.sight import Album
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer


class Trainer:
    """Owns the optimiser of one model. `updates` rises whenever the weights may have changed.

    album: the pictures of turns, for a model that sees.
    """

    def __init__(
        self, model: nn.Module, settings: LearnerSettings, album: Album | None = None
    ) -> None:
        self.model = model
        self._album = album
        self.settings = settings
        self.objective = objective(settings.objective, asdict(settings))
        self.optimizer = self._new_optimizer()
        self.updates = 0
        self._imitation = SFT(settings.observation_weight)
        self._steps = FiniteSteps("policy")
        self._reference: nn.Module | None = None

    @property
    def skipped(self) -> int:
        """The number of updates that were left out because they were not finite."""
        return self._steps.skipped

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def forget_moments(self) -> None:
        """Starts again with a new optimiser."""
        self.optimizer = self._new_optimizer()

    def keep_reference(self) -> None:
        """Keeps the present policy as the reference if the objective reads one; only once."""
        if isinstance(self.objective, ReadsReference) and self._reference is None:
            self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()

    def update(
        self, turns: Sequence[Turn], demonstrations: Sequence[Turn], imitation_weight: float
    ) -> dict[str, float]:
        """Takes one optimiser step on L = L_objective(turns) + c·L_NLL(demonstrations).

        Each term is a mean over all its tokens, accumulated over micro-batches. Returns no metrics
        if the loss or a gradient was not finite and the step was skipped.
        """
        # Without dropout, as the sampler is: the ratio π/μ must compare like with like.
        self.model.eval()
        self.optimizer.zero_grad()
        loss = 0.0
        metrics: dict[str, float] = {}
        if turns:
            loss, metrics = self._accumulate(turns, self.objective)
        if demonstrations and imitation_weight:
            # At temperature 1: an expert's tokens were not sampled at any.
            imitation, found = self._accumulate(
                demonstrations, self._imitation, imitation_weight, temperature=1.0
            )
            loss += imitation
            metrics |= found
        norm = self._steps.take(
            self.optimizer,
            loss,
            lambda: as_arrays(turns=turns, demonstrations=demonstrations),
            self.settings.gradient_norm,
        )
        if norm is None:
            return {}
        self.updates += 1
        return {**metrics, "gradient_norm": norm}

    def save(self) -> dict[str, bytes]:
        """The moments of the optimiser, and the weights of the reference if there is one."""
        files = {"optimizer.safetensors": pack_optimizer(self.optimizer)}
        if self._reference is not None:
            files["reference.safetensors"] = Weights.of(self._reference, 0).data
        return files

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Restores the policy's weights, the moments, and the reference."""
        Weights.read(0, saved["policy.safetensors"]).put_into(self.model)
        unpack_optimizer(saved["optimizer.safetensors"], self.optimizer)
        # So that the bundle of the weights before is not served again.
        self.updates += 1
        if "reference.safetensors" in saved:
            self.keep_reference()
        if self._reference is not None:
            Weights.read(0, saved["reference.safetensors"]).put_into(self._reference)

    def _accumulate(
        self,
        turns: Sequence[Turn],
        objective: Objective,
        weight: float = 1.0,
        temperature: float | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Adds `weight` times the gradient of the objective; returns that loss and its metrics.

        `temperature` scores all turns at one temperature; None scores each at that of its sampler.
        """
        most = self.settings.micro_batch_tokens
        batches = [self._batch(micro) for micro in micro_batches(turns, most)]
        counts = TokenCounts.of(batches)
        total = 0.0
        metrics = defaultdict[str, float](float)
        for batch in batches:
            logp = _score(self.model, batch, temperature)
            if self._reference is not None:
                with torch.no_grad():
                    reference = _score(self._reference, batch, temperature)
                batch = replace(batch, logp_reference=reference)
            loss, found = objective.loss(logp, batch, counts)
            # One backward pass for each micro-batch frees its activations before the next.
            (weight * loss).backward()
            total += weight * float(loss.detach())
            for name, value in found.items():
                metrics[name] += value
        return total, dict(metrics)

    def _batch(self, turns: Sequence[Turn]) -> TokenBatch:
        batch = TokenBatch.of(turns)
        if self._album is None:
            return batch
        return replace(batch, pictures=self._album.pictures([turn.pictures for turn in turns]))

    def _new_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )


def _score(model: nn.Module, batch: TokenBatch, temperature: float | None) -> Tensor:
    """Log-probabilities of the batch's tokens under `model`, float [B, T−1]."""
    shown = () if batch.pictures is None else (batch.pictures,)
    logits = model(batch.tokens, *shown)
    barred = batch.barred(logits.shape[-1])
    chosen = batch.temperature if temperature is None else temperature
    return token_logprobs(logits, batch.tokens, chosen, barred)
