"""The terse words of every bundled world, as hashes: small models and recorded figures rest on them.

python -m tests.golden.terse      # writes terse.json; only when a world's terse words shall change
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from experience.errors import MissingPartError

FILE = Path(__file__).parent / "terse.json"
LIVED = (("train", 0), ("train", 1), ("heldout", 2))
"""The split and seed of each episode."""
_MOST_STEPS = 12
_REFUSED_AT = 1
_NONSENSE = "nonsense 1"
_TIMED = ("Desktop-v0",)
"""Worlds whose programs have clocks of their own: two runs need not show the same."""

_SEVERAL = ("Nim-v0",)
"""Worlds that answer several agents, each in words of its own: see tests/test_several_agents.py."""
_WITHOUT_EXPERT = ("Household-v0",)
"""Worlds whose expert follows another path in each run."""
_SCRIPTS = {
    "Science-v0": (
        "look around",
        "look around",
        "inventory",
        "open door to hallway",
        "go to hallway",
        "wait",
    ),
}
"""Actions of worlds whose expert and random actions both differ from run to run."""


@dataclass
class Told:
    """What a world said and measured over some episodes, one entry a turn."""

    instructions: str = ""
    seen: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    endings: list[tuple[bool, bool]] = field(default_factory=list)

    @property
    def words(self) -> str:
        """A hash of all texts: instructions, observations, states and tasks."""
        texts = [self.instructions, *self.seen, *self.states, *self.tasks]
        return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()[:32]


def names() -> list[str]:
    """The bundled worlds that need nothing of the user's, and show the same in two runs."""
    import envs

    left_out = {*envs.STRANGERS, *_TIMED, *_SEVERAL}
    return [n for n in envs.WORLDS if n not in left_out]


def lived(name: str, arguments: Mapping[str, Any] | None = None) -> Told:
    """Episodes of the expert, with one refused action in each; without an expert, random ones."""
    world: Any = gymnasium.make(f"envs:{name}", **(arguments or {})).unwrapped
    told = Told(world.instructions)
    try:
        for split, seed in LIVED:
            if split in world.splits:
                _live(world, name, split, seed, told)
    finally:
        world.close()
    return told


def _live(world: Any, name: str, split: str, seed: int, told: Told) -> None:
    seen, info = world.reset(seed=seed, options={"split": split})
    _note(told, seen, info)
    rng = np.random.default_rng([seed, 1])
    for turn in range(_MOST_STEPS):
        action = _NONSENSE if turn == _REFUSED_AT else _script(world, name, turn, rng)
        seen, reward, terminated, truncated, info = world.step(action)
        _note(told, seen, info)
        told.rewards.append(float(reward))
        told.signals.append(json.dumps(info["signals"], default=str))
        told.endings.append((bool(terminated), bool(truncated)))
        if terminated or truncated:
            break


def _note(told: Told, seen: str, info: Mapping[str, Any]) -> None:
    told.seen.append(seen)
    told.states.append(info["state"])
    told.tasks.append(info["task_id"])


def _script(world: Any, name: str, turn: int, rng: np.random.Generator) -> str:
    if name in _SCRIPTS:
        return _SCRIPTS[name][turn % len(_SCRIPTS[name])]
    if name in _WITHOUT_EXPERT:
        return str(world.random_action(rng))
    try:
        return str(world.expert_action())
    except NotImplementedError:
        return str(world.random_action(rng))


def main() -> None:
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names():
        try:
            known[name] = lived(name).words
        except MissingPartError as missing:
            print(f"{name} keeps its hash: {missing}")
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
