"""Worlds with typed actions, as others serve them: a shelf of jars, of which one is right."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np

from envs.authoring import Outcome, Range, ToolWorld, action
from experience.signal import SignalKind


def _pixel() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + part(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + part(b"IEND", b"")
    )


class Jars(ToolWorld[int]):
    """The right jar is the task; what a scale cannot weigh stays unknown."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "right": SignalKind("fraction", "env_state"),
        "weight": SignalKind("fraction", "instrument"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"right": 1.0, "weight": 0.5}
    max_turns = 3
    instructions: ClassVar[str] = "Open the right jar of 50."

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(50))

    def begin(self) -> None:
        self.hint = "nothing is known"

    def observe(self) -> str:
        return f"jars 0 to 49; {self.hint}"

    def images(self) -> dict[str, bytes]:
        return {"shelf": _pixel()} if self.hint.startswith("look") else {}

    @action
    def open(self, jar: Annotated[int, Range(0, 49)]) -> Outcome:
        "Open a jar."
        self.hint = "too low" if jar < self.task else "too high"
        return {"right": float(jar == self.task)}, jar == self.task

    @action
    def look(self) -> Outcome:
        "Look at the shelf."
        self.hint = "look: red"
        return {"right": 0.0}, False

    @action
    def weigh(self) -> Outcome:
        "Weigh the shelf on a scale that is broken."
        return {"weight": None}, False

    @action
    def wait(self, seconds: float) -> Outcome:
        "Wait."
        time.sleep(seconds)
        return {"right": 0.0}, False

    @action
    def fall(self) -> Outcome:
        "Throw the shelf down."
        raise KeyError(f"jar {self.task}")

    def oracle_action(self) -> str:
        return f"open {self.task}"


class Plain(gymnasium.Env[str, str]):
    """A stranger's: it knows nothing of signals, splits and instructions, and always pays 2."""

    observation_space, action_space = gymnasium.spaces.Text(100), gymnasium.spaces.Text(100)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "left or right", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "done", 2.0, True, False, {}


gymnasium.register(id="Jars-v0", entry_point=Jars, disable_env_checker=True)
gymnasium.register(id="Plain-v0", entry_point=Plain, disable_env_checker=True)
