"""Likelihoods and divergences: sums over masked tokens, in nats. All tensors are float [B, T]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from experience.learning.surrogates.ratios import log_ratio, masked


def negative_log_likelihood(logp: Tensor, mask: Tensor) -> Tensor:
    """−Σ m·log π, summed over the masked tokens, in nats.

    mask float [B, T]: 1 where a token counts.
    """
    return -masked(logp, mask).sum()


def k3_divergence(logp: Tensor, logp_reference: Tensor, mask: Tensor) -> Tensor:
    """An estimate of KL(π‖π_ref), summed over the masked tokens, in nats; never negative.

    Σ m·(r − 1 − log r), r = π_ref/π    Schulman 2020, "Approximating KL divergence", k3

    logp: of π, whose samples the tokens are. As a loss its gradient is that of KL(π_ref‖π), which
    is another minimum: see `divergence`.
    """
    ratio = log_ratio(logp_reference, logp, mask)
    return ((ratio.exp() - 1 - ratio) * mask).sum()


def divergence(logp: Tensor, logp_reference: Tensor, mask: Tensor, to_go: bool = False) -> Tensor:
    """k3 in value, with a gradient of KL(π‖π_ref); summed over the masked tokens.

    E_π[log(π/π_ref) ∇ log π] = ∇KL(π‖π_ref)    (the gradient of k2, Schulman 2020)

    k1 and k3 as losses have other expected gradients, and so another fixed point than
    π* ∝ π_ref·e^{r/β}. to_go: a token answers for the divergence of all tokens of its sequence from
    it on, as where the divergence is taken off the reward. Without it, each answers for its own: it
    varies less, and what a token does to later ones is left out.
    """
    away = log_ratio(logp, logp_reference, mask).detach()
    credit = away.flip(1).cumsum(1).flip(1) if to_go else away
    gradient = (credit * masked(logp, mask)).sum()
    value = k3_divergence(logp.detach(), logp_reference, mask)
    return gradient - gradient.detach() + value


def preference_loss(
    better: Tensor, worse: Tensor, better_reference: Tensor, worse_reference: Tensor, beta: float
) -> Tensor:
    """Σ −log σ(β·((log π − log π_ref)(better) − (log π − log π_ref)(worse))), summed over pairs.

    Rafailov et al. 2023 (DPO), eq. 7. All but beta: float [N], log-probabilities of whole answers.
    """
    margin = (better - better_reference) - (worse - worse_reference)
    return -functional.logsigmoid(beta * margin).sum()


def weighted_likelihood(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """−Σ m·max(Â, 0)·log π: imitation of what turned out better than expected.

    Peng et al. 2019 (advantage-weighted regression), with a linear weight. It needs no ratio of
    policies, so that stale experience is as good as fresh.
    """
    weight = advantages.clamp(min=0.0)
    # Where the mask is 0, log-probabilities may be −∞, and 0 · ∞ would not be a number.
    return torch.where(mask > 0, -logp * weight, 0.0).sum()
