"""A world whose reward is code of its own: no weighted sum of its signals could say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contract import LATE, Outcome, World
from experience.signal import SignalKind


class Priced(World[int]):
    """Buys a share of something. Risk is paid for in its logarithm, and only at the end."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "wealth": SignalKind("euro", "env_state"),
        "drawdown": SignalKind("fraction", "env_state"),
        "invalid_action": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"wealth": 2.0, "drawdown": 1.0}
    instructions = "buy a share from 0 to 9"
    actions = tuple(f"buy {n}" for n in range(10))
    max_turns = 2
    cheats = ("wealth 100", "buy 99")

    def __init__(self, late: bool = False, **limits: int) -> None:
        super().__init__(**limits)
        self.late_wealth = late

    @staticmethod
    def reward_function(
        signals: Mapping[str, float | None],
        weights: Mapping[str, float],
        context: Mapping[str, Any],
    ) -> float | None:
        # what is not known is unknown, never 0
        if "wealth" not in signals:
            return 0.0
        wealth = signals["wealth"]
        if wealth is None:
            return None
        earned = weights["wealth"] * math.log(1 + wealth)
        bonus = 0.5 if context.get("ending") == "truncated" and context.get("turn") == 1 else 0.0
        return earned - weights["drawdown"] * max(signals["drawdown"] or 0.0, 0.2) + bonus

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1000))

    def begin(self) -> None:
        self.best = self.task % 7 + 1

    def observe(self) -> str:
        return f"case {self.task}: at most {self.best}"

    def act(self, action: str) -> Outcome:
        if action not in self.actions:
            raise ValueError("buy 0 to buy 9")
        share = int(action.split()[1])
        wealth = float(share if share <= self.best else 0)
        if not self.late_wealth:
            return {"wealth": wealth, "drawdown": share / 10}, False
        self.late = {self._turn - 2: {"wealth": 3.0}} if self._turn > 1 else {}
        return {"wealth": LATE, "drawdown": share / 10}, False

    def oracle_action(self) -> str:
        return f"buy {self.best}"

    def random_action(self, rng: Any) -> str:
        return self.actions[int(rng.integers(10))]


gymnasium.register(id="Priced-v0", entry_point=Priced)
gymnasium.register(id="PricedByFunction-v0", entry_point=lambda **given: Priced(**given))
