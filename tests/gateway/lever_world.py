"""A small world with a place for programs: a file `lever` that is to be `up`.

It stands for any world that offers `run_program`. Registered as tests.gateway.lever_world:Lever-v0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.code_execution import workspace
from envs.sandbox import confine


class Lever(ToolWorld[int]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {"up": SignalKind("fraction", "verifier")}
    reward_weights: ClassVar[dict[str, float]] = {"up": 1.0}
    sandbox_tier = "namespaces"

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1000))

    def begin(self) -> None:
        self.is_up = False

    def observe(self) -> str:
        return f"lever {self.task}"

    @action
    def hand_in(self) -> Outcome:
        """Hand in."""
        return {"up": float(self.is_up)}, True

    def oracle_action(self) -> str:
        return "hand_in"

    def run_program(self, program: Mapping[str, Any]) -> Any:
        with confine.folder("xp-lever-") as name:
            folder = Path(name)
            (folder / "lever").write_text("down")
            confine.give(folder)
            workspace.run(folder, program, f"task {self.task}")
            self.is_up = workspace.read_left(folder, "lever") == "up"
        return self.step("hand_in")


gymnasium.register("Lever-v0", entry_point=Lever)
