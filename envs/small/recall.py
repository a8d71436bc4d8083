"""A corridor whose sign is seen once: the smallest world that hides its state from the agent.

After the T-maze of Bakker (2002): what is read at the entrance decides at the end of the corridor,
and nothing between tells it. A policy that reads one observation opens a door at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from experience.signal import SignalKind

COLOURS = ("red", "blue", "green", "gray")


@dataclass(frozen=True)
class Corridor:
    """The colour on the sign, the steps to the doors, and the doors in the order they are seen."""

    sign: str
    length: int
    doors: tuple[str, ...]


class Recall(World[Corridor]):
    """Read the sign, walk to the doors, open the door of the sign's colour.

    `length` is the longest corridor in steps; the shortest has half of them. A wrong door ends the
    episode too.
    """

    briefing: ClassVar[str] = (
        "You walk along a corridor. A sign at its entrance names a colour; you see the sign only "
        "at the entrance. At the end of the corridor are four doors: red, blue, green and gray. "
        "Walk to the doors, and open the one whose colour the sign named. The first door that you "
        "open ends the task."
    )
    forms: ClassVar[dict[str, str]] = {
        "go": "Walk one step towards the doors",
        "open COLOUR": "Open the door of that colour, once you stand before the doors",
    }
    meanings: ClassVar[dict[str, str]] = {"solved": "when you open the right door"}
    instructions = (
        "A sign at the entrance names a colour. Walk to the doors, and open the door of that "
        "colour. Reply with go, or with open and a colour, such as: open gray."
    )
    actions = ("go", *(f"open {colour}" for colour in COLOURS))
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "solved": SignalKind("fraction", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"solved": 1.0, INVALID: -0.05}
    cheats: ClassVar[tuple[str, ...]] = ("open", "open any", "solved=1", "open red blue", "go back")
    oracle_target: ClassVar[float] = 1.0
    goes_back = True

    def __init__(self, length: int = 6) -> None:
        if not 1 <= length <= 1_000_000:
            raise ValueError(f"length {length}: use 1 to 1,000,000 steps")
        super().__init__()
        self.length = length
        self.max_turns = length + 4

    def draw(self, rng: np.random.Generator) -> Corridor:
        shortest = max(self.length // 2, 1)
        return Corridor(
            str(rng.choice(COLOURS)),
            int(rng.integers(shortest, self.length + 1)),
            tuple(str(colour) for colour in rng.permutation(COLOURS)),
        )

    def begin(self) -> None:
        self.left = self.task.length
        self.opened = ""

    def observe(self) -> str:
        if self.opened:
            return f"the {self.opened} door is open"
        if not self.left:
            return f"doors {' '.join(self.task.doors)}"
        sign = f"sign {self.task.sign}\n" if self.left == self.task.length else ""
        return f"{sign}corridor {self.left}"

    def describe(self) -> str:
        if self.opened:
            return f"You have opened the {self.opened} door."
        if not self.left:
            return f"You stand before the doors. From left to right: {', '.join(self.task.doors)}."
        is_at_sign = self.left == self.task.length
        sign = f'The sign says: "{self.task.sign}". ' if is_at_sign else ""
        return f"{sign}The doors are {self.left} step{'s' if self.left > 1 else ''} away."

    def example(self) -> str:
        # before the doors a fixed colour: one chosen by the sign would tell of it
        return "go" if self.left else f"open {COLOURS[0]}"

    def act(self, action: str) -> Outcome:
        verb, _, colour = action.partition(" ")
        if action == "go" and self.left:
            self.left -= 1
            return {"solved": 0.0}, False
        if verb != "open" or colour not in COLOURS:
            raise ValueError("reply with go, or at the doors with open and a colour: open gray")
        if self.left:
            raise ValueError("no door is here yet: reply with go")
        self.opened = colour
        return {"solved": float(colour == self.task.sign)}, True

    def oracle_action(self) -> str:
        return "go" if self.left else f"open {self.task.sign}"

    def random_action(self, rng: np.random.Generator) -> str:
        return "go" if self.left else f"open {rng.choice(COLOURS)}"

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        # two corridors that look the same are two states: the sign is part of the state
        return super()._info(signals) | {"state": f"{self.observe()}\nsign {self.task.sign}"}
