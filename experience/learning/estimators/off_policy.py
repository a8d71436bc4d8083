"""Values and advantages from another policy's experience: V-trace, pure and in numpy."""

from __future__ import annotations

import numpy as np

from experience.errors import RecordError
from experience.returns import Floats


def vtrace(
    log_ratios: Floats,
    rewards: Floats,
    discounts: Floats,
    values: Floats,
    values_next: Floats,
    *,
    trace: float = 1.0,
    most_ratio: float = 1.0,
    most_trace: float = 1.0,
) -> tuple[Floats, Floats]:
    """(targets v_s, advantages) of the steps of one episode, float [T] each.

    v_s = V(x_s) + Σ_{t≥s} (Π_{s≤i<t} γ_{i+1} c_i) ρ_t (r_t + γ_{t+1} V(x_{t+1}) − V(x_t))
    Â_s = ρ_s (r_s + γ_{s+1} v_{s+1} − V(x_s))
    ρ = min(ρ̄, π/μ), c = λ min(c̄, π/μ)    Espeholt et al. 2018 (IMPALA), eq. 1 and section 4.2

    log_ratios: log π/μ of each step. All float [T]; γ is 0 where the world ended. With π = μ and
    λ = 1 the targets are the returns; their fixed point is the value of π_ρ̄ ∝ min(ρ̄ μ, π). Raises
    RecordError if lengths differ, or ρ̄ < c̄.
    """
    steps = len(rewards)
    if any(len(other) != steps for other in (log_ratios, discounts, values, values_next)):
        raise RecordError(
            f"{steps} rewards, and ratios, discounts and values of other lengths",
            "give one of each a step",
        )
    if most_ratio < most_trace:
        raise RecordError(
            f"ρ̄ = {most_ratio:g} is below c̄ = {most_trace:g}",
            "V-trace converges for ρ̄ ≥ c̄ (Espeholt et al. 2018, section 4.1)",
        )
    ratios = np.exp(log_ratios)
    rho = np.minimum(most_ratio, ratios)
    c = trace * np.minimum(most_trace, ratios)
    errors = rho * (rewards + discounts * values_next - values)
    beyond = np.empty(steps)
    following = 0.0
    # Backwards: each correction needs the one after it, so that T steps cost O(T).
    for t in range(steps - 1, -1, -1):
        following = errors[t] + discounts[t] * c[t] * following
        beyond[t] = following
    targets: Floats = values + beyond
    # The target of the next step; the last step bootstraps from the value of what follows it.
    after = np.append(targets[1:], values_next[-1:])
    advantages: Floats = rho * (rewards + discounts * after - values)
    return targets, advantages
