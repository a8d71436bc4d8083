"""text/duel: a PettingZoo game for two, played as text against random moves or the agent itself.

The game runs in a place, each episode in a child process of its own. Only the number of a legal
move reaches the game.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from envs.refused import Refused
from envs.sandbox.hosted import TIER, Hosted, Session
from experience.errors import EnvironmentFailure
from experience.signal import SignalKind


@lru_cache(maxsize=8)
def judges(game: str) -> Hosted:
    """The process that has `game` loaded, from which all its episodes are forked."""
    return Hosted(Path(__file__).parent / "guests/petting_zoo.py", ["pettingzoo"], {"game": game})


@dataclass(frozen=True)
class Turn:
    """The state of the game before a move.

    `rows` is the board: +1 for the player to move, -1 for the other, 0 for empty; None after the
    end.
    """

    over: bool
    players: tuple[str, ...]
    player: str
    rewards: dict[str, float]
    rows: list[list[int]] | None
    legal: tuple[int, ...]

    @classmethod
    def read(cls, answer: Any) -> Turn:
        """The turn in an answer of the game. Raises EnvironmentFailure if it holds none."""
        try:
            rows = answer["rows"]
            return cls(
                over=bool(answer["over"]),
                players=tuple(map(str, answer["players"])),
                player=str(answer["player"]),
                rewards={str(p): float(r) for p, r in answer["rewards"].items()},
                rows=None if rows is None else [_cells(row) for row in rows],
                legal=tuple(map(int, answer["legal"])),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as wrong:
            raise EnvironmentFailure(f"the game answered no turn: {str(answer)[:80]}") from wrong


def _cells(row: Any) -> list[int]:
    """A row of the board. Raises KeyError for any value but 1, -1 and 0."""
    return [{1: 1, -1: -1, 0: 0}[value] for value in row]


def _row_as_text(row: list[int]) -> str:
    return " ".join({1: "x", -1: "o", 0: "."}[value] for value in row)


def _board_in_words(rows: list[list[int]], legal: tuple[int, ...]) -> list[str]:
    """The board, after a line that says how to read it; free cells show the number of their move,
    where a move is a free cell."""
    cells = [value for row in rows for value in row]
    whose = "x is yours, o is the other player's"
    if tuple(number for number, value in enumerate(cells) if value == 0) != legal:
        return [f"The board ({whose}, . is empty):", *map(_row_as_text, rows)]
    shown = [{1: "x", -1: "o"}.get(value, str(n)) for n, value in enumerate(cells)]
    width = len(rows[0])
    lines = [" ".join(shown[at : at + width]) for at in range(0, len(shown), width)]
    return [f"The board ({whose}, a number is a free cell):", *lines]


class Duel(World[int]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    instructions: ClassVar[str] = "Reply with the number of one legal move"
    briefing: ClassVar[str] = "Play a board game for two players and win it."
    reply: ClassVar[str] = "Reply with a number and nothing else:"
    forms: ClassVar[dict[str, str]] = {"MOVE": "the number of a move that is allowed now."}
    meanings: ClassVar[dict[str, str]] = {
        "outcome": "times the outcome for you: 1 if you win, 0 for a draw, -1 if you lose"
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "outcome": SignalKind("fraction", "env_state"),
        "player": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"outcome": 1.0, INVALID: -0.1}
    max_turns = 60
    sandbox_tier = TIER

    def __init__(self, game: str = "classic.tictactoe_v3", opponent: str = "random") -> None:
        super().__init__()
        self.game = game
        self._alone = opponent != "self"
        judges(game).begin()
        self._game: Session | None = None

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**30))

    def signature(self, task: int) -> str:
        return f"{self.game} {task}"

    def begin(self) -> None:
        self._leave()
        self._game = judges(self.game).open()
        self._now = Turn.read(self._game.ask("begin", seed=self.task, alone=self._alone))

    def observe(self) -> str:
        if self._now.rows is None:
            return "the game is over"
        board = "\n".join(_row_as_text(row) for row in self._now.rows)
        legal = " ".join(map(str, self._now.legal))
        return f"{self._now.player}, you are x\n{board}\nlegal: {legal}"

    def describe(self) -> str:
        if self._now.rows is None:
            return f"The game {self.game} is over."
        board = _board_in_words(self._now.rows, self._now.legal)
        return "\n".join(
            [
                f"The game is {self.game}. You are {self._now.player}, and it is your turn.",
                *board,
                f"Moves that are allowed now: {', '.join(map(str, self._now.legal))}.",
            ]
        )

    def example(self) -> str:
        return str(min(self._now.legal, default=""))

    def act(self, action: str) -> Outcome:
        legal = self._now.legal
        if not action.isdigit() or int(action) not in legal:
            raise Refused(
                "choose a legal move: " + " ".join(map(str, legal)),
                f"The answer must be one of these numbers: {', '.join(map(str, legal))}.",
            )
        assert self._game is not None
        mover = self._now.player  # noted before the move, after which the other is to act
        self._now = Turn.read(self._game.ask("move", number=int(action)))
        signals: dict[str, Any] = {"player": float(self._now.players.index(mover))}
        if self._now.over:
            signals["outcome"] = self._now.rewards.get(mover)
        return signals, self._now.over

    def oracle_action(self) -> str:
        raise NotImplementedError("the games come without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        legal = self._now.legal
        return str(legal[int(rng.integers(len(legal)))])

    def close(self) -> None:
        self._leave()
        super().close()

    def _leave(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None
