"""Means and ratios with confidence intervals by Student's t, from five values on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

FEWEST = 5
"""With fewer values there is no interval: the spread of two or three values is hardly known."""


@dataclass(frozen=True)
class Mean:
    """A mean of `n` values; mean ± half is its 95 % interval.

    With fewer than FEWEST values, `half` is None and `values` holds them. Without values the mean
    is NaN: unknown is not 0.
    """

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
    """A value over seeds, the ends of its 95 % interval, and the value of each seed.

    The interval is None with fewer than FEWEST seeds, or if a ratio contains a 0.
    """

    value: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]


def mean_with_interval(values: Sequence[float]) -> Mean:
    """The mean and half the width of its 95 % interval.

    x̄ ± t_{0.975, n−1} s/√n    Student 1908
    """
    n = len(values)
    if not n:
        return Mean(float("nan"), None, 0)
    data = np.asarray(values, float)
    if n < FEWEST:
        return Mean(float(data.mean()), None, n, tuple(data.tolist()))
    half = student_t(n - 1) * float(data.std(ddof=1)) / math.sqrt(n)
    return Mean(float(data.mean()), half, n)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds, its interval, and each seed's value."""
    mean = mean_with_interval(values)
    interval = None if mean.half is None else (mean.mean - mean.half, mean.mean + mean.half)
    return Estimate(mean.mean, interval, tuple(map(float, values)))


def ratio_estimate(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The geometric mean of above/below over paired seeds, and its interval.

    Both are exponentials of those of the log-ratios. If a value is not above 0 there are no
    log-ratios: the result is the ratio of the means then, without an interval. Raises ValueError if
    the lengths differ.
    """
    ratios = [a / b if b else math.nan for a, b in zip(above, below, strict=True)]
    if min([*above, *below], default=0.0) <= 0:
        ratio = float(np.sum(above) / np.sum(below)) if np.sum(below) else math.nan
        return Estimate(ratio, None, tuple(ratios))
    # In logarithms 2 and ½ are equally far from 1, and errors of ratios are nearly symmetric.
    logs = mean_estimate([math.log(ratio) for ratio in ratios])
    if logs.interval is None:
        return Estimate(math.exp(logs.value), None, tuple(ratios))
    low, high = logs.interval
    return Estimate(math.exp(logs.value), (math.exp(low), math.exp(high)), tuple(ratios))


def shown(values: Sequence[float]) -> str:
    """Each value with three significant digits."""
    return ", ".join(f"{value:.3g}" for value in values)


@cache
def student_t(freedom: int, inside: float = 0.95) -> float:
    """t such that a share `inside` of Student's distribution lies within ±t.

    `freedom` is the number of degrees of freedom.
    """
    # The largest t asked for, one degree of freedom at 95 %, is 12.7: 10⁴ is far above it.
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < inside else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t), as a finite series for whole degrees of freedom.

    Abramowitz & Stegun 1964, 26.7.3 and 26.7.4
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
