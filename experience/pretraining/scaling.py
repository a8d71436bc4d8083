"""Scaling laws: how a pre-training's loss falls with parameters and tokens, fitted to own runs.

    L(N, D) = E + A/N^α + B/D^β    Hoffmann et al. 2022 (Chinchilla), eq. 2

E is the loss that no model of any size gets below: the entropy of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from experience.errors import ConfigError

Floats = np.ndarray
HUBER = 1e-3
"""δ of the Huber loss, as published: a residual above 0.1 % of the loss counts linearly."""
FEWEST_RUNS = 6
"""Five numbers are fitted: with five runs nothing would be left to see an error by."""
FEWEST_SIZES = 3
_FIRST_ROUNDS = 30
_ROUNDS = 150
_GOING_ON = 16
_STARTS = tuple(
    product((0.0, 3.0, 6.0), (0.0, 5.0, 10.0), (-1.0, 0.0, 1.0), (0.2, 0.5, 1.0), (0.2, 0.5, 1.0))
)
"""(log A, log B, log E, α, β): the published grid, coarser."""


@dataclass(frozen=True)
class Law:
    """The fitted constants. N: parameters without the embedding; D: predicted tokens."""

    floor: float
    of_parameters: float
    of_tokens: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """L(N, D), in nats a token."""
        loss: float = (
            self.floor
            + self.of_parameters / parameters**self.alpha
            + self.of_tokens / tokens**self.beta
        )
        return loss

    def best(self, flops: float) -> tuple[float, float]:
        """(N, D) of the lowest loss under C = 6·N·D.

        N = G·(C/6)^{β/(α+β)}, D = (C/6)^{α/(α+β)}/G, G = (αA/βB)^{1/(α+β)}
        Hoffmann et al. 2022, eq. 4
        """
        together = self.alpha + self.beta
        ratio = self.alpha * self.of_parameters / (self.beta * self.of_tokens)
        balance = ratio ** (1 / together)
        return (
            balance * (flops / 6) ** (self.beta / together),
            (flops / 6) ** (self.alpha / together) / balance,
        )


PUBLISHED = Law(1.69, 406.4, 410.7, 0.34, 0.28)
"""Hoffmann et al. 2022, eq. 10, for their text, tokens and models."""


@dataclass(frozen=True)
class Measured:
    """Held-out losses of runs of one corpus: parameters, tokens, nats and seconds, float [R]."""

    parameters: Floats
    tokens: Floats
    nats: Floats
    seconds: Floats

    def __len__(self) -> int:
        return len(self.nats)

    def some(self, rows: Floats) -> Measured:
        return Measured(
            self.parameters[rows], self.tokens[rows], self.nats[rows], self.seconds[rows]
        )

    @property
    def logs(self) -> Floats:
        """log N, log D and log L, float [3, R]."""
        logs: Floats = np.log(np.stack([self.parameters, self.tokens, self.nats]))
        return logs

    @property
    def _kinds(self) -> tuple[int, int]:
        return len(set(self.parameters.tolist())), len(set(self.tokens.tolist()))

    @property
    def tells_a_law(self) -> bool:
        return len(self) >= FEWEST_RUNS and min(self._kinds) >= FEWEST_SIZES

    def check(self) -> None:
        """Raises ConfigError if the runs are too few, or too alike, to tell the five constants."""
        if not self.tells_a_law:
            sizes, lengths = self._kinds
            raise ConfigError(
                f"{len(self)} runs of {sizes} sizes and {lengths} lengths do not tell a law of "
                "five constants",
                f"measure {FEWEST_RUNS} runs or more, of {FEWEST_SIZES} sizes and lengths at "
                "least: ./xp pretrain SOURCE --widths 8,16,32 --tokens 25000,100000,400000",
            )


def fit(measured: Measured) -> Law:
    """The law of the lowest Huber loss on log L, from many starts.

    min Σ_i Huber_δ(LSE(a − α log N_i, b − β log D_i, e) − log L_i), A = e^a, B = e^b, E = e^e
    Hoffmann et al. 2022, eq. 3. By Levenberg–Marquardt on re-weighted squares, of which the
    minimum is the same.

    Raises ConfigError as `Measured.check` does.
    """
    measured.check()
    starts = np.array(_STARTS, float)
    data, counts = measured.logs, np.ones((len(starts), len(measured)))
    found, loss = _descend(starts, data, counts, _FIRST_ROUNDS)
    # Most starts end in the same few valleys: the best ones alone go on to the bottom.
    best = np.argsort(loss)[:_GOING_ON]
    found, loss = _descend(found[best], data, counts[best], _ROUNDS)
    return _law(found[int(np.argmin(loss))])


def resampled(measured: Measured, around: Law, count: int, seed: int) -> list[Law]:
    """Laws of `count` draws of the runs with replacement: the spread of what was fitted.

    Draws of too few sizes or lengths are drawn again (Efron 1979). All are fitted side by side.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Floats] = []
    while len(drawn) < count:
        rows = rng.integers(len(measured), size=len(measured))
        if measured.some(rows).tells_a_law:
            drawn.append(np.bincount(rows, minlength=len(measured)).astype(float))
    starts = _around(around)
    counts = np.repeat(np.stack(drawn), len(starts), 0)
    found, loss = _descend(np.tile(starts, (count, 1)), measured.logs, counts, _ROUNDS)
    best = loss.reshape(count, len(starts)).argmin(1)
    return [_law(numbers) for numbers in found.reshape(count, len(starts), 5)[range(count), best]]


def _around(law: Law) -> Floats:
    """Starts at a law and beside it, float [S, 5]: a resampled fit may lie in another valley."""
    a, b, e, alpha, beta = _numbers(law)
    return np.array(
        [
            (a, b, e, alpha, beta),
            (a, b, e - 0.3, alpha, beta),
            (a - 1, b - 1, e, 0.7 * alpha, 0.7 * beta),
            (a + 1, b + 1, e, 1.4 * alpha, 1.4 * beta),
        ]
    )


def _numbers(law: Law) -> tuple[float, ...]:
    logs = np.log([max(v, 1e-9) for v in (law.of_parameters, law.of_tokens, law.floor)])
    return (*logs.tolist(), law.alpha, law.beta)


def _law(numbers: Floats) -> Law:
    a, b, e = np.exp(numbers[:3]).tolist()
    return Law(e, a, b, float(numbers[3]), float(numbers[4]))


def _descend(starts: Floats, data: Floats, counts: Floats, rounds: int) -> tuple[Floats, Floats]:
    """(numbers [S, 5], Huber losses [S]) after the descent of each start.

    data: log N, log D and log L, float [3, R]. counts: how often each start counts each run,
    float [S, R].
    """
    found, damping = starts.copy(), np.full(len(starts), 1e-2)
    loss, slope, curve = _around_point(found, data, counts)
    for _ in range(rounds):
        scale = damping[:, None] * (np.einsum("sii->si", curve) + 1e-12)
        step = np.linalg.solve(curve + scale[:, :, None] * np.eye(5), -slope[..., None])[..., 0]
        tried = found + step
        # A falling loss is what is fitted: exponents below 0 would say that it rises.
        tried[:, 3:] = tried[:, 3:].clip(1e-3, 5.0)
        tried[:, :3] = tried[:, :3].clip(-20.0, 60.0)
        new_loss, new_slope, new_curve = _around_point(tried, data, counts)
        better = new_loss < loss
        found[better], loss[better] = tried[better], new_loss[better]
        slope[better], curve[better] = new_slope[better], new_curve[better]
        damping = np.where(better, damping / 3, damping * 4).clip(1e-9, 1e9)
    return found, loss


def _around_point(numbers: Floats, data: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Huber loss [S], its gradient [S, 5], and the weighted Gauss–Newton matrix [S, 5, 5]."""
    a, b, e, alpha, beta = (column[:, None] for column in numbers.T)
    parameters, tokens, target = data
    terms = np.stack([a - alpha * parameters, b - beta * tokens, e + 0 * tokens])
    most = terms.max(0)
    powers = np.exp(terms - most)
    predicted = most + np.log(powers.sum(0))
    shares = powers / powers.sum(0)
    residual = predicted - target
    size = np.abs(residual)
    loss = np.where(size <= HUBER, 0.5 * residual**2, HUBER * (size - 0.5 * HUBER))
    weight = counts * np.minimum(1.0, HUBER / size.clip(1e-300))
    slopes = np.stack(
        [shares[0], shares[1], shares[2], -shares[0] * parameters, -shares[1] * tokens], -1
    )
    weighted = slopes * weight[..., None]
    gradient = (weighted * residual[..., None]).sum(1)
    return (counts * loss).sum(1), gradient, weighted.transpose(0, 2, 1) @ slopes
