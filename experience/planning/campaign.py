"""Campaigns: which experiment to do next, when a cheap simulator is biased and a measurement is dear.

AR(1) co-kriging (Kennedy & O'Hagan 2000): f(x) = ρ·m(x) + δ(x), with m the simulator and δ a Gaussian process. ρ, the
scale of δ and its length are averaged over by their evidence, so that a simulator that tells nothing comes to weigh
nothing. Chosen is the candidate of the greatest expected improvement (Jones, Schonlau & Welch 1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from experience.errors import RecordError
from experience.learning.returns import Floats

_LENGTHS = (0.15, 0.3, 0.6, 1.2)
_SHARES = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Belief:
    """What is expected of every candidate: mean and standard deviation float [N]; ρ, the weight of the simulator that
    the measurements so far speak for."""

    mean: Floats
    spread: Floats
    share: float


class Campaign:
    """A search for the candidate of the greatest measured property. `candidates` float [N, D] in [0, 1]; `simulated`
    float [N], what the simulator says of each (None: there is none); `noise`, the measurement's standard deviation, in
    units of the property's."""

    def __init__(self, candidates: Floats, simulated: Floats | None = None, noise: float = 0.05) -> None:
        if candidates.ndim != 2 or (simulated is not None and len(simulated) != len(candidates)):
            raise RecordError("candidates are [N, D] and simulated is [N]", "give one simulated value a candidate")
        self._x, self._noise = candidates, noise
        flat = simulated is None or float(np.ptp(simulated)) < 1e-12
        self._simulated = np.zeros(len(candidates)) if flat or simulated is None else (
            (simulated - simulated.mean()) / simulated.std())
        self._shares = (0.0,) if flat else _SHARES
        self.measured: dict[int, float] = {}
        self._kernels: dict[float, Floats] = {}

    def next(self, rng: np.random.Generator) -> int:
        """The index of the candidate to measure now. The first is the simulator's best, or any without one."""
        if not self.measured:
            return int(self._simulated.argmax()) if len(self._shares) > 1 else int(rng.integers(len(self._x)))
        belief = self.belief()
        gain = belief.mean - max(self.measured.values())
        z = gain / belief.spread
        improvement = gain * torch.special.ndtr(torch.from_numpy(z)).numpy() + belief.spread * np.exp(
            -z**2 / 2) / np.sqrt(2 * np.pi)
        improvement[list(self.measured)] = -np.inf
        return int(improvement.argmax())

    def tell(self, candidate: int, value: float) -> None:
        """What was measured. Raises RecordError for a value that is none: an experiment that failed is not a 0."""
        if not np.isfinite(value):
            raise RecordError(f"measurement {value} of candidate {candidate}", "leave out what could not be measured")
        self.measured[candidate] = value

    def belief(self) -> Belief:
        """The mixture over ρ, scale and length, each weighted by its evidence. Needs one measurement."""
        seen = np.fromiter(self.measured, int)
        y = np.fromiter(self.measured.values(), float)
        centre, scale = y.mean(), y.std() or 1.0
        means, spreads, weights, shares = [], [], [], []
        for length, share in product(_LENGTHS, self._shares):
            residual = (y - centre) / scale - share * self._simulated[seen]
            kernel = self._kernel(length)
            root = np.linalg.cholesky(kernel[np.ix_(seen, seen)] + self._noise**2 * np.eye(len(seen)))
            white = np.linalg.solve(root, residual)
            whitened = np.linalg.solve(root, kernel[seen])
            # δ's variance has an inverse-gamma prior worth two observations of what ρ leaves of 1: it is never certain.
            variance = (float(white @ white) + 2.0 * (1 - 0.9 * share**2)) / (len(seen) + 2.0)
            evidence = -0.5 * (len(seen) + 2.0) * np.log(variance) - float(np.log(np.diag(root)).sum())
            means.append(share * self._simulated + white @ whitened)
            spreads.append(variance * np.maximum(1.0 - (whitened**2).sum(0), 1e-9))
            weights.append(evidence)
            shares.append(share)
        weight = np.exp(np.array(weights) - max(weights))
        weight /= weight.sum()
        mean = weight @ np.array(means)
        second = weight @ (np.array(spreads) + np.array(means) ** 2)
        return Belief(mean * scale + centre, np.sqrt(np.maximum(second - mean**2, 1e-12)) * scale,
                      float(weight @ np.array(shares)))

    def _kernel(self, length: float) -> Floats:
        """k(x, x') = exp(−½|x−x'|²/ℓ²) between all candidates, float [N, N]."""
        if length not in self._kernels:
            square = (self._x**2).sum(1)
            distance = np.maximum(square[:, None] + square[None] - 2 * self._x @ self._x.T, 0.0)
            self._kernels[length] = np.exp(-0.5 * distance / length**2)
        return self._kernels[length]
