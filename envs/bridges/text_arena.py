"""text/games: TextArena's games. The others act at random, or, with `opponent: self`, are the agent itself in turn.

In self-play a reward belongs to the player who just acted; who that is stands in the observation and in the signals.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Answer, World
from experience.errors import MissingPartError
from experience.signal import SignalKind


class Arena(World[int]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    instructions: ClassVar[str] = "Reply as the game says; a move stands in square brackets, e.g. [4]"
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "outcome": SignalKind("fraction", "env_state"), "player": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state")}
    reward_weights: ClassVar[dict[str, float]] = {"outcome": 1.0, INVALID: -0.1}
    max_turns = 40
    oracle_target: ClassVar[float] = 0.9

    def __init__(self, game: str = "TicTacToe-v0", players: int = 2, opponent: str = "random") -> None:
        super().__init__()
        try:
            import textarena
        except ImportError as missing:
            raise MissingPartError(f"text/games needs textarena: {missing}", "./xp setup worlds") from missing
        self._make = textarena.make
        self.game, self._players, self._alone = game, players, opponent != "self"

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**30))

    def signature(self, task: int) -> str:
        return f"{self.game} {task}"

    def begin(self) -> None:
        import random

        random.seed(self.task)
        self._rng = np.random.default_rng(self.task)
        self._inside: Any = self._make(self.game)  # anew: its wrappers remember the game before
        self._inside.reset(num_players=self._players, seed=self.task)
        self._over, self._outcomes = False, dict[int, float]()
        self._turn_of_the_agent()

    def _turn_of_the_agent(self) -> None:
        """Plays the others' moves until the agent is to act, or the game is over."""
        while not self._over:
            self._player, told = self._inside.get_observation()
            self._told = told if isinstance(told, str) else "\n".join(str(part[1]) for part in told)
            if self._player == 0 or not self._alone:
                return
            self._move(self._some_move(self._rng))

    def _move(self, action: str) -> None:
        over, _ = self._inside.step(action)
        if over:
            rewards, _ = self._inside.close()
            self._over, self._outcomes = True, dict(rewards or {})

    def _some_move(self, rng: np.random.Generator) -> str:
        offered = re.findall(r"\[\w+(?: \w+)*\]", self._told.rpartition("Available Moves")[2] or self._told)
        return str(offered[int(rng.integers(len(offered)))]) if offered else f"[{int(rng.integers(9))}]"

    def observe(self) -> str:
        return f"player {self._player}\n{self._told[-3000:]}"

    def act(self, action: str) -> Answer:
        if not re.search(r"\[.+\]", action):
            raise ValueError("a move stands in square brackets")
        mover = self._player
        self._move(action)
        self._turn_of_the_agent()
        if not self._over:
            return {"player": float(mover)}, False
        return {"outcome": float(self._outcomes.get(mover, 0)), "player": float(mover)}, True

    def oracle_action(self) -> str:
        raise NotImplementedError("the games come without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        return self._some_move(rng)
