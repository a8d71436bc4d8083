"""Judges from packages of others, which read an agent's text: one child process an episode.

    judges = Hosted(Path("guests/reasoning.py"), ["reasoning_gym"])
    judges.warm("entry", dataset="chain_sum", index=3)  # warm process: only our own words
    with judges.open() as episode:
        episode.ask("score", text=written)              # the episode's own child

Covers: the warm process (`judge_process`) is confined: no network, read-only files. Each child of
it can neither fork, signal, open a socket, nor write or create a file. A child has limits on memory
and CPU time, and is dead when its episode is closed; its changes of the judge's classes, modules
and random numbers are gone then too. A child that hangs, dies or answers nonsense is an
EnvironmentFailure, never a score. If no place can be built, the world is refused (IsolationError);
there is no weaker one.

Does not cover: a judge that gives a wrong score because of what it reads (see
`guests/reasoning.py` for a judge that runs it as Python). Children of one warm process share its
memory pages and the machine's kernel.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.sandbox import seccomp
from envs.sandbox.judge_process import START_SECONDS, JudgeProcess
from envs.sandbox.line import MOST_BYTES, Line, value_of
from experience.errors import EnvironmentFailure, IsolationError, MissingPartError

TIER = "namespaces"
"""The sandbox tier that a world with a hosted judge records."""


@dataclass(frozen=True)
class Limits:
    """What one episode's child may use.

    `answer_seconds` limits one answer. `memory_bytes` is added to the memory of the packages.
    `filtered` is off in tests only: as a control, in which an attack must get through.
    """

    answer_seconds: float = 20.0
    cpu_seconds: int = 120
    memory_bytes: int = 512 << 20
    filtered: bool = True


class Hosted:
    """A judge (the class Judge of the file `guest`) that needs `packages`.

    Its process starts when it is first needed. `forks=False` is for a judge that cannot be forked
    because it runs a Java machine: each episode then has a process of its own, without the
    child's filter, because the judge must start programs. `readable` names further files that
    the process may read. Safe to use from many threads.
    """

    def __init__(
        self,
        guest: Path,
        packages: Sequence[str],
        options: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        forks: bool = True,
        readable: Sequence[Path] = (),
    ) -> None:
        self._guest = guest
        self._packages = tuple(packages)
        self._options = dict(options or {})
        self._readable = tuple(readable)
        self._limits = limits or Limits()
        self._forks = forks
        # Reentrant: the garbage collector may end a session while this thread opens another one.
        self._lock = threading.RLock()
        self._process: JudgeProcess | None = None
        self._spare: Session | None = None

    def warm(self, call: str, **arguments: Any) -> Any:
        """The answer of the judge's method `call` in the warm process.

        All later episodes are forked from this process: never give it an agent's text. Raises
        ValueError if the judge refuses, EnvironmentFailure if it fails.
        """
        with self._lock:
            request = {"do": "warm", "call": call, "with": arguments}
            return self._warm_process().ask(request, START_SECONDS)

    def open(self) -> Session:
        """A new episode's child: the prepared one if there is one.

        Raises MissingPartError, IsolationError or EnvironmentFailure.
        """
        with self._lock:
            spare = self._spare
            self._spare = None
            if spare is not None and spare.is_child_of(self._process):
                return spare
        return self._opened()

    def prepare(self) -> None:
        """Forks the next episode's child now, while nobody waits for it."""
        with self._lock:
            if self._spare is None or not self._spare.is_child_of(self._process):
                self._spare = self._opened()

    def _opened(self) -> Session:
        ours, theirs = socket.socketpair()
        seconds = self._limits.answer_seconds
        try:
            if not self._forks:
                process = self._new_process()
                process.ask({"do": "fork"}, START_SECONDS, theirs.fileno())
                return Session(ours, None, 0, process, seconds)
            with self._lock:
                process = self._warm_process()
                pid = int(process.ask({"do": "fork"}, START_SECONDS, theirs.fileno()))
            return Session(ours, self, pid, process, seconds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def begin(self) -> None:
        """Starts the process now: a missing package is an error now, and no episode waits."""
        if self._forks:
            with self._lock:
                self._warm_process()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def end_child(self, process: JudgeProcess, pid: int) -> None:
        """Ends the child `pid` of `process`, if that process still serves."""
        with self._lock:
            if process is self._process:
                process.tell({"do": "end", "pid": pid})

    def how_child_ended(self, process: JudgeProcess, pid: int) -> str:
        """How a child ended, in words. The child is dead when this returns."""
        with self._lock:
            if process is not self._process or not process.alive:
                return "was ended with its place"
            return str(process.ask({"do": "how", "pid": pid}, START_SECONDS))

    def _warm_process(self) -> JudgeProcess:
        if self._process is not None and not self._process.alive:
            self._stop()
        if self._process is None:
            self._process = self._new_process()
        return self._process

    def _stop(self) -> None:
        self._spare = None
        if self._process is not None:
            self._process.close()
            self._process = None

    def _new_process(self) -> JudgeProcess:
        site = _site(self._packages)
        program = seccomp.filter_bytes("judge").hex() if self._limits.filtered else ""
        arguments = [
            json.dumps(self._options),
            program,
            str(self._limits.memory_bytes),
            str(self._limits.cpu_seconds),
            "forks" if self._forks else "stays",
        ]
        return JudgeProcess(self._guest, [site, *self._readable], arguments)


class Session:
    """One episode's child: methods of its judge are called in turn; `close` ends it.

    `host` is None if the child is not a fork but `process` itself.
    """

    def __init__(
        self,
        channel: socket.socket,
        host: Hosted | None,
        pid: int,
        process: JudgeProcess,
        seconds: float,
    ) -> None:
        self._line = Line(channel)
        self._host = host
        self._pid = pid
        self._process = process
        self._seconds = seconds
        self._ended = False

    def ask(self, call: str, **arguments: Any) -> Any:
        """The answer of the judge's method `call`: plain JSON.

        Raises ValueError if the judge refuses or the arguments are too long. Raises
        EnvironmentFailure if the child fails, hangs, dies or answers nonsense. If its line
        failed, the child is ended.
        """
        question = json.dumps({"call": call, "with": arguments}).encode() + b"\n"
        if len(question) > MOST_BYTES:
            raise ValueError(f"that is {len(question)} bytes long; at most {MOST_BYTES} are read")
        if self._ended:
            raise EnvironmentFailure("the judge of this episode has ended", "reset the world")
        try:
            return value_of(self._line.ask(question, self._seconds))
        except (OSError, EOFError) as error:
            self._ended = True
            self._line.close()
            how = self._how_it_ended()
            raise EnvironmentFailure(f"the judge of this episode {error}: it {how}") from error

    def _how_it_ended(self) -> str:
        """How the child ended, in words. The child is dead when this returns."""
        if self._host is not None:
            return self._host.how_child_ended(self._process, self._pid)
        self._process.close()
        return "was ended with its place"

    def is_child_of(self, process: JudgeProcess | None) -> bool:
        """Whether this is a child of `process`, and `process` is alive."""
        return not self._ended and process is self._process and process.alive

    @property
    def alive(self) -> bool:
        """Whether the child can be asked: false after it failed or was closed."""
        return not self._ended

    def close(self) -> None:
        """Ends the child."""
        if self._ended:
            return
        self._ended = True
        self._line.close()
        if self._host is None:
            self._process.close()
        else:
            self._host.end_child(self._process, self._pid)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A world may drop its session unclosed: without this, the child would live on.
        with suppress(Exception):
            self.close()


def with_java(guest: Path, package: str, **options: Any) -> Hosted:
    """A judge with a Java machine for each episode. Raises MissingPartError without Java."""
    if shutil.which("java") is None:
        raise MissingPartError(f"{package} needs Java", "./xp setup worlds")
    return Hosted(
        guest,
        [package],
        options,
        forks=False,
        limits=Limits(answer_seconds=120),
        readable=[*sorted(Path("/etc").glob("java-*")), Path(sys.prefix) / "share/py4j"],
    )


def _site(packages: Sequence[str]) -> Path:
    """The folder that all `packages` lie in.

    The packages are looked for, not imported: code of others does not run in this process.
    """
    found = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise MissingPartError(f"{package} is not installed", "./xp setup worlds")
        found.append(Path(next(iter(spec.submodule_search_locations))).parent)
    site = found[0]
    if any(other != site for other in found):
        raise MissingPartError(f"{', '.join(packages)} are not in one folder", "./xp setup worlds")
    if not others_may_read(site):
        raise IsolationError(
            f"{site} lies where no other user may read, and strangers' code does not run as root",
            "put the project where others may read it, or start as a user",
        )
    return site


def others_may_read(path: Path) -> bool:
    """Whether a place that this process starts can read `path`.

    A place that root starts runs as another user, so all users must be allowed to.
    """
    return os.geteuid() != 0 or all(
        p.stat().st_mode & 0o001 for p in (path, *path.parents) if p.is_dir()
    )
