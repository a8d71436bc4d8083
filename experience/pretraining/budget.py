"""A budget of compute or of minutes, spent: how many parameters, on how many tokens.

The law and the speed are fitted to measured runs, and nothing is said far outside of them unless
it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experience.errors import ConfigError
from experience.pretraining.scaling import Law, Measured, fit, resampled

BEYOND = 4.0
"""A plan may ask for so many times the largest measured size or length, or fewer than the smallest
by as much."""
RESAMPLED = 200
_FINE = 400


@dataclass(frozen=True)
class Speed:
    """Seconds of a run: tokens · (a_token + each · parameters)."""

    a_token: float
    each: float

    @classmethod
    def of(cls, measured: Measured) -> Speed:
        """Fitted to seconds per token, by least squares of relative errors, neither below 0."""
        each = measured.seconds / measured.tokens
        table = np.stack([1 / each, measured.parameters / each], 1)
        (alone, more), *_ = np.linalg.lstsq(table, np.ones(len(measured)), rcond=None)
        if more < 0:
            return cls(float(1 / (1 / each).mean()), 0.0)
        if alone < 0:
            return cls(0.0, float((each / measured.parameters).mean()))
        return cls(float(alone), float(more))

    def tokens(self, parameters: float, seconds: float) -> float:
        return seconds / (self.a_token + self.each * parameters)


@dataclass(frozen=True)
class Choice:
    """Parameters without the embedding, tokens, and the loss that the law expects, in nats."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """The choice, its spread over resampled fits, and what it was fitted on.

    parameters, tokens, loss, floor: 95 % of the resampled fits lie within. beyond: how many times
    outside of what was measured the choice lies; 1 is inside.
    """

    choice: Choice
    law: Law
    parameters: tuple[float, float]
    tokens: tuple[float, float]
    loss: tuple[float, float]
    floor: tuple[float, float]
    runs: int
    measured_parameters: tuple[float, float]
    measured_tokens: tuple[float, float]
    beyond: float

    def record(self) -> dict[str, Any]:
        return {**vars(self), "choice": vars(self.choice), "law": vars(self.law)}


def measured_of(records: Sequence[Mapping[str, Any]]) -> Measured:
    """The runs of pre-training records. Raises ConfigError if they are of several corpora."""
    corpora = {str(record["corpus"]) for record in records}
    if len(corpora) > 1:
        raise ConfigError(
            f"the runs are of {len(corpora)} corpora: {', '.join(sorted(c[:12] for c in corpora))}",
            "losses of different texts cannot be compared: keep one folder for each corpus",
        )
    columns = (
        np.array([float(record[name]) for record in records])
        for name in ("parameters", "tokens", "nats", "seconds")
    )
    return Measured(*columns)


def plan(
    measured: Measured,
    flops: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    beyond: float = BEYOND,
) -> Plan:
    """Spends `flops` (C = 6·N·D) or `seconds` at the speed of the measured runs.

    Raises ConfigError if neither or both are given, if the runs are too few, or if the choice lies
    more than `beyond` times outside of the measured sizes or lengths.
    """
    if (flops is None) == (seconds is None) or (flops or seconds or 0) <= 0:
        raise ConfigError("a plan spends one budget above 0", "give --minutes, or --flops")
    law = fit(measured)
    speed = Speed.of(measured)
    choice = _choose(law, speed, flops, seconds)
    outside = max(
        _outside(choice.parameters, measured.parameters), _outside(choice.tokens, measured.tokens)
    )
    if outside > beyond:
        raise ConfigError(
            f"the plan of {choice.parameters:.3g} parameters and {choice.tokens:.3g} tokens lies "
            f"{outside:.3g} times outside of what was measured: "
            f"{_ends(measured.parameters)} parameters, {_ends(measured.tokens)} tokens",
            f"measure runs nearer to it, or accept the guess: --beyond {np.ceil(outside):.0f}",
        )
    laws = resampled(measured, law, RESAMPLED, seed)
    others = [_choose(other, speed, flops, seconds) for other in laws]
    return Plan(
        choice,
        law,
        _within([c.parameters for c in others]),
        _within([c.tokens for c in others]),
        _within([c.loss for c in others]),
        _within([other.floor for other in laws]),
        len(measured),
        _range(measured.parameters),
        _range(measured.tokens),
        outside,
    )


def _choose(law: Law, speed: Speed, flops: float | None, seconds: float | None) -> Choice:
    if flops is not None:
        parameters, tokens = law.best(flops)
        return Choice(parameters, tokens, law.loss(parameters, tokens))
    assert seconds is not None
    # No closed form: seconds are not proportional to N·D in a small model.
    sizes = np.geomspace(1e1, 1e12, _FINE * 11)
    lengths: Any = speed.tokens(sizes, seconds)  # type: ignore[arg-type]
    losses: Any = law.loss(sizes, lengths)  # type: ignore[arg-type]
    best = int(np.argmin(losses))
    return Choice(float(sizes[best]), float(lengths[best]), float(losses[best]))


def _outside(value: float, measured: np.ndarray) -> float:
    return float(max(value / measured.max(), measured.min() / value, 1.0))


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _ends(values: np.ndarray) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _within(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
