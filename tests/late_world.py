"""A world that pays late: what an order earned is known when the next one, or a later one, is made."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contract import LATE, Outcome, World
from experience.signal import SignalKind

GOOD = {"sun": "hats", "rain": "umbrellas"}


class Shop(World[tuple[str, int]]):
    """Each day one order for the weather that is shown; it is paid `delay` orders later, by its
    tag, also in a later episode. `how` names what a broken world does."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "earned": SignalKind("euro", "env_state"),
        "ordered": SignalKind("count", "env_state"),
        "invalid_action": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"earned": 1.0}
    instructions = "order hats for sun, umbrellas for rain"
    actions = ("hats", "umbrellas")
    max_turns = 2

    def __init__(self, delay: int = 1, how: str = "", **limits: int) -> None:
        super().__init__(**limits)
        self.delay, self.how = delay, how
        self.orders = 0
        self.owed: dict[int, float] = {}

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        return str(rng.choice(list(GOOD))), int(rng.integers(50))

    def begin(self) -> None:
        self.weather, self.shop = self.task

    def observe(self) -> str:
        return self.weather

    def act(self, action: str) -> Outcome:
        if action not in self.actions:
            raise ValueError("order hats or umbrellas")
        self.orders += 1
        self.tag = f"order {self.orders}"
        self.owed[self.orders] = float(action == GOOD[self.weather])
        paid = self.orders - self.delay
        if paid in self.owed:
            self.late = {f"order {paid}": {"earned": (self.owed.pop(paid), f"bill {paid}")}}
        if self.how == "unknown tag":
            self.late = {"order 77": {"earned": 1.0}}
        if self.how == "unknown signal":
            self.late = {self.tag: {"won": 1.0}}
        if self.how == "no mapping":
            self.late = [1.0]  # type: ignore[assignment]
        if self.how == "by number":
            self.late = {self._turn - 1: {"earned": 5.0}}
        if self.how == "a number too far":
            self.late = {9: {"earned": 5.0}}
        return {"earned": LATE, "ordered": 1.0}, False

    def oracle_action(self) -> str:
        return GOOD[self.weather]

    def random_action(self, rng: Any) -> str:
        return self.actions[int(rng.integers(2))]


gymnasium.register(id="Shop-v0", entry_point=Shop)
