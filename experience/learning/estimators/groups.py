"""Advantages of returns within groups: pure functions, each with its source.

returns and results: float [G], in units of reward unless a function says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, MutableMapping, Sequence

import numpy as np

from experience.returns import Floats, leave_one_out

_TINY = 1e-6


def less_mean(returns: Floats) -> Floats:
    """Â_i = R_i − R̄    Liu et al. 2025 (Dr. GRPO)"""
    better: Floats = returns - returns.mean()
    return better


def by_deviation(advantages: Floats) -> Floats:
    """Advantages in units of their group's standard deviation: Â_i / (σ + 10⁻⁶).

    Shao et al. 2024 (GRPO), eq. 4, of R_i − R̄. A nearly flat group becomes as loud as any other.
    """
    scaled: Floats = advantages / (advantages.std() + _TINY)
    return scaled


def whitened(values: Floats, counts: Floats | None = None) -> Floats:
    """(x − mean) / (σ + 10⁻⁶) over the whole batch: REINFORCE++ (arXiv 2501.03262), eq. 9.

    counts float [G]: how often each value counts, e.g. its tokens; None: once each.
    """
    weights = np.ones(len(values)) if counts is None else counts
    mean = np.average(values, weights=weights)
    spread = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    white: Floats = (values - mean) / (spread + _TINY)
    return white


def over_alike(situations: Sequence[Hashable], returns: Floats) -> Floats:
    """Each return less the mean of the others in its situation; 0 without others.

    The step-level half of GiGPO (arXiv 2505.10978, eq. 7), with leave-one-out.
    """
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for place, situation in enumerate(situations):
        alike[situation].append(place)
    better = np.zeros(len(returns))
    for places in alike.values():
        if len(places) > 1:
            better[places] = leave_one_out(returns[places])
    return better


def group_in_group(
    starts: Sequence[Hashable],
    states: Sequence[Hashable],
    to_go: Sequence[Floats],
) -> list[Floats]:
    """Â_t = (R − mean of the others' R) + (G_t − mean of the others' G), float [T_i] each.

    GiGPO (arXiv 2505.10978), eq. 8 with ω = 1, with leave-one-out for both baselines. starts [N]:
    where each episode begins; states [ΣT_i]: of all turns, episode by episode; to_go: the
    discounted returns from each turn, float [T_i] for each of N episodes. The first difference is
    over episodes from the same start, the second over turns in the same state.
    """
    whole = over_alike(starts, np.array([g[0] for g in to_go]))
    lengths = [len(g) for g in to_go]
    better = np.repeat(whole, lengths) + over_alike(states, np.concatenate(to_go))
    return np.split(better, np.cumsum(lengths)[:-1])


def over_roles(
    roles: Sequence[Hashable],
    returns: Floats,
    baselines: MutableMapping[Hashable, float],
    memory: float = 0.95,
) -> Floats:
    """Each return less the running mean of its role's returns, which is updated by it.

    b ← m·b + (1 − m)·R, then Â = R − b    SPIRAL (arXiv 2506.24119), eq. 4

    A first mover that wins more often by the rules alone is not praised for it. baselines: of the
    roles so far; the first return of a role is compared with 0.
    """
    better = np.zeros(len(returns))
    for place, (role, value) in enumerate(zip(roles, returns, strict=True)):
        baselines[role] = memory * baselines.get(role, 0.0) + (1 - memory) * float(value)
        better[place] = value - baselines[role]
    return better


def overlong_penalty(tokens: int, most: int, soft: int) -> float:
    """What a response of so many tokens loses: 0, then linearly down to −1 at `most`.

    DAPO 2025 (arXiv 2503.14476), eq. 13. soft: the tokens before `most` over which it falls. most =
    0: nothing.
    """
    if most and tokens >= most:
        return -1.0
    if not most or tokens <= most - soft:
        return 0.0
    return (most - soft - tokens) / soft
