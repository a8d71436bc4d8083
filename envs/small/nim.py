"""small/nim: two players take stones in turn, and the one who takes the last stone wins.

A world of two agents. A player who leaves a multiple of `most + 1` stones wins, whatever the
other does, so that the best move is known.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID
from envs.several import Moves, SharedOutcome, SharedWorld
from experience.signal import SignalKind


class Nim(SharedWorld[int]):
    """A task is the number of stones that a game begins with.

    most: how many stones a move may take. stones: the most that a game begins with.
    """

    agents: ClassVar[tuple[str, ...]] = ("first", "second")
    instructions: ClassVar[str] = "Take 1, 2 or 3 stones; who takes the last one wins"
    briefing: ClassVar[str] = (
        "Two players take stones from one heap in turn. Who takes the last stone wins."
    )
    forms: ClassVar[dict[str, str]] = {"NUMBER": "takes so many stones."}
    meanings: ClassVar[dict[str, str]] = {
        "won": "times the outcome for you: 1 if you win, -1 if you lose"
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "won": SignalKind("1", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"won": 1.0, INVALID: -0.2}
    cheats = ("0", "-3", "21", "1.5")
    oracle_target = 0.6  # from a multiple of 4, the oracle can only wait for a mistake
    max_turns = 60

    def __init__(self, most: int = 3, stones: int = 40, **others: Any) -> None:
        super().__init__(**others)
        if not 1 <= most < stones:
            raise ValueError(f"most = {most} and stones = {stones}: 1 <= most < stones")
        self.most, self.stones = most, stones
        self.actions = tuple(map(str, range(1, most + 1)))
        if most != 3:
            self.instructions = f"Take 1 to {most} stones; who takes the last one wins"  # type: ignore[misc]

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.most + 1, self.stones + 1))

    def begin(self) -> None:
        self.left, self.mover = self.task, 0

    def to_act(self) -> tuple[str, ...]:
        return (self.agents[self.mover],)

    def observe_as(self, agent: str) -> str:
        return f"{self.left} stones"

    def describe_as(self, agent: str) -> str:
        whose = "It is your turn." if agent in self.to_act() else "The other player is to move."
        return f"There are {self.left} stones on the heap. {whose}"

    def read(self, agent: str, action: str) -> int:
        if action not in self.actions or int(action) > self.left:
            raise ValueError(f"take 1 to {min(self.most, self.left)} stones: reply with a number")
        return int(action)

    def play(self, moves: Moves) -> SharedOutcome:
        (taken,) = moves.values()
        winner, loser = self.agents[self.mover], self.agents[1 - self.mover]
        self.left -= taken
        self.mover = 1 - self.mover
        if self.left:
            return {}, False
        return {winner: {"won": 1.0}, loser: {"won": -1.0}}, True

    def random_action_as(self, agent: str, rng: np.random.Generator) -> str:
        return str(int(rng.integers(1, min(self.most, self.left) + 1)))

    def oracle_action_as(self, agent: str) -> str:
        return str(self.left % (self.most + 1) or 1)
