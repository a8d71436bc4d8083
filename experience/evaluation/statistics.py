"""Means and ratios that say how sure they are: Student's t, from five values on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

FEWEST = 5
"""Values below which there is no interval, only the values: of two or three the spread itself is not known."""


@dataclass(frozen=True)
class Mean:
    """mean ± half is a 95 % interval over n values; of fewer than FEWEST, half is None and `values` are all there is to
    say. The mean of none is NaN: unknown is not 0."""

    mean: float
    half: float | None
    n: int
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.half is not None:
            return f"{self.mean:.2f} ± {self.half:.2f}"
        return f"{self.mean:.2f} ({shown(self.values)})" if self.n else "–"


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval, None where fewer than FEWEST seeds, or a 0 in a ratio, give none;
    and the value of each seed."""

    value: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]


def mean_with_interval(values: Sequence[float]) -> Mean:
    """The mean, and half the width of its 95 % interval: x̄ ± t_{0.975, n−1} s/√n.    Student 1908"""
    n = len(values)
    if not n:
        return Mean(float("nan"), None, 0)
    data = np.asarray(values, float)
    if n < FEWEST:
        return Mean(float(data.mean()), None, n, tuple(data.tolist()))
    return Mean(float(data.mean()), student_t(n - 1) * float(data.std(ddof=1)) / math.sqrt(n), n)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds, its interval, and each seed's value."""
    mean = mean_with_interval(values)
    interval = None if mean.half is None else (mean.mean - mean.half, mean.mean + mean.half)
    return Estimate(mean.mean, interval, tuple(map(float, values)))


def ratio_estimate(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The geometric mean of above/below over paired seeds: the mean of the log-ratios and its interval, exponentiated.

    Where a value is not above 0 there is no log-ratio: the ratio of the means then, without an interval. Raises
    ValueError if the lengths differ.
    """
    ratios = [a / b if b else math.nan for a, b in zip(above, below, strict=True)]
    if min([*above, *below], default=0.0) <= 0:
        return Estimate(
            float(np.sum(above) / np.sum(below)) if np.sum(below) else math.nan, None, tuple(ratios)
        )
    logs = mean_estimate([math.log(ratio) for ratio in ratios])
    interval = (
        None if logs.interval is None else (math.exp(logs.interval[0]), math.exp(logs.interval[1]))
    )
    return Estimate(math.exp(logs.value), interval, tuple(ratios))


def shown(values: Sequence[float]) -> str:
    """Each value, with three digits that count."""
    return ", ".join(f"{value:.3g}" for value in values)


@cache
def student_t(freedom: int, inside: float = 0.95) -> float:
    """t such that a share of `inside` of Student's distribution with so many degrees of freedom lies within ±t."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < inside else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t), a finite series for whole degrees of freedom.    Abramowitz & Stegun 1964, 26.7.3 and 26.7.4"""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
