"""Objectives: what an update of the policy minimises. Each is a small class with its own settings.

A new objective is a frozen dataclass with a method `loss`, and a row in `OBJECTIVES`; one from
another package is named as "package:Class" and needs no row. See docs/add-an-objective.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from experience.errors import ConfigError
from experience.learning.batch import TokenBatch, TokenCounts
from experience.learning.losses import (
    Clip,
    clipped_policy_gradient,
    k3_divergence,
    negative_log_likelihood,
)

Metrics = dict[str, float]


class Objective(Protocol):
    """A loss over turns of experience with advantages."""

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        """This micro-batch's share of the loss (a scalar with a gradient), and of the metrics.

        logp: log-probabilities of the batch's tokens under the present policy, float [B, T−1].
        counts: the tokens of the whole update. Divide sums by them, not by the tokens of the batch:
        then the cut into micro-batches changes nothing, for losses and metrics of all
        micro-batches are added up.
        """


@runtime_checkable
class ReadsReference(Protocol):
    """Marks an objective that reads `batch.logp_reference`.

    The reference is a frozen copy of the policy as it was before its first update on experience.
    """

    reads_reference: ClassVar[bool]


@dataclass(frozen=True)
class GRPO:
    """Policy gradient with a clipped token ratio, as a mean over the tokens of the update.

    Shao et al. 2024 (GRPO); DAPO 2025 (higher upper clip, token mean); Ye et al. 2020 (dual clip).
    """

    clip_below: float = 0.2
    clip_above: float = 0.28
    clip_dual: float = 3.0

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        clip = Clip(self.clip_below, self.clip_above, self.clip_dual)
        total, sums = clipped_policy_gradient(
            logp, batch.logp_behaviour, batch.advantage, batch.mask, clip
        )
        return total / counts.chosen, {name: s / counts.chosen for name, s in sums.items()}


@dataclass(frozen=True)
class PPOKL:
    """The clipped policy gradient of `GRPO` plus β times KL(π‖reference).

    k3 estimates the divergence on the sampled tokens (Schulman 2020; Shao et al. 2024, eq. 4).
    Raises ConfigError if the batch holds no log-probabilities of a reference.
    """

    clip_below: float = 0.2
    clip_above: float = 0.28
    clip_dual: float = 3.0
    kl_weight: float = 0.04
    reads_reference: ClassVar[bool] = True

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        if batch.logp_reference is None:
            raise ConfigError(
                "objective ppo_kl: the batch holds no log-probabilities of a reference policy",
                "fill TokenBatch.logp_reference, or use learning.objective=grpo",
            )
        surrogate = GRPO(self.clip_below, self.clip_above, self.clip_dual)
        clipped, metrics = surrogate.loss(logp, batch, counts)
        divergence = k3_divergence(logp, batch.logp_reference, batch.mask) / counts.chosen
        metrics["kl_reference"] = float(divergence.detach())
        return clipped + self.kl_weight * divergence, metrics


@dataclass(frozen=True)
class SFT:
    """Supervised fine-tuning: the negative log-likelihood of the actions and the observations.

    L = mean NLL(actions) + `observation_weight` · mean NLL(observations), in nats a token.
    """

    observation_weight: float = 0.0

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        actions = negative_log_likelihood(logp, batch.mask) / counts.chosen
        observations = negative_log_likelihood(logp, batch.observed) / counts.observed
        loss = actions + self.observation_weight * observations
        return loss, {"nll": float(actions.detach())}


@dataclass(frozen=True)
class WeightedSFT:
    """Imitation of turns that turned out better than expected, weighted by their advantage.

    L = mean of max(Â, 0) · NLL(actions). It needs no ratio of policies, so that stale experience is
    as good as fresh (advantage-weighted regression, Peng et al. 2019, with a linear weight).
    """

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        weight = batch.advantage.clamp(min=0.0)[:, None]
        # Where the mask is 0, log-probabilities may be −∞, and 0 · ∞ would not be a number.
        nll = torch.where(batch.mask > 0, -logp * weight, 0.0).sum() / counts.chosen
        return nll, {"weighted_nll": float(nll.detach())}


OBJECTIVES: dict[str, type[Objective]] = {"grpo": GRPO, "ppo_kl": PPOKL, "sft": WeightedSFT}
"""What `learning.objective` may name. Imitation of demonstrations (`SFT`) is added to each."""


def objective(name: str, settings: Mapping[str, Any]) -> Objective:
    """The objective called `name`: a key of `OBJECTIVES`, or "package:Class" from elsewhere.

    Its fields take the settings of the same names, and else their own defaults. Raises ConfigError
    if there is no such objective, or what was named has no method `loss`.
    """
    kind = _imported(name) if ":" in name else OBJECTIVES.get(name)
    if kind is None:
        raise ConfigError(
            f"learning.objective: {name!r} is not an objective",
            f"there are: {', '.join(sorted(OBJECTIVES))}; or name your own as package:Class",
        )
    if not callable(getattr(kind, "loss", None)):
        raise ConfigError(
            f"learning.objective: {name} has no method `loss`", "see docs/add-an-objective.md"
        )
    own: set[str] = {f.name for f in fields(kind)} if is_dataclass(kind) else set()
    return kind(**{key: value for key, value in settings.items() if key in own})


def _imported(name: str) -> type[Objective]:
    module, _, attribute = name.partition(":")
    try:
        found: type[Objective] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"learning.objective: {name} cannot be imported: {error}",
            "write package.module:Class; the package must be importable from where xp is called",
        ) from error
    return found
