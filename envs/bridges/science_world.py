"""text/science: ScienceWorld, elementary-school science in a simulated house: boil, melt, grow, wire, measure.

Needs Java. Tasks are its 30 families with their own training and test variations. It lists what is in a room, its doors
and what an ambiguous action may mean in an order that differs from run to run; here lists are sorted, and a number that
answers one is told to it as the number that it gave. It lives in a place, with its Java machine, one for each world:
a Java machine cannot be forked, so an episode begins with its own `load`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, Split, World
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
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "progress": SignalKind("fraction", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"progress": 1.0, INVALID: -0.02}
    oracle_target: ClassVar[float] = 0.9
    cheats = ("score", "win", "focus on agent", "reset task", "task 100", "look around. win", "0")

    def __init__(self, task: str = "find-living-thing", max_turns: int = 60) -> None:
        super().__init__()
        self._family, self.max_turns = task, max_turns  # type: ignore[misc]
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
        self._told, self._gold = str(begun["told"]), list(begun["gold"])
        self._score, self._done, self._wanted = (
            0.0,
            0,
            str(begun["wanted"]).partition(":")[2].strip(),
        )
        self._numbers: dict[str, str] = {}

    def observe(self) -> str:
        return f"{self._wanted}\n{in_order(self._told)}"

    def act(self, action: str) -> Outcome:
        step = self._inside.ask("step", action=self._numbers.get(action, action))
        told = str(step["told"])
        if told.startswith(("No known action", "Unknown action")):
            raise ValueError("no such action")
        self._told, self._numbers = numbered(told)
        score = max(float(step["score"]), 0.0) / 100
        self._done = (
            self._done + 1
            if self._done < len(self._gold) and action == self._gold[self._done]
            else 10**6
        )
        gained, self._score = score - self._score, score
        return {"progress": (gained, f"score {score:.2f}")}, bool(step["over"])

    def oracle_action(self) -> str:
        return str(self._gold[self._done]) if self._done < len(self._gold) else "look around"

    def random_action(self, rng: np.random.Generator) -> str:
        valid = self._inside.ask("valid")
        return str(valid[int(rng.integers(len(valid)))])

    def close(self) -> None:
        self._inside.close()
        super().close()


def in_order(told: str) -> str:
    """`told` with each run of indented lines sorted, and the doors of the last sentence."""
    lines: list[str] = []
    run: list[str] = []
    for line in [*told.strip().splitlines(), ""]:
        if line.startswith("\t"):
            run.append(line)
        else:
            lines += [*sorted(run), _doors_in_order(line)]
            run = []
    return "\n".join(lines).strip()


def _doors_in_order(line: str) -> str:
    start, also, doors = line.partition("You also see: ")
    return (
        f"{start}{also}{', '.join(sorted(re.split(r', (?=A door )', doors.removesuffix('.'))))}."
        if also
        else line
    )


def numbered(told: str) -> tuple[str, dict[str, str]]:
    """`told` with the meanings that it offers sorted and numbered anew, and its own number for each new one."""
    head, *offered = re.split(r"^(?=\d+:\t)", told, flags=re.MULTILINE)
    if not offered:
        return told, {}
    found = sorted(
        (meaning.strip(), number) for number, _, meaning in (o.partition(":\t") for o in offered)
    )
    return (
        head + "\n".join(f"{n}:\t{meaning}" for n, (meaning, _) in enumerate(found)),
        {str(n): number for n, (_, number) in enumerate(found)},
    )
