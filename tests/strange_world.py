"""Worlds with one bad habit each: of three turns, in the second of which the habit shows."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import gymnasium
from gymnasium.spaces import Text


class Strange(gymnasium.Env[str, str]):
    """how: the habit, which tasks with an odd seed have."""

    observation_space, action_space = Text(4000), Text(200)
    actions = ("left", "right")

    def __init__(self, how: str = "none", mark: str = "") -> None:
        self._how, self._mark = how, mark
        self._owner = threading.get_ident()
        if how == "thread":
            threading.Thread(target=time.sleep, args=(1000,)).start()

    def random_action(self, rng: Any) -> str:
        return str(rng.choice(self.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._turn, self._is_bad = 0, bool(seed and seed % 2)
        return "start", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        if threading.get_ident() != self._owner:
            raise RuntimeError("used by another thread than the one that made it")
        if self._turn == 2 and self._is_bad:
            self._misbehave()
        info = {"split": "test"} if self._how == "split" else {}
        return f"turn {self._turn}", 1.0, self._turn == 3, False, info

    def close(self) -> None:
        if self._how == "close":
            time.sleep(1000)

    def _misbehave(self) -> None:
        if self._how == "hang":
            time.sleep(1000)
        elif self._how == "exit":
            sys.exit(3)
        elif self._how == "exit at once":
            os._exit(3)
        elif self._how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self._how == "descriptors":
            os.closerange(0, 1000)
        elif self._how == "folder":
            os.chdir(tempfile.mkdtemp())
        elif self._how == "seed":
            random.seed(0)
        elif self._how == "print":
            print("a line of the world")
            os.write(1, b"x" * 100_000)
        elif self._how == "clock":
            time.time = lambda: 0.0
            time.time_ns = lambda: 0
        elif self._how == "main thread":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # which Python allows nowhere else
        elif self._how == "child":
            self._leave(subprocess.Popen(["sleep", "1000"]).pid)
        elif self._how == "daemon":
            self._become_a_daemon()

    def _become_a_daemon(self) -> None:
        """A process that has left its parent, its session and its group."""
        heard, told = os.pipe()
        if os.fork():
            with contextlib.suppress(ChildProcessError):
                os.wait()
            os.read(heard, 1)  # the world's turn lasts until the daemon has left its mark
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        self._leave(os.getpid())
        os.write(told, b".")
        os.execvp("sleep", ["sleep", "1000"])

    def _leave(self, process: int) -> None:
        with open(self._mark, "a") as file:
            file.write(f"{process}\n")


gymnasium.register(
    id="Strange-v0", entry_point=Strange, disable_env_checker=True, order_enforce=False
)
