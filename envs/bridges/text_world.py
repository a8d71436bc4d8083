"""text/household: TextWorldExpress, text games of a house (coin, sorting, sums), with gold paths.

Needs Java, which runs with it in a place, one for each world. The splits are its own folds: train,
and test for held-out tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.bridges.gold_path import steps_done
from envs.contract import INVALID, Outcome, Split, World
from envs.refused import Refused
from envs.sandbox.hosted import TIER, with_java
from experience.signal import SignalKind

GAMES = {
    "coin": "numLocations=7,includeDoors=1,numDistractorItems=4",
    "twc": "numLocations=2,numItemsToPutAway=1,includeDoors=0,limitInventorySize=0",
    "arithmetic": "",
    "sorting": "",
    "mapreader": "numLocations=8,maxDistanceApart=3,includeDoors=0,maxDistractorItemsPerLocation=0",
}
_MOST_LISTED = 60
"""The most possible actions that are listed in plain words."""
_GUEST = Path(__file__).parent / "guests/text_world.py"


class Household(World[tuple[str, int]]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    sandbox_tier = TIER
    instructions: ClassVar[str] = (
        "Reply with one action, e.g. `look around`, `take coin` or `open door to east`"
    )
    briefing: ClassVar[str] = (
        "Play a text game in a house: do the task by short commands. Doors, cupboards and boxes "
        "may have to be opened first."
    )
    reply: ClassVar[str] = (
        "Reply with one command and nothing else, word for word as it is listed among the actions "
        "that are possible now."
    )
    meanings: ClassVar[dict[str, str]] = {
        "progress": "times what you gain of the task; all of it is 1",
        "lost": "if you lose the game by a wrong action",
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "progress": SignalKind("fraction", "env_state"),
        "won": SignalKind("count", "env_state"),
        "lost": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"progress": 1.0, "lost": -0.5, INVALID: -0.05}
    max_turns = 30
    cheats = (
        "inventory",
        "win",
        "score 100",
        "take coin take coin",
        "look around; take coin",
        "restart",
        "xyzzy",
    )
    oracle_target: ClassVar[float] = 0.9

    def __init__(self, game: str = "coin") -> None:
        super().__init__()
        if game not in GAMES:
            raise ValueError(f"game {game!r}: choose one of {', '.join(GAMES)}")
        self.game = game
        self._host = with_java(_GUEST, "textworld_express", game=game, parameters=GAMES[game])
        self._inside = self._host.open()

    def tasks(self, split: Split, rng: np.random.Generator) -> tuple[str, int]:
        return ("train" if split == "train" else "test"), int(rng.integers(2**30))

    def signature(self, task: tuple[str, int]) -> str:
        return f"{self.game} {task[0]} {task[1]}"

    def begin(self) -> None:
        fold, seed = self.task
        if not self._inside.alive:
            self._inside = self._host.open()
        # The gold path is a new random one each time, and one in fifty is longer than an episode.
        for _ in range(20):
            begun = self._inside.ask("begin", seed=seed, fold=fold)
            self._gold = list(begun["gold"])
            if len(self._gold) <= self.max_turns:
                break
        self._seen_text = str(begun["seen"])
        self._wanted = str(begun["wanted"])
        self._valid = list(begun["valid"])
        self._score = 0.0
        self._done = 0

    def observe(self) -> str:
        return f"{self._wanted}\n{self._seen_text.strip()}".strip()

    def describe(self) -> str:
        possible = ", ".join(sorted(self._valid)[:_MOST_LISTED])
        lines = [self._seen_text.strip(), f"Actions that are possible now: {possible}."]
        if self._wanted.strip():
            lines.insert(0, self._wanted.strip())
        return "\n".join(lines)

    def example(self) -> str:
        return "inventory"

    def act(self, action: str) -> Outcome:
        if action not in self._valid:
            raise Refused(
                "not an action here, e.g. " + ", ".join(sorted(self._valid)[:6]),
                "It must be one of the actions that are possible now, word for word.",
            )
        step = self._inside.ask("step", action=action)
        score = float(step["score"])
        gained = score - self._score
        self._score = score
        self._seen_text = str(step["seen"])
        self._valid = list(step["valid"])
        self._done = steps_done(self._gold, self._done, action)
        won = bool(step["won"])
        lost = bool(step["lost"])
        return {
            "progress": (gained, f"score {self._score}"),
            "won": float(won),
            "lost": float(lost),
        }, won or lost

    def oracle_action(self) -> str:
        """The next action of the game's own gold path."""
        return str(self._gold[self._done]) if self._done < len(self._gold) else "look around"

    def random_action(self, rng: np.random.Generator) -> str:
        valid = sorted(self._valid)
        return str(valid[int(rng.integers(len(valid)))])

    def close(self) -> None:
        self._inside.close()
        super().close()
