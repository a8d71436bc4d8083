"""text/household: TextWorldExpress, text games of a house (find the coin, cook, sort, calculate), with gold paths.

Needs Java, which runs in a place with it, one for each world. Its own folds are the splits: train, and test for
held-out tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, Split, World
from envs.sandbox.hosted import TIER, with_java
from experience.signal import SignalKind

GAMES = {
    "coin": "numLocations=7,includeDoors=1,numDistractorItems=4",
    "twc": "numLocations=2,numItemsToPutAway=1,includeDoors=0,limitInventorySize=0",
    "arithmetic": "",
    "sorting": "",
    "mapreader": "numLocations=8,maxDistanceApart=3,includeDoors=0,maxDistractorItemsPerLocation=0",
}
_GUEST = Path(__file__).parent / "guests/text_world.py"


class Household(World[tuple[str, int]]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    sandbox_tier = TIER
    instructions: ClassVar[str] = (
        "Reply with one action, e.g. `look around`, `take coin` or `open door to east`"
    )
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
        for _ in range(
            20
        ):  # its gold path is a new random one each time, and one in fifty outlasts the episode
            begun = self._inside.ask("begin", seed=seed, fold=fold)
            self._gold = list(begun["gold"])
            if len(self._gold) <= self.max_turns:
                break
        self._told, self._wanted = str(begun["told"]), str(begun["wanted"])
        self._score, self._valid, self._done = 0.0, list(begun["valid"]), 0

    def observe(self) -> str:
        return f"{self._wanted}\n{self._told.strip()}".strip()

    def act(self, action: str) -> Outcome:
        if action not in self._valid:
            raise ValueError("not an action here, e.g. " + ", ".join(sorted(self._valid)[:6]))
        step = self._inside.ask("step", action=action)
        gained, self._score = float(step["score"]) - self._score, float(step["score"])
        self._told, self._valid = str(step["told"]), list(step["valid"])
        self._done = (
            self._done + 1
            if self._done < len(self._gold) and action == self._gold[self._done]
            else 10**6
        )
        won, lost = bool(step["won"]), bool(step["lost"])
        return {
            "progress": (gained, f"score {self._score}"),
            "won": float(won),
            "lost": float(lost),
        }, won or lost

    def oracle_action(self) -> str:
        """The game's own gold path, from its start."""
        return str(self._gold[self._done]) if self._done < len(self._gold) else "look around"

    def random_action(self, rng: np.random.Generator) -> str:
        valid = sorted(self._valid)
        return str(valid[int(rng.integers(len(valid)))])

    def close(self) -> None:
        self._inside.close()
        super().close()
