"""A world with two habits: it prints, in every way that there is, and it changes the directory.

It keeps its arguments.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from typing import Any

import gymnasium
from gymnasium.spaces import Text


def shout(where: str) -> None:
    print("LOUD print", where)
    sys.stdout.write("LOUD write, no line end")
    print("LOUD stdout of the interpreter", file=sys.__stdout__, flush=True)
    os.write(1, b"LOUD descriptor\n")
    ctypes.CDLL(None).puts(b"LOUD C library")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["echo", "LOUD program"], check=True)


shout("import")
os.chdir(tempfile.mkdtemp())


class Loud(gymnasium.Env[str, str]):
    observation_space, action_space = Text(4000), Text(100)
    actions = ("left", "right")

    def __init__(self, **arguments: Any) -> None:
        shout("init")
        self.made_with = repr(arguments)
        self.instructions = f"left or right; made with {self.made_with}"
        for value in arguments.values():
            if isinstance(value, list):
                value.clear()  # as a stranger's code may do

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        shout("reset")
        os.chdir(tempfile.mkdtemp())
        super().reset(seed=seed)
        self.n, self.paying = 0, self.actions[(seed or 0) % 2]
        return f"{self.paying} pays; {self.made_with}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        shout("step")
        self.n += 1
        return "next", float(action == self.paying), self.n > 1, False, {}

    def random_action(self, rng: Any) -> str:
        return self.actions[int(rng.integers(2))]

    def expert_action(self) -> str:
        return self.paying

    oracle_action = expert_action


gymnasium.register(id="Loud-v0", entry_point=Loud)
