"""Objectives: the terms of the one loss, L = Σ_j c_j · Σℓ_j / Σn_j.

Each term is a small class with a method `loss`. What a recipe names becomes terms here; a loss of
another package is named as "package:Class" and is a term like any other. See
docs/add-an-objective.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from experience.errors import ConfigError
from experience.learning.recipes.recipe import Recipe
from experience.learning.sequences.batch import TokenBatch, TokenCounts
from experience.learning.surrogates import policy_gradient as rules
from experience.learning.surrogates.likelihood import (
    divergence,
    negative_log_likelihood,
    weighted_likelihood,
)
from experience.learning.surrogates.ratios import (
    grouped_log_ratio,
    log_ratio,
    masked,
    stale_negatives,
    within,
)
from experience.preferences.losses import Rule, direct, identity

Metrics = dict[str, float]


class Objective(Protocol):
    """A term of the loss over sequences of experience with advantages."""

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
class Term:
    """One summand of the loss: c · `objective`."""

    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True)
class PolicyGradient:
    """The policy-gradient term of a recipe: its surrogate, ratio, masks and denominator."""

    recipe: Recipe

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        mask, recipe = batch.mask, self.recipe
        from_behaviour = log_ratio(logp, batch.logp_behaviour, mask)
        step, weight = from_behaviour, batch.weight
        if recipe.decoupled:
            proximal = _proximal(batch)
            step = log_ratio(logp, proximal, mask)
            away = log_ratio(proximal, batch.logp_behaviour, mask)
            weight = weight * rules.behaviour_weight(away, recipe.weight_cap)
        step = self._grouped(step, batch)
        weight = weight * self._kept(logp, from_behaviour, batch)
        plain = masked(logp, mask)
        gain = self._gain(plain, step, batch)
        measure = batch.share if recipe.over == "responses" else mask
        total = -(gain * (measure * weight)).sum() / self._count(counts)
        with torch.no_grad():
            sums = {
                "kl": ((from_behaviour.exp() - 1 - from_behaviour) * mask).sum(),
                "clipped": self._clipped(gain, step, batch),
            }
        return total, {name: float(s) / counts.chosen for name, s in sums.items()}

    def _gain(self, logp: Tensor, step: Tensor, batch: TokenBatch) -> Tensor:
        kind, recipe = self.recipe.surrogate, self.recipe
        if kind == "none":
            return rules.reinforce(logp, batch.advantages)
        if kind == "cispo":
            return rules.truncated_sampling(logp, step, batch.advantages, recipe.is_cap)
        clip = rules.Clip(recipe.clip_below, recipe.clip_above, recipe.clip_dual)
        return rules.clipped(step, batch.advantages, clip)

    def _grouped(self, step: Tensor, batch: TokenBatch) -> Tensor:
        if self.recipe.ratio == "token":
            return step
        is_whole = self.recipe.ratio == "sequence"
        groups = torch.zeros_like(batch.turn) if is_whole else batch.turn
        return grouped_log_ratio(step, groups, batch.mask)

    def _kept(self, logp: Tensor, ratio: Tensor, batch: TokenBatch) -> Tensor | float:
        """1 where a token is learned from, 0 where the recipe's mask leaves it out."""
        most = self.recipe.mask_limit
        if self.recipe.mask == "icepop":
            return within(ratio.detach().exp(), most)
        if self.recipe.mask == "stale_negatives":
            return stale_negatives(
                logp.detach(), batch.logp_behaviour, batch.advantages, batch.mask, most
            )
        return 1.0

    def _count(self, counts: TokenCounts) -> float:
        if self.recipe.over == "tokens":
            return counts.chosen
        long = self.recipe.constant_tokens if self.recipe.over == "constant" else 1
        return counts.responses * long

    def _clipped(self, gain: Tensor, step: Tensor, batch: TokenBatch) -> Tensor:
        """The number of tokens whose ratio was bounded."""
        if self.recipe.surrogate == "none":
            return torch.zeros(())
        if self.recipe.surrogate == "cispo":
            return ((step.exp() > self.recipe.is_cap) * batch.mask).sum()
        return ((gain != step.exp() * batch.advantages) * batch.mask).sum()


def _proximal(batch: TokenBatch) -> Tensor:
    if batch.logp_proximal is None:
        raise ConfigError(
            "a decoupled ratio: the batch holds no log-probabilities of the update's start",
            "fill TokenSequence.proximal, or set learning.recipe.decoupled=false",
        )
    return batch.logp_proximal


@dataclass(frozen=True)
class Divergence:
    """KL(π‖reference), a mean over the chosen tokens: k3 in value, with the gradient of the KL.

    Raises ConfigError if the batch holds no log-probabilities of a reference.
    """

    to_go: bool = False
    reads_reference: ClassVar[bool] = True

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        if batch.logp_reference is None:
            raise ConfigError(
                "a divergence: the batch holds no log-probabilities of a reference policy",
                "fill TokenBatch.logp_reference, or set learning.recipe.kl_weight=0",
            )
        total = divergence(logp, batch.logp_reference, batch.mask, self.to_go)
        mean = total / counts.chosen
        return mean, {"kl_reference": float(mean.detach())}


@dataclass(frozen=True)
class ActionLikelihood:
    """The negative log-likelihood of the actions, in nats a token."""

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        nll = negative_log_likelihood(logp, batch.mask) / counts.chosen
        return nll, {"nll": float(nll.detach())}


@dataclass(frozen=True)
class ObservationLikelihood:
    """The negative log-likelihood of what was read, in nats a token: also the loss of plain text,
    whose tokens are all read."""

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        nll = negative_log_likelihood(logp, batch.observed) / counts.observed
        return nll, {"observed_nll": float(nll.detach())}


@dataclass(frozen=True)
class WeightedLikelihood:
    """max(Â, 0)·NLL(actions): imitation of turns that turned out better than expected."""

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        nll = weighted_likelihood(logp, batch.advantages, batch.mask) / counts.chosen
        return nll, {"weighted_nll": float(nll.detach())}


RULES: Mapping[str, Rule] = {"dpo": direct, "ipo": identity}
"""Surrogates that learn from rankings; `kl_weight` is their β."""


@dataclass(frozen=True)
class Preferences:
    """−Σ Â·log π, where Â is −∂L/∂log π of a whole answer and L a rule of `RULES`.

    The learner gives the turns of an answer that advantage, anew for each update: so the gradient
    is that of L, however an update is cut.
    """

    rule: Rule
    beta: float
    reads_reference: ClassVar[bool] = True

    def loss(self, logp: Tensor, batch: TokenBatch, counts: TokenCounts) -> tuple[Tensor, Metrics]:
        return -(masked(logp, batch.mask) * batch.advantages).sum() / counts.chosen, {}


def lived_terms(recipe: Recipe) -> list[Term]:
    """The terms over lived, remembered and imagined experience."""
    if recipe.surrogate in RULES:
        return [Term(Preferences(RULES[recipe.surrogate], recipe.kl_weight))]
    if ":" in recipe.surrogate:
        own = Term(_constructed(recipe.surrogate, recipe.cells()))
    elif recipe.surrogate == "sft":
        own = Term(WeightedLikelihood())
    else:
        own = Term(PolicyGradient(recipe))
    return [
        own,
        *([Term(Divergence(recipe.kl_to_go), recipe.kl_weight)] if recipe.kl_weight else []),
    ]


def imitation_terms(observation_weight: float) -> list[Term]:
    """The terms over demonstrations, and over what planners concluded."""
    terms = [Term(ActionLikelihood())]
    if observation_weight:
        terms.append(Term(ObservationLikelihood(), observation_weight))
    return terms


def text_terms() -> list[Term]:
    """The terms over plain text: next-token prediction."""
    return [Term(ObservationLikelihood())]


def _constructed(name: str, settings: Mapping[str, Any]) -> Objective:
    """The loss "package:Class" with the cells of the same names as its fields.

    Raises ConfigError if it cannot be imported, or has no method `loss`.
    """
    kind = _imported(name)
    if not callable(getattr(kind, "loss", None)):
        raise ConfigError(
            f"learning.recipe: {name} has no method `loss`", "see docs/add-an-objective.md"
        )
    own: set[str] = {f.name for f in fields(kind)} if is_dataclass(kind) else set()
    return kind(**{key: value for key, value in settings.items() if key in own})


def _imported(name: str) -> type[Objective]:
    module, _, attribute = name.partition(":")
    try:
        found: type[Objective] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"learning.recipe: {name} cannot be imported: {error}",
            "write package.module:Class; the package must be importable from where xp is called",
        ) from error
    return found
