"""text/games: TextArena's games; opponents are random, or, with `opponent: self`, the agent itself.

In self-play a reward belongs to the player who just acted. The observation and the signals say who
that is. The game runs in a place, each episode in a child process of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from envs.refused import Refused
from envs.sandbox.hosted import TIER, Hosted, Session
from experience.errors import EnvironmentFailure
from experience.signal import SignalKind


@lru_cache(maxsize=1)
def judges() -> Hosted:
    """The process that has TextArena loaded, from which all episodes are forked."""
    return Hosted(Path(__file__).parent / "guests/text_arena.py", ["textarena"])


class Arena(World[int]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    instructions: ClassVar[str] = (
        "Reply as the game says; a move stands in square brackets, e.g. [4]"
    )
    briefing: ClassVar[str] = "Play a text game and win it. Its rules are told in the game itself."
    reply: ClassVar[str] = "Reply as the game's rules say, with your move and nothing else:"
    forms: ClassVar[dict[str, str]] = {"[MOVE]": "your move, in square brackets, e.g. [4]."}
    meanings: ClassVar[dict[str, str]] = {
        "outcome": "times the outcome for you: 1 if you win, 0 for a draw, -1 if you lose"
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "outcome": SignalKind("fraction", "env_state"),
        "player": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"outcome": 1.0, INVALID: -0.1}
    max_turns = 40
    sandbox_tier = TIER
    oracle_target: ClassVar[float] = 0.9

    def __init__(
        self, game: str = "TicTacToe-v0", players: int = 2, opponent: str = "random"
    ) -> None:
        super().__init__()
        judges().begin()
        self.game = game
        self._players = players
        self._alone = opponent != "self"
        self._game: Session | None = None

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**30))

    def signature(self, task: int) -> str:
        return f"{self.game} {task}"

    def begin(self) -> None:
        self._leave()
        self._game = judges().open()
        self._take(
            "begin", game=self.game, players=self._players, alone=self._alone, seed=self.task
        )

    def _take(self, call: str, **arguments: Any) -> None:
        """Calls the game and keeps the turn that it answers.

        Raises EnvironmentFailure if the answer is no turn.
        """
        assert self._game is not None
        answer = self._game.ask(call, **arguments)
        try:
            self._player = int(answer["player"])
            self._seen_text = str(answer["seen"])
            self._over = bool(answer["over"])
            outcomes = answer["outcomes"].items()
            self._outcomes = {int(player): float(value) for player, value in outcomes}
        except (TypeError, KeyError, ValueError, AttributeError) as wrong:
            raise EnvironmentFailure(f"{self.game} answered no turn: {str(answer)[:80]}") from wrong

    def observe(self) -> str:
        # The end of the text: a game repeats its rules first, and adds what has happened last.
        return f"player {self._player}\n{self._seen_text[-3000:]}"

    def describe(self) -> str:
        return f"You are player {self._player}. The game so far:\n{self._seen_text[-3000:].strip()}"

    def act(self, action: str) -> Outcome:
        if not re.search(r"\[.+\]", action):
            raise Refused(
                "a move stands in square brackets",
                "The move must stand in square brackets, as in [4].",
            )
        mover = self._player  # noted before the move, after which another player is to act
        self._take("move", action=action)
        if not self._over:
            return {"player": float(mover)}, False
        return {"outcome": self._outcomes.get(mover), "player": float(mover)}, True

    def oracle_action(self) -> str:
        raise NotImplementedError("the games come without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        assert self._game is not None
        return str(self._game.ask("some_move", seed=int(rng.integers(2**31))))

    def close(self) -> None:
        self._leave()
        super().close()

    def _leave(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None
