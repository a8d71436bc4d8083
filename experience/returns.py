"""Returns and advantages from rewards: pure functions, each with its shapes and its source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experience.errors import RecordError

Floats = NDArray[np.float64]


def leave_one_out(returns: Floats) -> Floats:
    """How much better each of G episodes did than the mean of the others, in units of reward.

    Â_i = R_i − mean_{j≠i} R_j = (R_i − R̄)·G/(G−1)    Kool et al. 2019 (RLOO); Ahmadian et al. 2024

    returns and result: float [G], G ≥ 2. Raises RecordError for one episode: it has no baseline.
    """
    group = len(returns)
    if group < 2:
        raise RecordError(
            "a group of one episode has no baseline", "collect groups of two episodes or more"
        )
    advantages: Floats = (returns - returns.mean()) * (group / (group - 1))
    return advantages


def discounted_returns(rewards: Floats, discounts: Floats, bootstrap: float = 0.0) -> Floats:
    """The discounted return after each step, in units of reward.

    G_t = R_{t+1} + γ_{t+1} G_{t+1}, with G_T = bootstrap    Sutton & Barto 2018, eq. 3.9

    rewards, discounts and result: float [T]; γ is given per step and is 0 where the world ended.
    """
    if len(rewards) != len(discounts):
        raise RecordError(
            f"{len(rewards)} rewards but {len(discounts)} discounts", "give one discount a reward"
        )
    result = np.empty(len(rewards))
    # Backwards: each return needs the one after it, so that T steps cost O(T).
    following = bootstrap
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + discounts[t] * following
        result[t] = following
    return result


def lambda_returns(rewards: Floats, discounts: Floats, values_next: Floats, trace: float) -> Floats:
    """The λ-return after each step: a mixture of n-step returns that end in a value.

    G_t = R_{t+1} + γ_{t+1} ((1 − λ) v(S_{t+1}) + λ G_{t+1}), with G_T = v(S_T)
    Sutton & Barto 2018, eq. 12.18

    rewards, discounts, values_next (v of the state after each step) and result: float [T].
    `trace` is λ: 1 is Monte Carlo with a bootstrapped end, 0 is one-step TD. Raises RecordError if
    the lengths differ.
    """
    if not len(rewards) == len(discounts) == len(values_next):
        raise RecordError(
            f"{len(rewards)} rewards, {len(discounts)} discounts, {len(values_next)} values",
            "give one discount and one next value a reward",
        )
    result = np.empty(len(rewards))
    following = float(values_next[-1]) if len(values_next) else 0.0
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + discounts[t] * ((1 - trace) * values_next[t] + trace * following)
        result[t] = following
    return result
