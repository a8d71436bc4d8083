"""Ratios of policies, of tokens, turns and sequences, and which of them a loss trusts.

All token tensors are float [B, T]; a mask is 1 where a token counts. What is masked may be −∞.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LONGEST = 10.0
"""Log-ratios are cut to ±10, so that one stale token cannot overflow exp. Clips act far below."""


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` where the mask is 1, else 0. A product with the mask would give NaN for −∞."""
    return torch.where(mask > 0, values, 0.0)


def log_ratio(logp: Tensor, logp_old: Tensor, mask: Tensor) -> Tensor:
    """log π/π_old of each token, within ±10; 0 where the mask is 0."""
    return masked(logp - logp_old, mask).clamp(-_LONGEST, _LONGEST)


def mean_over(values: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
    """The mean of the masked values in the token's own group, float [B, T].

    groups int64 [B, T]: numbers from 0, such as the turn of each token; zeros: the whole sequence.
    """
    size = int(groups.max()) + 1 if groups.numel() else 1
    sums = values.new_zeros(len(values), size).scatter_add(1, groups, masked(values, mask))
    counts = mask.new_zeros(len(mask), size).scatter_add(1, groups, mask)
    return (sums / counts.clamp(min=1)).gather(1, groups)


def grouped_log_ratio(token_log_ratio: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
    """The log-ratio of a turn or a sequence at each of its tokens, float [B, T].

    s_{i,t} = sg[s_i] · π_t / sg[π_t], s_i = exp(1/|y_i| Σ_t log ρ_t)
    Zheng et al. 2025 (GSPO), eq. 5 and 14: the value is the sequence's, each token has its own
    gradient.
    """
    mean = mean_over(token_log_ratio.detach(), groups, mask)
    return mean + token_log_ratio - token_log_ratio.detach()


def stale_negatives(
    logp: Tensor, logp_behaviour: Tensor, advantages: Tensor, mask: Tensor, most: float
) -> Tensor:
    """1 at the sequences that are learned from, 0 at stale failures, float [B, T].

    A sequence is left out if its advantage is below 0 and the mean of log μ − log π over its tokens
    is above `most` (DeepSeek-V3.2, 2025).
    """
    whole = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
    away = mean_over(masked(logp_behaviour - logp, mask), whole, mask)
    is_bad = mean_over(advantages, whole, mask) < 0
    return 1.0 - (is_bad & (away > most)).to(mask.dtype)


def within(ratio: Tensor, most: float) -> Tensor:
    """1 where 1/most ≤ ratio ≤ most, else 0 (IcePop, 2025): others teach nothing."""
    return ((ratio <= most) & (ratio >= 1.0 / most)).to(ratio.dtype)
