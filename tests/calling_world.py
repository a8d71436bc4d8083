"""A shelf that is filled by calls, and a model that says what the test has written down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from actors.engines.engine import Situation, answer_fields
from envs.authoring import Outcome, ToolWorld, action
from experience.errors import EngineError
from experience.policy import Decision
from experience.signal import SignalKind


class Shelf(ToolWorld[int]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {"books": SignalKind("count", "env_state")}
    reward_weights: ClassVar[dict[str, float]] = {"books": 1.0}
    calls_a_turn = 2
    max_turns = 3

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1000))

    def begin(self) -> None:
        self.books: list[str] = []
        self.labels: dict[str, str] | None = None

    def observe(self) -> str:
        return f"shelf {self.task}: {', '.join(self.books) or 'empty'}"

    @action
    async def put(self, books: list[str], labels: dict[str, str] | None = None) -> Outcome:
        """Put books on the shelf."""
        await asyncio.sleep(0)
        if len(books) > 3:
            raise ValueError("three books at most")
        self.books += books
        self.labels = labels
        return {"books": float(len(books))}, False

    @action
    def close(self) -> Outcome:
        """Close the shelf."""
        return {"books": 0.0}, True

    def oracle_action(self) -> str:
        return "put a,b"


class Speaker:
    """Says the next of `says` whenever it is asked, and keeps what it was asked."""

    version = 0
    says: ClassVar[list[str]] = []
    asked: ClassVar[list[Situation]] = []

    def __init__(self, policy: Any, seed: int) -> None:
        pass

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        self.asked.extend(situations)
        return [
            Decision(**answer_fields(self.says.pop(0), s), policy_version=0, behaviour_id="speaker")
            for s in situations
        ]

    def load(self, weights: Any) -> None:
        raise EngineError("it learns nothing", "set policy.learns=false")

    def encode(self, situation: Situation, action: str) -> None:
        return None


gymnasium.register(id="Shelf-v0", entry_point=Shelf, disable_env_checker=True)
