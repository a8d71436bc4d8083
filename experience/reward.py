"""Rewards: versioned functions of signals, computed when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from experience.signal import Signal


def weighted_sum(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Σ_k w_k φ_k over the signals that this step reported; None if one that counts is unknown.

    A signal that the step did not report adds nothing; a signal reported as None makes the sum unknown.
    """
    total = 0.0
    for name, weight in weights.items():
        if name in values:
            value = values[name]
            if value is None:
                return None
            total += weight * value
    return total


@dataclass(frozen=True)
class RewardModel:
    """r = Σ_k w_k φ_k with one row of weights per environment id. `version` names exactly these weights."""

    weights: Mapping[str, Mapping[str, float]]

    @cached_property
    def version(self) -> str:
        canonical = json.dumps({k: dict(sorted(v.items())) for k, v in sorted(self.weights.items())})
        return "linear-" + hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def reward(self, env_id: str, signals: Iterable[Signal]) -> float | None:
        return self.of_values(env_id, {s.name: s.value for s in signals})

    def of_values(self, env_id: str, values: Mapping[str, float | None]) -> float | None:
        """Of signals by name, as a world model predicts them."""
        return weighted_sum(values, self.weights.get(env_id, {}))
