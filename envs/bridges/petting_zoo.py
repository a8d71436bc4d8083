"""text/duel: a PettingZoo game for two, shown and played as text; the other side is random, or the agent itself."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Answer, World
from experience.errors import MissingPartError
from experience.signal import SignalKind


class Duel(World[int]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    instructions: ClassVar[str] = "Reply with the number of one legal move"
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "outcome": SignalKind("fraction", "env_state"), "player": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state")}
    reward_weights: ClassVar[dict[str, float]] = {"outcome": 1.0, INVALID: -0.1}
    max_turns = 60

    def __init__(self, game: str = "classic.tictactoe_v3", opponent: str = "random") -> None:
        super().__init__()
        try:
            self._inside: Any = importlib.import_module(f"pettingzoo.{game}").env()
        except ImportError as missing:
            raise MissingPartError(f"text/duel needs pettingzoo: {missing}", "./xp setup worlds") from missing
        self.game, self._alone = game, opponent != "self"

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**30))

    def signature(self, task: int) -> str:
        return f"{self.game} {task}"

    def begin(self) -> None:
        self._inside.reset(seed=self.task)
        self._rng = np.random.default_rng(self.task)
        self._me = self._inside.agents[int(self._rng.integers(2)) if self._alone else 0]
        self._until_our_turn()

    def _until_our_turn(self) -> None:
        while self._inside.agents and not any(self._inside.terminations.values()) and (
                self._alone and self._inside.agent_selection != self._me):
            legal = self._legal()
            self._inside.step(legal[int(self._rng.integers(len(legal)))])

    def _legal(self) -> list[int]:
        observation, *_ = self._inside.last()
        return [int(i) for i in np.flatnonzero(observation["action_mask"])]

    def observe(self) -> str:
        if not self._inside.agents:
            return "the game is over"
        observation, *_ = self._inside.last()
        planes = np.asarray(observation["observation"])
        rows = planes[..., 0].astype(int) - planes[..., 1].astype(int)
        board = "\n".join(" ".join({1: "x", -1: "o", 0: "."}[int(v)] for v in row) for row in np.atleast_2d(rows))
        return f"{self._inside.agent_selection}, you are x\n{board}\nlegal: {' '.join(map(str, self._legal()))}"

    def act(self, action: str) -> Answer:
        legal = self._legal()
        if not action.isdigit() or int(action) not in legal:
            raise ValueError("choose a legal move: " + " ".join(map(str, legal)))
        mover = self._inside.agent_selection
        self._inside.step(int(action))
        self._until_our_turn()
        over = not self._inside.agents or any(self._inside.terminations.values())
        signals: dict[str, Any] = {"player": float(self._inside.possible_agents.index(mover))}
        if over:
            signals["outcome"] = float(self._inside.rewards.get(mover, 0.0))
        return signals, over

    def oracle_action(self) -> str:
        raise NotImplementedError("the games come without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        legal = self._legal()
        return str(legal[int(rng.integers(len(legal)))])
