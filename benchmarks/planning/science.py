"""Campaigns with a cheap biased simulator: measurements until one of the best candidates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.planning.record import Row, ratio_row
from experience.planning.campaign import Campaign, Floats

CAP = 81


def smooth(x: Floats, rng: np.random.Generator) -> Floats:
    """A random function of unit variance over [0, 1]^D.

    A sum of 200 cosines of length scale about 1/3.
    """
    # Random Fourier features: such a sum approximates a draw from a Gaussian process.
    waves = rng.normal(scale=3.0, size=(x.shape[1], 200))
    values = np.cos(x @ waves + rng.uniform(0, 2 * np.pi, 200)) @ rng.normal(size=200)
    return np.asarray((values - values.mean()) / values.std())


def problem(seed: int, correlation: float) -> tuple[Floats, Floats, Floats]:
    """Candidates [1500, 4], their true values, and simulated values of the given correlation."""
    rng = np.random.default_rng(seed)
    x = rng.random((1500, 4))
    truth = smooth(x, rng)
    other = smooth(x, rng)
    # Without its projection on the truth, the other function is uncorrelated with the truth.
    other -= truth * float(np.mean(other * truth))
    return x, truth, correlation * truth + np.sqrt(1 - correlation**2) * other / other.std()


def measurements(seed: int, correlation: float, how: str) -> float:
    """Experiments until one is among the best 0.2 %; the cap if none is."""
    x, truth, simulated = problem(seed, correlation)
    rng = np.random.default_rng(seed)
    best = set(np.argsort(truth)[-3:].tolist())
    campaign = Campaign(x, simulated if how == "simulator and lab" else None)
    order = {"random": rng.permutation(len(x)), "simulator alone": np.argsort(-simulated)}.get(how)
    return until_found(campaign, order, truth, best, 0.05, CAP, rng)


def until_found(
    campaign: Campaign,
    order: NDArray[np.intp] | None,
    truth: Floats,
    best: Collection[int],
    noise: float,
    cap: int,
    rng: np.random.Generator,
) -> float:
    """Measurements until one of `best`; `cap` if there is none until then.

    The campaign chooses them, or they come in the given order.
    """
    for n in range(cap):
        chosen = campaign.next(rng) if order is None else int(order[n])
        if chosen in best:
            return n + 1.0
        campaign.tell(chosen, float(truth[chosen] + noise * rng.normal()))
    return float(cap)


def measured(ways: Sequence[str], seeds: int, correlation: float) -> dict[str, list[float]]:
    """Measurements of each seed, by the way in which candidates are chosen."""
    found = {}
    for how in ways:
        found[how] = [measurements(seed, correlation, how) for seed in range(seeds)]
    return found


def campaigns(seeds: int = 20) -> Iterator[Row]:
    ways = ("random", "simulator alone", "lab alone", "simulator and lab")
    taken = measured(ways, seeds, 0.58)
    yield ratio_row(
        "science campaign: lab measurements, Bayesian optimisation alone over with a simulator",
        "acceleration of self-driving labs: median 6 against random (Adesiji et al. 2025)",
        "ratio",
        taken["lab alone"],
        taken["simulator and lab"],
        ">= 2",
        {f"measurements, {how}": float(np.mean(n)) for how, n in taken.items()},
        "4-D, 1,500 candidates, simulator–lab correlation .58, best 0.2 %, cap 81",
    )
    blind = measured(ways[2:], seeds, 0.0)
    yield ratio_row(
        "science campaign: harm of a simulator that tells nothing",
        "none expected",
        "ratio",
        blind["simulator and lab"],
        blind["lab alone"],
        "<= 1.1",
        {f"measurements, {how}": float(np.mean(n)) for how, n in blind.items()},
        "correlation 0",
    )
