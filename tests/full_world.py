"""A world that uses what the contract offers beside tasks and actions; `mark` is a folder in which
it notes what was done with it."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.contract import Outcome, World
from experience.signal import SignalKind

# One red point.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0"
    "000003010100c9fe92ef0000000049454e44ae426082"
)


class Full(World[int]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "right": SignalKind("fraction", "env_state"),
        "invalid_action": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"right": 1.0}
    max_turns = 50
    splits = ("train", "heldout", "hard")

    def __init__(
        self,
        mark: str = "",
        sizes: list[int] | None = None,
        deadline_seconds: float | None = None,
        episode_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.mark, self.sizes = mark, sizes or [1, 2, 3]
        self.deadline_seconds, self.episode_seconds = deadline_seconds, episode_seconds
        # a connection that only the thread that made it may use
        self.base = sqlite3.connect(":memory:")
        self.thread = threading.get_ident()

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(100))

    def tasks(self, split: str, rng: np.random.Generator) -> int:
        if split == "hard":
            return 100 + int(rng.integers(100))
        return super().tasks(split, rng)

    def begin(self) -> None:
        self.base.execute("select 1")

    def observe(self) -> str:
        return f"task {self.task} of {self.sizes}"

    def images(self) -> dict[str, bytes]:
        return {"screenshot": PNG}

    def act(self, action: str) -> Outcome:
        self.base.execute("select 1")
        assert threading.get_ident() == self.thread
        if action.startswith("sleep"):
            time.sleep(float(action.split()[1]))
        return {"right": 1.0}, action == "end"

    def random_action(self, rng: Any) -> str:
        return "sleep 0.3" if self.deadline_seconds or self.episode_seconds else "end"

    def close(self) -> None:
        self.base.close()
        if self.mark:
            done = "closed by its own thread" if threading.get_ident() == self.thread else "wrong"
            (Path(self.mark) / "closed").write_text(done)


gymnasium.register(id="Full-v0", entry_point=Full)
