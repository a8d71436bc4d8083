"""Policy-gradient surrogates: pure functions of log-ratios and advantages, one a published rule.

Each returns the gain of every token, float [B, T], which is maximised. log_ratio: log π/π_old with
a gradient; advantages: float [B, T] or [B, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """The trust region of the ratio: [1 − below, 1 + above].

    `above` > `below` lets rare tokens become likelier (DAPO). `dual`: if the advantage is negative,
    the loss of a token is at most `dual` times its size (Ye et al. 2020, eq. 5); 0: no bound.
    """

    below: float = 0.2
    above: float = 0.28
    dual: float = 3.0


def reinforce(logp: Tensor, advantages: Tensor) -> Tensor:
    """Â·log π: no ratio, and no correction for another policy's samples. Williams 1992, eq. 4."""
    return advantages * logp


def clipped(log_ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """min(ρÂ, clip(ρ)Â), and at least c·Â where Â < 0.

    Schulman et al. 2017, eq. 7; DAPO 2025, eq. 8; dual clip: Ye et al. 2020, eq. 5
    """
    ratio = log_ratio.exp()
    gain = ratio * advantages
    bounded = torch.minimum(gain, ratio.clamp(1 - clip.below, 1 + clip.above) * advantages)
    if not clip.dual:
        return bounded
    # For Â < 0 the clipped loss has no upper bound: one stale token could outweigh the batch.
    return torch.where(advantages < 0, torch.maximum(bounded, clip.dual * advantages), bounded)


def truncated_sampling(logp: Tensor, log_ratio: Tensor, advantages: Tensor, most: float) -> Tensor:
    """sg[min(ρ, c)]·Â·log π: CISPO, and truncated importance sampling.

    MiniMax-M1 2025 (arXiv 2506.13585), eq. 4 and 5. The cap acts from above only: no token loses
    its gradient.
    """
    weight = log_ratio.detach().exp().clamp(max=most)
    return weight * advantages * logp


def behaviour_weight(log_ratio: Tensor, most: float) -> Tensor:
    """min(π_prox/μ, c), without a gradient: the weight of decoupled PPO.

    Fu et al. 2025 (AReaL, arXiv 2505.24298), eq. 5. most = 0: no cap.
    """
    weight = log_ratio.detach().exp()
    return weight.clamp(max=most) if most else weight
