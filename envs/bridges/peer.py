"""Worlds of packages that need a Python of their own: each runs in a process of that Python.

    gymnasium.make("envs:Peer-v0", python="…/browsergym/bin/python", package="browser_gym",
                   options={"id": "browsergym/miniwob.click-test"})

`envs/bridges/peers/` holds the programs that run in these processes; their docstrings say which
options a package takes.

Covers: the process runs in a place (`envs/sandbox/confine.py`). It has no network and no
environment. It sees its own Python, the files that its options name, and those in `readable`. Does
not cover: a package that cannot run in a place and needs `confined=False`. Such a process runs
beside us, with our files, and with an environment that holds no secret; each step then records tier
none.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.bridges.stranger import Stranger
from envs.contract import Outcome
from envs.sandbox import confine
from envs.sandbox.hosted import TIER, others_may_read
from envs.sandbox.limits import PEER
from envs.sandbox.line import Line
from experience.errors import EnvironmentFailure, IsolationError, MissingPartError

_SCRIPTS = Path(__file__).parent / "peers"
PACKAGES = tuple(sorted(p.stem.removeprefix("in_") for p in _SCRIPTS.glob("in_*.py")))


@dataclass(frozen=True)
class _Run:
    """The command that starts a peer in a place, and what it may read.

    `handed` are files whose content is given to the place by a descriptor.
    """

    command: tuple[str, ...]
    readable: tuple[Path, ...]
    handed: tuple[Path, ...] = ()


def _placed(python: Path, script: Path) -> _Run:
    """How `python` runs `script` in a place.

    A place has another user, who may not be allowed to read `python` (below /root, for example).
    Then the system's Python of the same version runs with the packages of `python`. Raises
    IsolationError if there is no such Python.
    """
    with python.open("rb") as file:
        first = file.readline(256)
    if first.startswith(b"#!"):  # a script that starts a Python: its text is handed in
        interpreter = first[2:].decode("utf-8", "replace").split()
        return _Run((*interpreter, str(python), "-u", str(script)), (script.parent,), (python,))
    home = python.parent.parent
    real = Path(os.path.realpath(python))
    if others_may_read(real) and others_may_read(home):
        return _Run((str(python), "-u", str(script)), (home, real.parent.parent, script.parent))
    site = next(iter(sorted(home.glob("lib/python3*/site-packages"))), None)
    system = Path("/usr/bin") / (site.parent.name if site else "")
    if site is None or not system.is_file() or not others_may_read(site):
        raise IsolationError(
            f"{python} lies where no other user may read, and strangers' code does not run as root",
            "make its environment where others may read, or start as a user; with confined=False "
            "it runs beside us, and the record says tier none",
        )
    program = (
        "import runpy, site, sys; site.addsitedir(sys.argv.pop(1)); sys.argv.pop(0); "
        "sys.path.insert(0, __import__('os').path.dirname(sys.argv[0])); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return _Run(
        (str(system), "-S", "-u", "-c", program, str(site), str(script)), (site, script.parent)
    )


def _outside() -> dict[str, str]:
    """The environment of a peer that runs beside us: the usual paths, no variable of ours."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


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
        self._seconds = seconds
        self._python = Path(python).absolute()
        self._script = _SCRIPTS / f"in_{package}.py"
        self._shown = [Path(path).absolute() for path in readable]
        self._copies = ExitStack()
        self._confined = confined
        self._options = self._with_paths(options) if confined else options
        self.sandbox_tier = TIER if confined else "none"
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _with_paths(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with absolute paths. Copies what the place's user may not read."""
        shown = dict(options)
        for name, value in options.items():
            if isinstance(value, str) and value and (path := Path(value).absolute()).exists():
                if not others_may_read(path):
                    folder = Path(self._copies.enter_context(confine.folder("xp-peer-")))
                    copied = folder / path.name
                    shutil.copytree(path, copied) if path.is_dir() else shutil.copy(path, copied)
                    confine.give(folder)
                    path = copied
                shown[name] = str(path)
                # The pages of MiniWoB load scripts that lie beside them.
                self._shown.append(path.parent if name == "miniwob" else path)
        return shown

    def _start(self) -> None:
        self.close()
        self._errors = tempfile.TemporaryFile()  # read when the process dies
        ours, theirs = socket.socketpair()
        self._line = Line(ours)
        pipes: dict[str, Any] = {
            "stdin": theirs.fileno(),
            "stdout": theirs.fileno(),
            "stderr": self._errors,
        }
        with theirs:
            self._process = self._begun(pipes)
        self.instructions = self._ask("begin", options=self._options)["instructions"]  # type: ignore[misc]

    def _begun(self, pipes: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        if not self._confined:
            return subprocess.Popen(
                [str(self._python), "-u", str(self._script)],
                **pipes,
                env=_outside(),
                start_new_session=True,
                cwd="/",
            )
        run = _placed(self._python, self._script)
        with ExitStack() as files:
            opened = {path: files.enter_context(path.open("rb")) for path in run.handed}
            handed = {str(path): file.fileno() for path, file in opened.items()}
            return confine.start(
                run.command,
                pipes=pipes,
                readable=[*run.readable, *self._shown],
                data=handed,
                limits=PEER,
                environment={"PYTHONDONTWRITEBYTECODE": "1"},
            )

    def _ask(self, do: str, **more: Any) -> dict[str, Any]:
        """The peer's answer.

        Raises ValueError if the peer refused, EnvironmentFailure if it failed, died, hangs or
        answers something other than a line of JSON.
        """
        question = json.dumps({"do": do, **more}).encode() + b"\n"
        try:
            answer = json.loads(self._line.ask(question, self._seconds))
        except (OSError, EOFError) as error:
            raise self._lost(str(error)) from None
        except (ValueError, RecursionError):
            raise self._lost("answered what is no line of JSON") from None
        if not isinstance(answer, dict):
            raise self._lost("answered what is no record")
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "failed" in answer:
            raise EnvironmentFailure(f"{self._name}: {answer['failed']}")
        return answer

    def _lost(self, how: str) -> EnvironmentFailure:
        """Ends the peer; returns the error to raise, with the last line of its stderr."""
        end = self._errors.seek(0, 2)
        self._errors.seek(max(end - (1 << 16), 0))
        last = self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()[-1:]
        self.close()
        return EnvironmentFailure(f"{self._name} {how}: {' '.join(last)[:300]}")

    def begin(self) -> None:
        if self._process is None or self._process.poll() is not None:
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
            process = self._process
            self._process = None
            self._line.close()
            try:
                process.wait(5)  # its stdin has ended: it cleans up and exits by itself
            except subprocess.TimeoutExpired:
                if self._confined:
                    process.kill()
                else:
                    os.killpg(process.pid, 9)
                process.wait()
            self._errors.close()
