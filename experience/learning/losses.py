"""Losses over tokens: pure functions, shapes and sources at each. All token tensors are float [B, T]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log π(token_t | tokens before t), float [B, T−1], from logits [B, T, V] and tokens int64 [B, T]."""
    predicted = logits[:, :-1].log_softmax(-1)
    return predicted.gather(-1, tokens[:, 1:, None])[..., 0]


def negative_log_likelihood(logp: Tensor, mask: Tensor) -> Tensor:
    """−(1/Σm) Σ m·log π: the mean over the masked tokens, in nats. mask float [B, T], 1 where a token counts."""
    return -(logp * mask).sum() / mask.sum().clamp(min=1)


@dataclass(frozen=True)
class Clip:
    """The trust region of the token ratio: [1 − below, 1 + above]; `above` > `below` keeps rare tokens alive (DAPO)."""

    below: float = 0.2
    above: float = 0.28


def clipped_policy_gradient(logp: Tensor, logp_behaviour: Tensor, advantage: Tensor, mask: Tensor,
                            clip: Clip = Clip()) -> tuple[Tensor, dict[str, float]]:
    """Mean over masked tokens of max(−ρÂ, −clip(ρ)Â), ρ = π/μ.    Schulman et al. 2017, eq. 7; DAPO 2025, eq. 8

    logp, logp_behaviour (from the sampler, not recomputed), mask: [B, T]; advantage: [B], one a turn.
    Also gives the mean of the k3 estimate of KL(μ‖π) and the clipped fraction.
    """
    log_ratio = (logp - logp_behaviour).clamp(-10, 10)
    ratio = log_ratio.exp()
    gain = ratio * advantage[:, None]
    bounded = ratio.clamp(1 - clip.below, 1 + clip.above) * advantage[:, None]
    tokens = mask.sum().clamp(min=1)
    loss = -(torch.minimum(gain, bounded) * mask).sum() / tokens
    with torch.no_grad():
        kl = ((ratio - 1 - log_ratio) * mask).sum() / tokens
        clipped = ((gain > bounded) * mask).sum() / tokens
    return loss, {"kl": float(kl), "clipped": float(clipped)}
