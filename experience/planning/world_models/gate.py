"""The gate: which transitions are held out, and which predictions are trusted because of them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from experience.planning.world_models.world_model import ModelError
from experience.step import state_key

Use = Literal["fitted", "gate", "measured"]

FEWEST_GATING, FEWEST_MEASURED = 16, 8
"""Held-out transitions below which no gate is set, and no error is measured."""

_FEWEST_TRUSTED = 8
"""Predictions that the gate must let through, so that its accuracy is more than luck."""

_NEVER = 1e6
"""Nats added to a prediction that must never pass the gate; finite, so that it can be undone."""


def question(observation: str, action: str) -> str:
    """An observation and an action as the one text that the model reads."""
    return f"{observation}\n> {action}"


def use_of(observation: str, action: str) -> Use:
    """What the transitions of this pair are used for: seven of eight pairs are fitted.

    Half of the other pairs set the gate, and the other half measures the error. The choice is a
    hash of the pair, so that a pair that comes again never serves a second use.
    """
    place = state_key(question(observation, action)) % 16
    if place < 14:
        return "fitted"
    return "gate" if place == 14 else "measured"


def first_threshold(trusted_accuracy: float) -> float:
    """The threshold before the first calibration: −∞, or +∞ for no gate (`trusted_accuracy` 0)."""
    return float("-inf") if trusted_accuracy > 0 else float("inf")


def gate(uncertainty: np.ndarray, right: np.ndarray, accuracy: float) -> float:
    """The largest uncertainty u such that a share `accuracy` of the predictions up to u is right.

    At least eight predictions must lie up to u; −∞ if there is no such u.
    uncertainty float [N], right bool [N].
    """
    order = np.argsort(uncertainty, kind="stable")
    rank = np.arange(1, len(order) + 1)
    share = np.cumsum(right[order]) / rank
    # Equal uncertainties pass or fail together.
    last_of_equals = np.append(np.diff(uncertainty[order]) > 0, True)
    enough = rank >= _FEWEST_TRUSTED
    passing = np.flatnonzero((share >= accuracy) & last_of_equals & enough)
    return float(uncertainty[order][passing[-1]]) if len(passing) else float("-inf")


def gates(
    uncertainty: np.ndarray, right: np.ndarray, events: np.ndarray, accuracy: float
) -> tuple[float, float]:
    """The threshold of plain predictions, and what is added to the uncertainty of events.

    With the shift, one threshold serves both gates. uncertainty float [N]; right and events
    bool [N].
    """
    plain = gate(uncertainty[~events], right[~events], accuracy)
    of_events = gate(uncertainty[events], right[events], accuracy)
    if not np.isfinite(plain):
        # In worlds of one turn every outcome is an event: nothing else could set the threshold.
        return of_events, 0.0
    return plain, plain - of_events if np.isfinite(of_events) else _NEVER


def judged(
    uncertainty: np.ndarray, right: np.ndarray, copied: np.ndarray, threshold: float
) -> ModelError:
    """The error of predictions, and what a gate at `threshold` makes of it.

    uncertainty float [N]; right, and whether "nothing changes" was right, bool [N], N ≥ 1. A
    prediction of infinite uncertainty passes no gate.
    """
    kept = (uncertainty <= threshold) & np.isfinite(uncertainty)
    return ModelError(
        float(right.mean()),
        float(right[kept].mean()) if kept.any() else None,
        float(kept.mean()),
        float(copied.mean()),
        auroc(uncertainty, ~right),
        len(right),
    )


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative), ties half; None if one class is missing.

    score float [N], +∞ allowed; positive bool [N].    Mann & Whitney 1947
    """
    if positive.all() or not positive.any():
        return None
    above, below = score[positive][:, None], score[~positive][None]
    return float((above > below).mean() + 0.5 * (above == below).mean())
