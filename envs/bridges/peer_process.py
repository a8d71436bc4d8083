"""The process of a package that needs a Python of its own, asked in lines of JSON.

Covers: the process runs in a place (`envs/sandbox/confine.py`). It has no network and no
environment. It sees its own Python, its program and the files that it is shown. Does not cover: a
package that cannot run in a place. Such a process runs beside us, with our files, and with an
environment that holds no secret.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.sandbox import confine
from envs.sandbox.hosted import others_may_read
from envs.sandbox.limits import PEER
from envs.sandbox.line import Line
from experience.errors import EnvironmentFailure, IsolationError

_END_SECONDS = 5
_MOST_ERROR_BYTES = 1 << 16
_OUTSIDE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
"""The environment of a peer that runs beside us: the usual paths, no variable of ours."""


@dataclass(frozen=True)
class _Run:
    """The command that starts a peer in a place, and what it may read.

    `handed` are files whose content is given to the place by a descriptor.
    """

    command: tuple[str, ...]
    readable: tuple[Path, ...]
    handed: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Launch:
    """How to start a peer: `python` runs `script`, in a place if `confined`.

    The place may also read the paths in `shown`.
    """

    python: Path
    script: Path
    confined: bool
    shown: tuple[Path, ...]

    def start(self, pipes: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """The running process. `pipes` are Popen's stdin, stdout and stderr."""
        return self._start_in_a_place(pipes) if self.confined else self._start_beside_us(pipes)

    def _start_beside_us(self, pipes: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        command = [str(self.python), "-u", str(self.script)]
        # A session of its own: its browser and other children are ended as one group.
        return subprocess.Popen(command, **pipes, env=_OUTSIDE, start_new_session=True, cwd="/")

    def _start_in_a_place(self, pipes: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        run = _placed(self.python, self.script)
        with ExitStack() as files:
            opened = {path: files.enter_context(path.open("rb")) for path in run.handed}
            handed = {str(path): file.fileno() for path, file in opened.items()}
            return confine.start(
                run.command,
                pipes=pipes,
                readable=[*run.readable, *self.shown],
                data=handed,
                limits=PEER,
                # The place's user cannot write beside the package's modules.
                environment={"PYTHONDONTWRITEBYTECODE": "1"},
            )


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
    # An environment's Python is a link: its library lies beside the file that it points to.
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


class PeerProcess:
    """A running peer. Once it has failed to answer it is ended, and `alive` is False.

    `name` stands in errors; `seconds` limits one answer.
    """

    def __init__(self, name: str, launch: Launch, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._confined = launch.confined
        # A file, not a pipe: nobody reads a pipe while the peer lives, and a full one blocks it.
        self._errors = tempfile.TemporaryFile()
        self._closed = False
        ours, theirs = socket.socketpair()
        self._line = Line(ours)
        # With our copy of its end closed, the peer's death ends the line.
        with theirs:
            pipes = {"stdin": theirs.fileno(), "stdout": theirs.fileno(), "stderr": self._errors}
            self._process = launch.start(pipes)

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """The peer's answer.

        Raises ValueError if the peer refused, EnvironmentFailure if it failed, died, hangs, answers
        something other than a line of JSON, or has been ended.
        """
        if self._closed:
            raise EnvironmentFailure(f"{self._name} has ended", "reset the world to start it again")
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
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(end - _MOST_ERROR_BYTES, 0))
        errors = self._errors.read(_MOST_ERROR_BYTES).decode("utf-8", "replace")
        last = errors.strip().splitlines()[-1:]
        self.close()
        return EnvironmentFailure(f"{self._name} {how}: {' '.join(last)[:300]}")

    def close(self) -> None:
        """Ends the process; does nothing if it has been ended."""
        if self._closed:
            return
        self._closed = True
        self._line.close()
        try:
            self._process.wait(_END_SECONDS)  # its stdin has ended: it cleans up and exits itself
        except subprocess.TimeoutExpired:
            if self._confined:
                self._process.kill()
            else:
                os.killpg(self._process.pid, 9)
            self._process.wait()
        self._errors.close()
