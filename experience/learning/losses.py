"""Losses over tokens: pure functions, each with its shapes and its source.

All token tensors are float [B, T]. A loss is a sum over tokens. It is divided by the number of
tokens of the whole update, so that the cut into micro-batches changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experience.models.decoding import decoder_logprobs


def token_logprobs(
    logits: Tensor, tokens: Tensor, temperature: Tensor | float = 1.0, barred: Tensor | None = None
) -> Tensor:
    """log π(token_t | tokens before t), float [B, T−1], as the decoder scored it.

    logits [B, T, V]; tokens int64 [B, T]; temperature a number, or one for each sequence [B];
    barred bool [B, T−1, V]: True where the decoder never draws the token.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits.dtype)[:, None, None]
    predicted = decoder_logprobs(logits[:, :-1], temperature, barred)
    return predicted.gather(-1, tokens[:, 1:, None])[..., 0]


def negative_log_likelihood(logp: Tensor, mask: Tensor) -> Tensor:
    """−Σ m·log π, summed over the masked tokens, in nats.

    mask float [B, T]: 1 where a token counts.
    """
    return -_masked(logp, mask).sum()


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` where the mask is 1, else 0. A product with the mask would give NaN for −∞."""
    return torch.where(mask > 0, values, 0.0)


@dataclass(frozen=True)
class Clip:
    """The trust region of the token ratio: [1 − below, 1 + above].

    `above` > `below` lets rare tokens become likelier (DAPO). `dual`: if the advantage is negative,
    the loss of a token is at most `dual` times its size (Ye et al. 2020, eq. 5).
    """

    below: float = 0.2
    above: float = 0.28
    dual: float = 3.0


def clipped_policy_gradient(
    logp: Tensor, logp_behaviour: Tensor, advantage: Tensor, mask: Tensor, clip: Clip = Clip()
) -> tuple[Tensor, dict[str, float]]:
    """The clipped surrogate loss with a dual clip, summed over the masked tokens; and its metrics.

    Σ max(−ρÂ, −clip(ρ)Â), ρ = π/μ; where Â < 0 at most −c·Â
    Schulman et al. 2017, eq. 7; DAPO 2025, eq. 8; dual clip: Ye et al. 2020, eq. 5

    logp, logp_behaviour (from the sampler, not recomputed), mask: [B, T]; advantage: [B], one for
    each turn. The metrics are sums: the k3 estimate of KL(μ‖π), and the number of clipped tokens.
    """
    # The clamp keeps one stale token from overflowing exp; the ratio's clip acts far below it.
    log_ratio = _masked(logp - logp_behaviour, mask).clamp(-10, 10)
    ratio = log_ratio.exp()
    advantage = advantage[:, None]
    gain = ratio * advantage
    bounded = torch.minimum(gain, ratio.clamp(1 - clip.below, 1 + clip.above) * advantage)
    # For Â < 0 the clipped loss has no upper bound: one stale token could outweigh the batch.
    floored = torch.where(advantage < 0, torch.maximum(bounded, clip.dual * advantage), bounded)
    with torch.no_grad():
        kl = ((ratio - 1 - log_ratio) * mask).sum()
        clipped = ((gain != floored) * mask).sum()
    return -(floored * mask).sum(), {"kl": float(kl), "clipped": float(clipped)}


def k3_divergence(logp: Tensor, logp_reference: Tensor, mask: Tensor) -> Tensor:
    """An estimate of KL(π‖π_ref), summed over the masked tokens, in nats; never negative.

    Σ m·(r − 1 − log r), r = π_ref/π    Schulman 2020, "Approximating KL divergence", k3

    logp (of π, whose samples the tokens are), logp_reference and mask: float [B, T].
    """
    # A token that one policy finds all but impossible would overflow exp.
    log_ratio = _masked(logp_reference - logp, mask).clamp(-10, 10)
    return ((log_ratio.exp() - 1 - log_ratio) * mask).sum()
