"""text/science: ScienceWorld, school science in a simulated house: boil, melt, grow, wire, measure.

Needs Java. Tasks are its 30 families with their own training and test variations. ScienceWorld
lists the things in a room, its doors and the meanings of an ambiguous action in an order that
differs from run to run. Here lists are sorted; if an action is the number of a meaning,
ScienceWorld gets its own number for that meaning. It runs in a place with its Java machine, one for
each world. A Java machine cannot be forked, so each episode begins with a `load` of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.bridges.gold_path import steps_done
from envs.contract import INVALID, Outcome, Split, World
from envs.refused import Refused
from envs.sandbox.hosted import TIER, with_java
from experience.signal import SignalKind

_GUEST = Path(__file__).parent / "guests/science_world.py"


class Science(World[tuple[str, int]]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    sandbox_tier = TIER
    instructions: ClassVar[str] = (
        "Reply with one action, e.g. `look around`, `go to kitchen` or `pick up thermometer`"
    )
    briefing: ClassVar[str] = (
        "Do a science task in a simulated house, by short commands in English. If a command could "
        "mean several things, you are asked; reply then with the number of what you mean."
    )
    reply: ClassVar[str] = (
        "Reply with one command and nothing else. THING is the name of a thing that is here, ROOM "
        "of a room. Commands that often help:"
    )
    forms: ClassVar[dict[str, str]] = {
        "look around": "list what is in this room, and its doors",
        "open door to ROOM": "open a door; also open THING, for a cupboard",
        "go to ROOM": "walk into a room that is next to this one",
        "pick up THING": "take it with you; inventory lists what you carry",
        "move THING to THING": "put one into or onto the other; pour THING into THING for liquids",
        "activate THING": "switch it on; use THING on THING applies one to the other",
        "focus on THING": "say that it is the one that the task asks for: a wrong one loses",
        "wait": "let time pass",
    }
    meanings: ClassVar[dict[str, str]] = {
        "progress": "times what you gain of the task; all of it is 1, and a lost task takes all "
        "gains back"
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "progress": SignalKind("fraction", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"progress": 1.0, INVALID: -0.02}
    oracle_target: ClassVar[float] = 0.9
    cheats = ("score", "win", "focus on agent", "reset task", "task 100", "look around. win", "0")

    def __init__(self, task: str = "find-living-thing", max_turns: int = 60) -> None:
        super().__init__()
        self._family = task
        self.max_turns = max_turns  # type: ignore[misc]
        self._host = with_java(_GUEST, "scienceworld")
        self._inside = self._host.open()
        families = self._inside.ask("families")
        if task not in families:
            self._inside.close()
            raise ValueError(f"task {task!r}: choose one of {', '.join(families)}")
        self._variations = self._inside.ask("variations", family=task)

    def tasks(self, split: Split, rng: np.random.Generator) -> tuple[str, int]:
        among = self._variations[split]
        return self._family, int(among[int(rng.integers(len(among)))])

    def signature(self, task: tuple[str, int]) -> str:
        return f"{task[0]} {task[1]}"

    def begin(self) -> None:
        if not self._inside.alive:
            self._inside = self._host.open()
        begun = self._inside.ask("begin", family=self.task[0], variation=self.task[1])
        self._seen_text = str(begun["seen"])
        self._gold = list(begun["gold"])
        self._wanted = str(begun["wanted"]).partition(":")[2].strip()
        self._score = 0.0
        self._done = 0
        self._numbers: dict[str, str] = {}

    def observe(self) -> str:
        return f"{self._wanted}\n{in_order(self._seen_text)}"

    def describe(self) -> str:
        return f"{self._wanted}\nWhat you see or were told last:\n{in_order(self._seen_text)}"

    def example(self) -> str:
        # While ScienceWorld asks what an ambiguous command means, it takes a number only.
        return "0" if self._numbers else "inventory"

    def act(self, action: str) -> Outcome:
        step = self._inside.ask("step", action=self._numbers.get(action, action))
        text = str(step["seen"])
        if text.startswith(("No known action", "Unknown action")):
            raise Refused(
                "no such action",
                "There is no such command, or one of its things is not here by that name.",
            )
        # Sorted before they are numbered: the same choice then has the same number in each run.
        self._seen_text, self._numbers = numbered(text)
        # A task that is lost for good scores -100. It counts as 0: what was gained is taken back.
        score = max(float(step["score"]), 0.0) / 100
        self._done = steps_done(self._gold, self._done, action)
        gained = score - self._score
        self._score = score
        return {"progress": (gained, f"score {score:.2f}")}, bool(step["over"])

    def oracle_action(self) -> str:
        return str(self._gold[self._done]) if self._done < len(self._gold) else "look around"

    def random_action(self, rng: np.random.Generator) -> str:
        valid = self._inside.ask("valid")
        return str(valid[int(rng.integers(len(valid)))])

    def close(self) -> None:
        self._inside.close()
        super().close()


def in_order(text: str) -> str:
    """`text` with each run of indented lines sorted, and the doors of the last sentence."""
    lines: list[str] = []
    run: list[str] = []
    for line in [*text.strip().splitlines(), ""]:
        if line.startswith("\t"):
            run.append(line)
        else:
            lines += [*sorted(run), _doors_in_order(line)]
            run = []
    return "\n".join(lines).strip()


def _doors_in_order(line: str) -> str:
    start, also, doors = line.partition("You also see: ")
    if not also:
        return line
    each = sorted(re.split(r", (?=A door )", doors.removesuffix(".")))
    return f"{start}{also}{', '.join(each)}."


def numbered(text: str) -> tuple[str, dict[str, str]]:
    """(`text` with its meanings sorted and numbered anew, {new number: ScienceWorld's number}).

    A text that offers no meanings is unchanged.
    """
    head, *offered = re.split(r"^(?=\d+:\t)", text, flags=re.MULTILINE)
    if not offered:
        return text, {}
    parts = [offer.partition(":\t") for offer in offered]
    meanings = sorted((meaning.strip(), number) for number, _, meaning in parts)
    lines = [f"{new}:\t{meaning}" for new, (meaning, _) in enumerate(meanings)]
    return head + "\n".join(lines), {str(new): old for new, (_, old) in enumerate(meanings)}
