"""Advantages over time: pure functions of one episode, each with its shapes and its source."""

from __future__ import annotations

import numpy as np

from experience.errors import RecordError
from experience.returns import Floats


def generalized_advantages(
    rewards: Floats, discounts: Floats, values: Floats, values_next: Floats, trace: float
) -> Floats:
    """Â_t = δ_t + γ_{t+1} λ Â_{t+1}, δ_t = R_{t+1} + γ_{t+1} v(S_{t+1}) − v(S_t)

    Schulman et al. 2016 (GAE), eq. 16. All float [T]; γ is 0 where the world ended. It is the
    λ-return less the value. Raises RecordError if the lengths differ.
    """
    _check_lengths(rewards, discounts, values, values_next)
    errors = rewards + discounts * values_next - values
    result = np.empty(len(rewards))
    following = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        following = errors[t] + discounts[t] * trace * following
        result[t] = following
    return result


def differential_errors(
    rewards: Floats, values: Floats, values_next: Floats, average: float
) -> Floats:
    """δ_t = R_{t+1} − r̄ + v(S_{t+1}) − v(S_t)    Sutton & Barto 2018, eq. 10.10

    For a stream that does not end: nothing is discounted. All float [T]; r̄ is the reward a step.
    """
    errors: Floats = rewards - average + values_next - values
    return errors


def differential_advantages(
    rewards: Floats, values: Floats, values_next: Floats, average: float, trace: float
) -> Floats:
    """Â_t = δ_t + λ Â_{t+1} of the differential errors δ: GAE with γ = 1 and centred rewards."""
    return generalized_advantages(
        rewards - average, np.ones(len(rewards)), values, values_next, trace
    )


def average_reward(average: float, errors: Floats, step: float) -> float:
    """r̄ ← r̄ + η Σ δ_t    Sutton & Barto 2018, section 10.3; Wan, Naik & Sutton 2021

    By the errors, not by the rewards: so it converges off-policy, too.
    """
    return average + step * float(errors.sum())


def option_return(rewards: Floats, discounts: Floats) -> tuple[float, float]:
    """(reward, discount) of a whole option, as one step of the level that chose it.

    R = Σ_k (Π_{i<k} γ_i) r_k, γ = Π_k γ_k    Sutton, Precup & Singh 1999, eq. 4
    """
    reward, discount = 0.0, 1.0
    for r, gamma in zip(rewards, discounts, strict=True):
        reward += discount * float(r)
        discount *= float(gamma)
    return reward, discount


def _check_lengths(rewards: Floats, *others: Floats) -> None:
    if any(len(other) != len(rewards) for other in others):
        raise RecordError(
            f"{len(rewards)} rewards, and {[len(o) for o in others]} discounts and values",
            "give one discount, value and next value a reward",
        )
