"""Means that say how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """mean ± half is a 95 % interval; n values. NaN where there are none: unknown is not 0."""

    mean: float
    half: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half:.2f}" if self.n else "–"


def mean_with_interval(values: Sequence[float], resamples: int = 1000) -> Mean:
    """The mean and half the width of its 95 % percentile bootstrap interval.    Efron 1979"""
    if not values:
        return Mean(float("nan"), float("nan"), 0)
    data = np.asarray(values, float)
    draws = np.random.default_rng(0).integers(len(data), size=(resamples, len(data)))
    low, high = np.quantile(data[draws].mean(1), [0.025, 0.975])
    return Mean(float(data.mean()), float(high - low) / 2, len(data))
