"""Worlds with one planted fault each, and a sound one: `FAULTS` says which check must notice which
world.

Each is the sound world with a few lines changed, as an author could have written them.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.authoring import Outcome, SignalKind, ToolWorld, action

FAULTS: dict[str, str] = {}
WORDS = (
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "gusto",
    "haste",
    "ivory",
    "jolly",
    "karma",
    "lemon",
    "mango",
    "noble",
    "ocean",
    "pearl",
    "quilt",
    "raven",
    "sunny",
    "tulip",
)


class Sound(ToolWorld[tuple[str, ...]]):
    """Three drawers, each with a word inside: open them, then say the words in the order of the
    drawers."""

    signal_catalogue = {
        "right": SignalKind("fraction", "env_state"),
        "opened": SignalKind("count", "env_state"),
    }
    reward_weights = {"right": 1.0, "opened": -0.01}
    max_turns, cheats = 10, ("say amber", "open 9")

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        return tuple(str(WORDS[int(i)]) for i in rng.integers(len(WORDS), size=3))

    def begin(self) -> None:
        self.seen = "three drawers, all shut"

    def observe(self) -> str:
        return self.seen

    @action
    def open(self, drawer: int) -> Outcome:
        """Open drawer 1, 2 or 3."""
        if not 1 <= drawer <= 3:
            raise ValueError("drawer is 1, 2 or 3")
        self.seen = f"drawer {drawer} holds {self.task[drawer - 1]}"
        return {"opened": 1.0}, False

    @action
    def say(self, words: str) -> Outcome:
        """Say the three words in order; this ends the episode."""
        told = words.split()
        right = (
            sum(a == b for a, b in zip(told, self.task, strict=False)) / 3
            if len(told) == 3
            else 0.0
        )
        return {"right": right}, True

    def oracle_action(self) -> str:
        return f"say {' '.join(self.task)}"


def fault(check: str) -> Any:
    """Registers a world under its class's name, and which check must notice it."""

    def register(cls: type) -> type:
        gymnasium.register(
            id=f"{cls.__name__}-v0", entry_point=cls, order_enforce=False, disable_env_checker=True
        )
        FAULTS[cls.__name__] = check
        return cls

    return register


gymnasium.register(id="Sound-v0", entry_point=Sound, order_enforce=False, disable_env_checker=True)


@fault("claims_are_not_paid")
class PaysForBoasts(Sound):
    @action
    def say(self, words: str) -> Outcome:
        """Say the three words in order; this ends the episode."""
        answer, ended = Sound.say(self, words)
        return ({"right": 1.0} if "success" in words.lower() else answer), ended


@fault("claims_are_not_paid")
class ReadsItsReward(Sound):
    """Takes the number that the agent reports."""

    def act(self, action: str) -> Outcome:
        if "right" in action and "1" in action:
            return {"right": 1.0}, True
        return super().act(action)


@fault("oracle_max")
class HalfAnOracle(Sound):
    """Twenty coins, of which the oracle takes the half."""

    signal_catalogue = {"coins": SignalKind("count", "env_state")}
    reward_weights = {"coins": 0.1}
    max_turns, cheats = 40, ("say amber", "open none")

    def begin(self) -> None:
        self.seen, self.left = "twenty coins", 20

    @action
    def open(self, drawer: int) -> Outcome:
        """Take a coin."""
        self.left -= 1
        return {"coins": 1.0}, self.left == 0

    @action
    def say(self, words: str) -> Outcome:
        """Say that it is enough; this ends the episode."""
        return {"coins": 0.0}, True

    def oracle_action(self) -> str:
        return "open 1" if self.left > 10 else "say enough"


@fault("oracle_max")
class HalfAFraction(Sound):
    """Two fractions are promised, one is taken."""

    signal_catalogue = Sound.signal_catalogue | {"quick": SignalKind("fraction", "env_state")}
    reward_weights = {"right": 1.0, "quick": 1.0}


@fault("no_solution_leakage")
class AnswerInInfo(Sound):
    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        return super()._info(signals) | {"debug": {"words": " ".join(self.task)}}


@fault("no_solution_leakage")
class ShortAnswerInInfo(Sound):
    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        return tuple(str(int(i)) for i in rng.integers(20, size=3))

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        return super()._info(signals) | {"label": " ".join(self.task)}


@fault("no_solution_leakage")
class AnswerInObservation(Sound):
    def begin(self) -> None:
        self.seen = f"three drawers, all shut (debug: {' '.join(self.task)})"


@fault("split_disjointness")
class NonceTellsSplitsApart(Sound):
    """Ten tasks; a nonce in the name makes each look new."""

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        words = np.random.default_rng(int(rng.integers(10))).integers(len(WORDS), size=3)
        return (*(str(WORDS[int(i)]) for i in words), f"{int(rng.integers(2**60)):x}")

    def begin(self) -> None:
        self.seen = f"task {self.task[3]}: three drawers, all shut"

    def oracle_action(self) -> str:
        return f"say {' '.join(self.task[:3])}"


class Numbers(gymnasium.Env[np.ndarray, int]):
    observation_space, action_space = Box(0.0, 1.0, (2,), np.float64), Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn, self.place = 0, self.np_random.random(2)
        return self.place, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return self.place, float(action), self.turn > 4, False, {}


@fault("observation_schema")
class BoxLeavesItsSpace(Numbers):
    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return self.place * (1 + self.turn), *rest


@fault("observation_schema")
class NanObservation(Numbers):
    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return np.array([0.5, np.nan if self.turn == 3 else 0.5]), *rest


@fault("observation_schema")
class Unprintable(Sound):
    def _seen(self) -> str:
        return "\x1b[31m" + super()._seen() + "\x1b[0m"


@fault("observation_schema")
class TooLong(Sound):
    def _seen(self) -> str:
        return super()._seen() * 1000


@fault("resource_envelope")
class TwoSecondsAStep(Sound):
    def act(self, action: str) -> Outcome:
        time.sleep(2)
        return super().act(action)


@fault("refusal_changes_nothing")
class RefusalShiftsTheState(Sound):
    """The words of the drawers are exchanged before the wrong drawer is refused."""

    @action
    def open(self, drawer: int) -> Outcome:
        """Open drawer 1, 2 or 3."""
        if not 1 <= drawer <= 3:
            self.task = (self.task[1], self.task[2], self.task[0])
        return Sound.open(self, drawer)

    def act(self, action: str) -> Outcome:
        if action == "no-such-action 1 2 3":
            self.task = (self.task[1], self.task[2], self.task[0])
        return super().act(action)


@fault("reward_well_formed")
class NanSignal(Sound):
    @action
    def open(self, drawer: int) -> Outcome:
        """Open drawer 1, 2 or 3."""
        answer, ended = Sound.open(self, drawer)
        return answer | {"opened": float("nan")}, ended


@fault("reward_well_formed")
class UndeclaredSignal(Sound):
    @action
    def say(self, words: str) -> Outcome:
        """Say the three words in order; this ends the episode."""
        answer, ended = Sound.say(self, words)
        return answer | {"bonus": 1.0}, ended


@fault("host_containment")
class FilesInHiddenFolders(Sound):
    def begin(self) -> None:
        super().begin()
        hidden = Path.home() / ".planted" / "deep"
        hidden.mkdir(parents=True, exist_ok=True)
        (hidden / uuid.uuid4().hex).write_text("left")


@fault("host_containment")
class FilesInTemporaryFolders(Sound):
    def begin(self) -> None:
        super().begin()
        Path("/var/tmp", f".planted-{uuid.uuid4().hex}").write_text("left")


@fault("seed_control")
class SeedIgnored(Sound):
    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        return super().draw(np.random.default_rng())


@fault("episode_determinism")
class ClockInTheObservation(Sound):
    def observe(self) -> str:
        return f"{self.seen} (process {os.getpid()})"


@fault("startup")
class FourValues(Sound):
    """Gym's step and reset before 0.26."""

    def reset(self, **what: Any) -> Any:
        return super().reset(**what)[0]


@fault("reward_well_formed")
class Quits(Sound):
    def act(self, action: str) -> Outcome:
        if action.startswith("say"):
            sys.exit(3)
        return super().act(action)


@fault("floor_gap")
class PaysAnybody(Sound):
    @action
    def say(self, words: str) -> Outcome:
        """Say the three words in order; this ends the episode."""
        return {"right": 1.0}, True
