"""Which experiment to do next, where a simulator is cheap but biased, and a measurement is dear.

The model is AR(1) co-kriging (Kennedy & O'Hagan 2000): f(x) = ρ·m(x) + δ(x), where f is the
property, m the simulator, and δ a Gaussian process. ρ, the scale of δ and its length are averaged
over, weighted by their evidence: the weight of a simulator that does not fit the measurements goes
to 0. The next candidate is the one of the greatest expected improvement (Jones, Schonlau & Welch
1998).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from experience.errors import RecordError
from experience.returns import Floats

_LENGTHS = (0.15, 0.3, 0.6, 1.2)
"""Candidates of ℓ, the length of δ's kernel. The space of candidates has sides of length 1."""
_SHARES = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates of ρ. A simulator may rank the candidates the wrong way round: then ρ < 0."""
_UNEXPLAINED = 0.25
"""The prior standard deviation of the simulator's error, as a share of that of its predictions.

At 1, more is measured than pays: mean returns of 0.25 and 0.68 instead of 0.29 and 0.75, on 40
training tasks of the reactor and of materials."""


@dataclass(frozen=True)
class Belief:
    """The prediction of every candidate's property: mean and standard deviation, float [N].

    `share` is the posterior mean of ρ, the weight of the simulator.
    """

    mean: Floats
    spread: Floats
    share: float


@dataclass(frozen=True)
class _Conditioned:
    """The prediction given one ρ and one length, in units of the scale: float [N] each.

    `evidence` is the log marginal likelihood of the measurements, up to a constant.
    """

    mean: Floats
    variance: Floats
    evidence: float
    share: float


class Campaign:
    """A search for the candidate of the greatest measured property.

    candidates: float [N, D] in [0, 1]. simulated: float [N], the simulator's prediction of each;
    None without a simulator. noise: the standard deviation of a measurement, in units of the
    property's scale. unit: that scale; None takes the standard deviation of the measurements so
    far. Give it where it is known: a few measurements that lie close together would seem to say
    that nothing is left to find.

    Raises RecordError if the shapes do not fit.
    """

    def __init__(
        self,
        candidates: Floats,
        simulated: Floats | None = None,
        noise: float = 0.05,
        unit: float | None = None,
    ) -> None:
        if candidates.ndim != 2 or (simulated is not None and len(simulated) != len(candidates)):
            raise RecordError(
                "candidates are [N, D] and simulated is [N]", "give one simulated value a candidate"
            )
        self.measured: dict[int, float] = {}
        self._x = candidates
        self._noise = noise
        self._unit = unit
        self._simulated = np.zeros(len(candidates))
        self._shares: tuple[float, ...] = (0.0,)
        # A constant simulator ranks nothing, and its standard deviation cannot be divided by.
        if simulated is not None and float(np.ptp(simulated)) >= 1e-12:
            self._simulated = (simulated - simulated.mean()) / simulated.std()
            self._shares = _SHARES
        self._kernels: dict[float, Floats] = {}

    def next(self, rng: np.random.Generator) -> int:
        """The index of the candidate to measure now.

        The first is the simulator's best; without a simulator it is drawn by `rng`.
        """
        if self.measured:
            best = max(self.measured.values())
            return int(self.improvement(self.belief(), best).argmax())
        if len(self._shares) > 1:
            return int(self._simulated.argmax())
        return int(rng.integers(len(self._x)))

    def improvement(self, belief: Belief, best: float) -> Floats:
        """The expected improvement of each candidate on `best`, float [N], in the property's unit.

        E[max(f − best, 0)] = (μ − best)·Φ(z) + σ·φ(z), z = (μ − best)/σ
        Jones, Schonlau & Welch 1998, eq. 15

        It is −∞ for what was measured: to measure it again tells nothing new.
        """
        gain = belief.mean - best
        z = gain / belief.spread
        below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z.tolist()])
        by_chance = belief.spread * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        expected: Floats = gain * below + by_chance
        expected[list(self.measured)] = -np.inf
        return expected

    def tell(self, candidate: int, value: float) -> None:
        """Takes a measurement. Raises RecordError unless it is a finite number.

        An experiment that failed is unknown, not 0.
        """
        if not np.isfinite(value):
            raise RecordError(
                f"measurement {value} of candidate {candidate}",
                "leave out what could not be measured",
            )
        self.measured[candidate] = value

    def belief(self) -> Belief:
        """The mixture over ρ, scale and length, each weighted by its evidence.

        Needs one measurement.
        """
        seen = np.fromiter(self.measured, int)
        y = np.fromiter(self.measured.values(), float)
        centre = y.mean()
        scale = self._unit or y.std() or 1.0
        standard = (y - centre) / scale
        parts = [
            self._conditioned(seen, standard, length, share)
            for length, share in product(_LENGTHS, self._shares)
        ]
        # Only ratios of evidences count: less the greatest, none of the exponentials overflows.
        most = max(part.evidence for part in parts)
        weight = np.exp(np.array([part.evidence for part in parts]) - most)
        weight /= weight.sum()
        means = np.array([part.mean for part in parts])
        variances = np.array([part.variance for part in parts])
        mean = weight @ means
        second_moment = weight @ (variances + means**2)
        spread = np.sqrt(np.maximum(second_moment - mean**2, 1e-12))
        shares = np.array([part.share for part in parts])
        return Belief(mean * scale + centre, spread * scale, float(weight @ shares))

    def _conditioned(
        self, seen: np.ndarray, standard: Floats, length: float, share: float
    ) -> _Conditioned:
        """The posterior of f given ρ = `share` and ℓ = `length`.

        seen int [M]: the measured candidates; standard float [M]: their standardised values.
        """
        residual = standard - share * self._simulated[seen]
        kernel = self._kernel(length)
        covariance = kernel[np.ix_(seen, seen)] + self._noise**2 * np.eye(len(seen))
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, residual)
        whitened = np.linalg.solve(root, kernel[seen])
        # The variance of δ is integrated out under an inverse-gamma prior worth two observations of
        # 1 − 0.9ρ², what ρ leaves of the property's variance. The factor 0.9 keeps some of it at
        # ρ = 1: one measurement that fits must not make a perfect simulator certain.
        variance = (float(white @ white) + 2.0 * (1 - 0.9 * share**2)) / (len(seen) + 2.0)
        half_log_determinant = float(np.log(np.diag(root)).sum())
        evidence = -0.5 * (len(seen) + 2.0) * np.log(variance) - half_log_determinant
        # Rounding can push the variance of a measured candidate below 0: hence the floor.
        left = np.maximum(1.0 - (whitened**2).sum(0), 1e-9)
        mean = share * self._simulated + white @ whitened
        return _Conditioned(mean, variance * left, evidence, share)

    def _kernel(self, length: float) -> Floats:
        """k(x, x') = exp(−½|x−x'|²/ℓ²) between all candidates, float [N, N]."""
        if length not in self._kernels:
            square = (self._x**2).sum(1)
            # |x−x'|² = |x|² + |x'|² − 2x·x' needs no [N, N, D] array; rounding may give −1e-16.
            distance = np.maximum(square[:, None] + square[None] - 2 * self._x @ self._x.T, 0.0)
            self._kernels[length] = np.exp(-0.5 * distance / length**2)
        return self._kernels[length]


@dataclass(frozen=True)
class Plan:
    """The next action of a plan, and what the whole plan still costs.

    cost: in units of reward. turns: how many it takes.
    """

    action: str
    cost: float
    turns: int


@dataclass(frozen=True)
class Laboratory:
    """The state of a laboratory, for a planner of its experiments. Values are in units of reward.

    recipes: float [N, D] in [0, 1]. simulated: float [N], the value that the simulator predicts.
    readings: measured values, by recipe. noise: the standard deviation of a reading.
    measure, declare: [N], the plans that lead to a reading of each recipe, and to its declaration
    as the result. turns: how many turns are left.
    """

    recipes: Floats
    simulated: Floats
    readings: Mapping[int, float]
    noise: float
    measure: Sequence[Plan]
    declare: Sequence[Plan]
    turns: int


def experiment(lab: Laboratory) -> tuple[str, float, float]:
    """The action to take now, the expected value of the best recipe, and the simulator's weight ρ.

    The first reading is of the recipe that the simulator predicts to be the best. After it, the
    recipe is measured whose expected improvement exceeds the cost of its measurement by most. If no
    measurement is worth its cost, or no turns are left for one, the recipe of the highest expected
    value is declared.
    """
    unit = _UNEXPLAINED * float(np.std(lab.simulated)) or 1.0
    campaign = Campaign(lab.recipes, lab.simulated, lab.noise / unit, unit)
    for recipe, value in lab.readings.items():
        campaign.tell(recipe, value)
    belief = campaign.belief() if lab.readings else None
    expected = lab.simulated if belief is None else belief.mean
    share = 1.0 if belief is None else belief.share
    declared = _value_of_declaring(lab, expected)
    best = int(declared.argmax())
    promising = _worth_measuring(lab, campaign, belief, float(declared[best]))
    plan = lab.declare[best] if promising is None else lab.measure[promising]
    return plan.action, float(expected[best]), share


def _value_of_declaring(lab: Laboratory, expected: Floats) -> Floats:
    """The expected value of each recipe less the cost to declare it, float [N]; −∞ if too late."""
    in_time = np.array([plan.turns <= lab.turns for plan in lab.declare])
    costs = np.array([plan.cost for plan in lab.declare])
    return np.where(in_time, expected - costs, -np.inf)


def _worth_measuring(
    lab: Laboratory, campaign: Campaign, belief: Belief | None, best: float
) -> int | None:
    """The recipe to measure now; None if no measurement is worth its cost.

    best: the value of declaring now. Without a reading (`belief` None), one is always taken.
    """
    # One turn must be left after the measurement: else its result could not be declared.
    possible = [
        recipe
        for recipe, plan in enumerate(lab.measure)
        if plan.turns < lab.turns and recipe not in lab.readings
    ]
    if not possible:
        return None
    if belief is None:
        return max(possible, key=lambda recipe: float(lab.simulated[recipe]))
    costs = np.array([plan.cost for plan in lab.measure])
    gain = campaign.improvement(belief, best) - costs
    promising = max(possible, key=lambda recipe: float(gain[recipe]))
    return promising if gain[promising] > 0 else None
