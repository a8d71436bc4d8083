"""Optimiser steps on a policy: the gradient of one loss, a sum of terms, over micro-batches."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from experience.learning.batch import TokenBatch, TokenCounts, Turn, as_arrays, micro_batches
from experience.learning.learner import LearnerSettings
from experience.learning.machine.finite import FiniteSteps
from experience.learning.machine.precision import Precision
from experience.learning.machine.ranks import ONE, Ranks
from experience.learning.machine.scorer import Scorer
from experience.learning.objectives import ReadsReference, Term, imitation_terms, lived_terms
from experience.learning.recipes.table import recipe
from experience.learning.sequences.sequence import TokenSequence
from experience.models.sight import Album
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer


@dataclass(frozen=True)
class Part:
    """What one source gives to an update: its sequences, its terms, and their weight.

    temperature: at which all tokens are scored; None: each at that of its sampler.
    """

    name: str
    sequences: Sequence[Turn | TokenSequence]
    terms: Sequence[Term]
    weight: float = 1.0
    temperature: float | None = None


class Trainer:
    """Owns the optimiser of one model. `updates` rises whenever the weights may have changed.

    Only parameters that require a gradient are trained. album: the pictures of turns, for a model
    that sees. ranks: the processes that share an update; each is given its own part of it.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: LearnerSettings,
        album: Album | None = None,
        ranks: Ranks = ONE,
    ) -> None:
        self.model = model
        self._ranks = ranks
        self.settings = settings
        self.recipe = recipe(settings.recipe)
        self.terms = lived_terms(self.recipe)
        precision = Precision(settings.precision, settings.checkpointing)
        self.scorer = Scorer(model, precision, settings.micro_batch_tokens, album)
        self.optimizer = self._new_optimizer()
        self.updates = 0
        self._imitation = imitation_terms(settings.observation_weight)
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
        """Keeps the present policy as the reference if a term reads one; only once."""
        is_read = any(isinstance(term.objective, ReadsReference) for term in self.terms)
        if is_read and self._reference is None:
            self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()

    def update(
        self,
        lived: Sequence[Turn | TokenSequence],
        demonstrations: Sequence[Turn | TokenSequence],
        imitation_weight: float,
    ) -> dict[str, float]:
        """Takes one optimiser step on the recipe's terms over `lived`, plus c·NLL(demonstrations).

        Returns no metrics if the loss or a gradient was not finite and the step was skipped.
        """
        parts = [Part("turns", lived, self.terms)]
        if imitation_weight:
            # At temperature 1: an expert's tokens were not sampled at any.
            shown = Part("demonstrations", demonstrations, self._imitation, imitation_weight, 1.0)
            parts.append(shown)
        return self.take(parts)

    def take(self, parts: Sequence[Part]) -> dict[str, float]:
        """Takes one optimiser step on L = Σ_parts weight · Σ_terms c · Σℓ / Σn.

        Σℓ and Σn go over all micro-batches and ranks: no cut of an update changes its loss. Returns
        as `update`.
        """
        # Without dropout, as the sampler is: the ratio π/μ must compare like with like.
        self.model.eval()
        self.optimizer.zero_grad()
        loss = 0.0
        metrics: dict[str, float] = {}
        for part in parts:
            if part.sequences or self._ranks.count > 1:
                value, found = self._accumulate(part)
                loss += value
                metrics |= found
        loss, metrics = self._ranks.total(loss, metrics, self._trained())
        norm = self._steps.take(
            self.optimizer,
            loss,
            lambda: as_arrays(**{part.name: part.sequences for part in parts}),
            self.settings.gradient_norm,
        )
        if norm is None:
            return {}
        self.updates += 1
        return {**metrics, "gradient_norm": norm}

    def likelihoods(self, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
        """log π and log π_ref of each turn's action, float [N] each: sums over its chosen tokens.

        Without a reference the two are the same.
        """
        found = self.scorer.likelihoods(turns, self.model)
        if self._reference is None:
            return found, found
        return found, self.scorer.likelihoods(turns, self._reference)

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

    def _accumulate(self, part: Part) -> tuple[float, dict[str, float]]:
        """Adds the gradient of one part's terms; returns that loss and its metrics."""
        most = self.settings.micro_batch_tokens
        batches = [self.scorer.batch(micro) for micro in micro_batches(part.sequences, most)]
        counts = self._ranks.counts(TokenCounts.sums(batches)).as_divisors()
        total = 0.0
        metrics = defaultdict[str, float](float)
        for batch in batches:
            logp = self.scorer.score(self.model, batch, part.temperature)
            if self._reference is not None and part.terms is self.terms:
                with torch.no_grad():
                    reference = self.scorer.score(self._reference, batch, part.temperature)
                batch = replace(batch, logp_reference=reference)
            loss = part.weight * self._sum(part.terms, logp, batch, counts, metrics)
            # One backward pass for each micro-batch frees its activations before the next.
            loss.backward()
            total += float(loss.detach())
        return total, dict(metrics)

    def _sum(
        self,
        terms: Sequence[Term],
        logp: Tensor,
        batch: TokenBatch,
        counts: TokenCounts,
        metrics: dict[str, float],
    ) -> Tensor:
        """Σ c · Σℓ / Σn over the terms of one source, which share one pass of the model."""
        losses = []
        for term in terms:
            loss, found = term.objective.loss(logp, batch, counts)
            losses.append(loss if term.weight == 1.0 else term.weight * loss)
            for name, value in found.items():
                metrics[name] += value
        return sum(losses[1:], start=losses[0])

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _new_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self._trained(),
            lr=self.settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
