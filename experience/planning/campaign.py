"""Campaigns: which experiment to do next, when a cheap simulator is biased and a measurement is
dear.

AR(1) co-kriging (Kennedy & O'Hagan 2000): f(x) = ρ·m(x) + δ(x), with m the simulator and δ a
Gaussian process. ρ, the scale of δ and its length are averaged over by their evidence, so that a
simulator that tells nothing comes to weigh nothing. Chosen is the candidate of the greatest
expected improvement (Jones, Schonlau & Welch 1998).
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
_SHARES = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
_UNEXPLAINED = 0.25
"""How much of the simulation's own spread it is thought to be wrong by, before there is evidence.
At 1 more is measured than pays: 0.25 and 0.68 instead of 0.29 and 0.75 on 40 training tasks of the
reactor and of materials."""


@dataclass(frozen=True)
class Belief:
    """What is expected of every candidate: mean and standard deviation float [N]; ρ, the weight of
    the simulator that the measurements so far speak for."""

    mean: Floats
    spread: Floats
    share: float


class Campaign:
    """A search for the candidate of the greatest measured property. `candidates` float [N, D] in
    [0, 1]; `simulated` float [N], what the simulator says of each (None: there is none); `noise`,
    the measurement's standard deviation, in units of the property's, which is that of the
    measurements so far, or `unit` where it is known: few measurements, close to each other, seem to
    say that nothing is left to find."""

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
        self._x, self._noise, self._unit = candidates, noise, unit
        flat = simulated is None or float(np.ptp(simulated)) < 1e-12
        self._simulated = (
            np.zeros(len(candidates))
            if flat or simulated is None
            else ((simulated - simulated.mean()) / simulated.std())
        )
        self._shares = (0.0,) if flat else _SHARES
        self.measured: dict[int, float] = {}
        self._kernels: dict[float, Floats] = {}

    def next(self, rng: np.random.Generator) -> int:
        """The index of the candidate to measure now.

        The first is the simulator's best, or any without one.
        """
        if not self.measured:
            return (
                int(self._simulated.argmax())
                if len(self._shares) > 1
                else int(rng.integers(len(self._x)))
            )
        return int(self.improvement(self.belief(), max(self.measured.values())).argmax())

    def improvement(self, belief: Belief, best: float) -> Floats:
        """How much better than `best` each candidate is expected to turn out, where it does; float
        [N], in the property's unit. −inf for what was measured: to measure it again tells nothing
        new."""
        gain = belief.mean - best
        z = gain / belief.spread
        below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z.tolist()])
        expected: Floats = gain * below + belief.spread * np.exp(-(z**2) / 2) / math.sqrt(
            2 * math.pi
        )
        expected[list(self.measured)] = -np.inf
        return expected

    def tell(self, candidate: int, value: float) -> None:
        """What was measured.

        Raises RecordError for a value that is none: an experiment that failed is not a 0.
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
        centre, scale = y.mean(), self._unit or y.std() or 1.0
        means, spreads, weights, shares = [], [], [], []
        for length, share in product(_LENGTHS, self._shares):
            residual = (y - centre) / scale - share * self._simulated[seen]
            kernel = self._kernel(length)
            root = np.linalg.cholesky(
                kernel[np.ix_(seen, seen)] + self._noise**2 * np.eye(len(seen))
            )
            white = np.linalg.solve(root, residual)
            whitened = np.linalg.solve(root, kernel[seen])
            # δ's variance has an inverse-gamma prior worth two observations of what ρ leaves of 1:
            # it is never certain.
            variance = (float(white @ white) + 2.0 * (1 - 0.9 * share**2)) / (len(seen) + 2.0)
            evidence = -0.5 * (len(seen) + 2.0) * np.log(variance) - float(
                np.log(np.diag(root)).sum()
            )
            means.append(share * self._simulated + white @ whitened)
            spreads.append(variance * np.maximum(1.0 - (whitened**2).sum(0), 1e-9))
            weights.append(evidence)
            shares.append(share)
        weight = np.exp(np.array(weights) - max(weights))
        weight /= weight.sum()
        mean = weight @ np.array(means)
        second = weight @ (np.array(spreads) + np.array(means) ** 2)
        return Belief(
            mean * scale + centre,
            np.sqrt(np.maximum(second - mean**2, 1e-12)) * scale,
            float(weight @ np.array(shares)),
        )

    def _kernel(self, length: float) -> Floats:
        """k(x, x') = exp(−½|x−x'|²/ℓ²) between all candidates, float [N, N]."""
        if length not in self._kernels:
            square = (self._x**2).sum(1)
            distance = np.maximum(square[:, None] + square[None] - 2 * self._x @ self._x.T, 0.0)
            self._kernels[length] = np.exp(-0.5 * distance / length**2)
        return self._kernels[length]


@dataclass(frozen=True)
class Plan:
    """The next action of a way to something, and what all of it still costs: in units of reward,
    and in turns."""

    action: str
    cost: float
    turns: int


@dataclass(frozen=True)
class Laboratory:
    """A laboratory as it stands, for whoever plans its experiments; values are in units of reward.
    `recipes` float [N, D] in [0, 1]; `simulated` float [N], what the cheap simulation promises of
    each; `readings`, what measurements promised, by recipe; `noise`, the standard deviation of one;
    `measure` and `declare` [N], how to come to a reading of each and how to hand it in; `turns`,
    how many are left."""

    recipes: Floats
    simulated: Floats
    readings: Mapping[int, float]
    noise: float
    measure: Sequence[Plan]
    declare: Sequence[Plan]
    turns: int


def experiment(lab: Laboratory) -> tuple[str, float, float]:
    """What to do now, what is expected of the best recipe, and the weight that the simulation has
    come to have.

    The first that is measured is what the simulation holds best; after that, where the expected
    improvement over what could be handed in is worth most beyond its price. Where none is, or no
    turns are left for it, the recipe that is expected to be best is handed in.
    """
    unit = _UNEXPLAINED * float(np.std(lab.simulated)) or 1.0
    campaign = Campaign(lab.recipes, lab.simulated, lab.noise / unit, unit)
    for recipe, value in lab.readings.items():
        campaign.tell(recipe, value)
    belief = campaign.belief() if lab.readings else None
    expected = lab.simulated if belief is None else belief.mean
    in_time = np.array([way.turns <= lab.turns for way in lab.declare])
    handed = np.where(in_time, expected - np.array([way.cost for way in lab.declare]), -np.inf)
    best = int(handed.argmax())
    possible = [
        i for i, way in enumerate(lab.measure) if way.turns < lab.turns and i not in lab.readings
    ]
    chosen = lab.declare[best]
    if possible:
        gain = (
            expected
            if belief is None
            else (
                campaign.improvement(belief, float(handed[best]))
                - np.array([way.cost for way in lab.measure])
            )
        )
        promising = max(possible, key=lambda i: float(gain[i]))
        if belief is None or gain[promising] > 0:
            chosen = lab.measure[promising]
    return chosen.action, float(expected[best]), 1.0 if belief is None else belief.share
