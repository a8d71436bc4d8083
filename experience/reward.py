"""Rewards: versioned functions of signals, computed when steps are read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from experience.errors import ConfigError
from experience.signal import Signal
from experience.text.near import did_you_mean
from experience.text.strict_json import dumps


def weighted_sum(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Σ_k w_k φ_k over the signals that a step reported; None if a weighted signal is unknown.

    A signal that the step did not report adds nothing. A signal that it reported as None makes the
    sum unknown.
    """
    total = 0.0
    for name, weight in weights.items():
        if name in values:
            value = values[name]
            if value is None:
                return None
            total += weight * value
    return total


def check_weights(where: str, weights: Mapping[str, float], known: Collection[str]) -> None:
    """Raises ConfigError unless every weight is a finite number, and its signal is `known`.

    No step reports a misspelt signal: its weight would silently add nothing.
    """
    for name, weight in weights.items():
        if name not in known:
            there_are = f"there are: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(
                f"{where}: no signal is called {name!r}",
                f"{did_you_mean(name, known, 0.5)} {there_are}".lstrip(),
            )
        if not math.isfinite(weight):
            raise ConfigError(
                f"{where}: the weight of {name!r} is {weight}", "a weight is a finite number"
            )


@dataclass(frozen=True)
class RewardModel:
    """r = Σ_k w_k φ_k, with one row of weights for each environment id.

    `version` names exactly these weights. The reward of an environment without a row is unknown.
    An empty row gives a reward of 0.
    """

    weights: Mapping[str, Mapping[str, float]]

    @cached_property
    def version(self) -> str:
        # Sorted: the same weights in another order are the same reward, under the same name.
        canonical = dumps({k: dict(sorted(v.items())) for k, v in sorted(self.weights.items())})
        return "linear-" + hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def check(self, known: Collection[str]) -> None:
        """Raises ConfigError if a weight is not finite, or its signal is not `known`."""
        for env_id, row in self.weights.items():
            check_weights(f"rewards of {env_id}", row, known)

    def reward(self, env_id: str, signals: Iterable[Signal]) -> float | None:
        """The reward of a step in `env_id` that reported `signals`; None is unknown."""
        return self.of_values(env_id, {s.name: s.value for s in signals})

    def of_values(self, env_id: str, values: Mapping[str, float | None]) -> float | None:
        """The reward of values by signal name, as a world model predicts them."""
        row = self.weights.get(env_id)
        return None if row is None else weighted_sum(values, row)
