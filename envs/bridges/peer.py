"""Worlds of packages that need a Python of their own: each runs in a process of that Python.

    gymnasium.make("envs:Peer-v0", python="…/browsergym/bin/python", package="browser_gym",
                   options={"id": "browsergym/miniwob.click-test"})

`envs/bridges/peers/` holds the programs that run in these processes; their docstrings say which
options a package takes. `peer_process` says what confines them. With `confined=False` a process
runs beside us, and each step records tier none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from envs.bridges.peer_process import Launch, PeerProcess
from envs.bridges.stranger import Stranger
from envs.contract import Outcome
from envs.sandbox import confine
from envs.sandbox.hosted import TIER, others_may_read
from experience.errors import MissingPartError

_SCRIPTS = Path(__file__).parent / "peers"
PACKAGES = tuple(sorted(p.stem.removeprefix("in_") for p in _SCRIPTS.glob("in_*.py")))


class Peer(Stranger):
    """A world that a package runs in its own Python; its task is one of `tasks` seeds.

    `seconds` limits one answer. If an option names a file or folder that exists, the place may
    read it.
    """

    def __init__(
        self,
        python: str,
        package: str,
        options: dict[str, Any],
        max_turns: int = 20,
        tasks: int = 1000,
        seconds: float = 120.0,
        confined: bool = True,
        readable: Sequence[str] = (),
    ) -> None:
        if package not in PACKAGES:
            raise ValueError(f"package {package!r}: one of {', '.join(PACKAGES)}")
        super().__init__(f"{package} {json.dumps(options, sort_keys=True)}", tasks)
        if not Path(python).exists():
            raise MissingPartError(
                f"no Python at {python}: No such file or directory",
                "give the interpreter of the package's own environment; "
                "./xp setup peers makes them",
            )
        self.max_turns = max_turns
        self.sandbox_tier = TIER if confined else "none"
        self._seconds = seconds
        self._copies = ExitStack()
        shown = [Path(path).absolute() for path in readable]
        self._options = options
        if confined:
            self._options, named = self._with_paths(options)
            shown += named
        script = _SCRIPTS / f"in_{package}.py"
        self._launch = Launch(Path(python).absolute(), script, confined, tuple(shown))
        self._process: PeerProcess | None = None
        self._start()

    def _with_paths(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
        """(the options with absolute paths, what the place must be shown of these).

        Copies what the place's user may not read.
        """
        changed = dict(options)
        shown: list[Path] = []
        for name, value in options.items():
            if not isinstance(value, str) or not value or not Path(value).exists():
                continue
            path = Path(value).absolute()
            if not others_may_read(path):
                path = self._copied(path)
            changed[name] = str(path)
            # The pages of MiniWoB load scripts that lie beside them.
            shown.append(path.parent if name == "miniwob" else path)
        return changed, shown

    def _copied(self, path: Path) -> Path:
        """A copy that belongs to the place's user; it goes when this world goes."""
        folder = Path(self._copies.enter_context(confine.folder("xp-peer-")))
        copy = folder / path.name
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copy(path, copy)
        confine.give(folder)
        return copy

    def _start(self) -> None:
        self.close()
        self._process = PeerProcess(self._name, self._launch, self._seconds)
        answer = self._process.ask("begin", options=self._options)
        self.instructions = answer["instructions"]  # type: ignore[misc]

    def _ask(self, do: str, **more: Any) -> dict[str, Any]:
        assert self._process is not None
        return self._process.ask(do, **more)

    def begin(self) -> None:
        # A peer that died in the last episode costs that episode only.
        if self._process is None or not self._process.alive:
            self._start()
        self._seen_text = self._ask("reset", seed=self.task)["seen"]

    def observe(self) -> str:
        return str(self._seen_text)

    def act(self, action: str) -> Outcome:
        answer = self._ask("step", action=action)
        self._seen_text = answer["seen"]
        self.cut_off = answer["truncated"]
        return {"env_reward": answer["reward"]}, bool(answer["ended"])

    def random_action(self, rng: np.random.Generator) -> str:
        return str(self._ask("random", seed=int(rng.integers(2**31)))["action"])

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
