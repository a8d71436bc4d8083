"""Worlds of packages that cannot live in our Python: each in a process of its own, with the package's own interpreter.

    gymnasium.make("envs:Peer-v0", python="…/browsergym/bin/python", package="browser_gym",
                   options={"id": "browsergym/miniwob.click-test"})

`envs/bridges/peers/` holds what runs over there; its docstrings say which options a package takes. Such a process is
not caged: a stranger's package does what its author wrote, as it would without us.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from envs.bridges.stranger import Stranger
from envs.contract import Answer
from experience.errors import EnvironmentFailure, MissingPartError

_SCRIPTS = Path(__file__).parent / "peers"
PACKAGES = tuple(sorted(p.stem.removeprefix("in_") for p in _SCRIPTS.glob("in_*.py")))


class Peer(Stranger):
    """`seconds` is how long an answer may take. `tasks` is how many seeds the package is asked for."""

    def __init__(self, python: str, package: str, options: dict[str, Any], max_turns: int = 20, tasks: int = 1000,
                 seconds: float = 120.0) -> None:
        if package not in PACKAGES:
            raise ValueError(f"package {package!r}: one of {', '.join(PACKAGES)}")
        super().__init__(f"{package} {json.dumps(options, sort_keys=True)}", tasks)
        self.max_turns, self._seconds, self._options = max_turns, seconds, options
        self._command = [python, "-u", str(_SCRIPTS / f"in_{package}.py")]
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self.close()
        self._errors = tempfile.TemporaryFile()  # read when the process dies
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=self._errors, start_new_session=True)
        except OSError as missing:
            raise MissingPartError(f"no Python at {self._command[0]}: {missing.strerror}",
                                   "give the interpreter of the package's own environment; ./xp setup peers makes them"
                                   ) from missing
        self.instructions = self._ask("begin", options=self._options)["instructions"]  # type: ignore[misc]

    def _ask(self, do: str, **more: Any) -> dict[str, Any]:
        """The peer's answer. Raises ValueError for what it refused, EnvironmentFailure if it failed, died or hangs."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._process.stdout, selectors.EVENT_READ)
                if not waiting.select(self._seconds):
                    raise self._lost(f"did not answer within {self._seconds:g} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._lost("died")
        told: dict[str, Any] = json.loads(line)
        if "refused" in told:
            raise ValueError(told["refused"])
        if "failed" in told:
            raise EnvironmentFailure(f"{self._name}: {told['failed']}")
        return told

    def _lost(self, how: str) -> EnvironmentFailure:
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        self.close()
        return EnvironmentFailure(f"{self._name} {how}: {' '.join(last)[:300]}")

    def begin(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._told = self._ask("reset", seed=self.task)["seen"]

    def observe(self) -> str:
        return str(self._told)

    def act(self, action: str) -> Answer:
        told = self._ask("step", action=action)
        self._told, self.cut_off = told["seen"], told["truncated"]
        return {"env_reward": told["reward"]}, bool(told["ended"])

    def random_action(self, rng: np.random.Generator) -> str:
        return str(self._ask("random", seed=int(rng.integers(2**31)))["action"])

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # what it never read is still to be flushed, and it is gone
                    pipe.close()
            try:
                process.wait(5)  # its stdin has ended: it puts its own things away
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
            self._errors.close()
