"""Strangers' code that reads what an agent wrote: in a warmed process in a place, with a child of it for each episode.

    judges = Hosted(Path("guests/reasoning.py"), ["reasoning_gym"])
    judges.warm("entry", dataset="chain_sum", index=3)          # in the warm process: only what we say ourselves
    with judges.open() as episode:
        episode.ask("score", text=written)                      # in the episode's own child

The place (`confine`) has no network, no environment but `ENVIRONMENT`, no files but Python's, the system's and the
packages', to read only. The child moreover can neither fork, signal, open a socket, nor write or create a file, has
limits on memory and CPU time, and is dead when its episode is closed: what it did to its judge's classes, modules or
random numbers is gone with it. A child that hangs, dies or talks nonsense is an EnvironmentFailure, never a score.
Where no place can be built the world is refused (IsolationError); there is no weaker one.
Does not cover: a judge that can be talked into a wrong score by what it reads (see `guests/reasoning.py` for one that
runs it as Python); children of one place share its memory and its kernel, as all places do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.sandbox import confine, seccomp
from envs.sandbox.limits import JUDGE
from envs.sandbox.tiers import shared_python
from experience.errors import EnvironmentFailure, IsolationError, MissingPartError

ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""All that a judge finds in its environment. Its hashes are the same each time: so are its sets, and its worlds."""
TIER = "namespaces"
"""What a world records whose judges are hosted."""
MOST_BYTES = 1 << 20
START_SECONDS = 120.0
_HOST = Path(__file__).with_name("host.py")


@dataclass(frozen=True)
class Limits:
    """What one episode's child may use. `answer_seconds` is how long an answer may take; memory is beyond what the
    packages take. `filtered` is off in tests only: their control, which must let an attack through."""

    answer_seconds: float = 20.0
    cpu_seconds: int = 120
    memory_bytes: int = 512 << 20
    filtered: bool = True


class Hosted:
    """A judge (the class Judge of the file `guest`) that needs `packages`. Its place is built when first needed.

    `forks=False` is for a judge that cannot be forked, one with a Java machine: then each episode has a place of its
    own, without the child's filter, for there it must be able to start programs. `readable` is what else the place
    shows. Safe to use from many threads.
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
        self._guest, self._packages, self._options = guest, tuple(packages), dict(options or {})
        self._readable = tuple(readable)
        self._limits, self._forks = limits or Limits(), forks
        self._lock = (
            threading.RLock()
        )  # a session may be collected, and so end, while another is opened
        self._place: _Place | None = None
        self._spare: Session | None = None

    def warm(self, call: str, **arguments: Any) -> Any:
        """What the judge's method answers in the warm process, which all later episodes come from. Never give it
        anything that an agent wrote. Raises ValueError if the judge refuses, EnvironmentFailure if it fails."""
        with self._lock:
            return self._here().ask({"do": "warm", "call": call, "with": arguments}, START_SECONDS)

    def open(self) -> Session:
        """A new episode's child, the prepared one if there is one. Raises MissingPartError, IsolationError or
        EnvironmentFailure."""
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is not None and spare.in_place(self._place):
                return spare
        return self._opened()

    def prepare(self) -> None:
        """Forks the next episode's child now, while nobody waits: an answer then costs no fork."""
        with self._lock:
            if self._spare is None or not self._spare.in_place(self._place):
                self._spare = self._opened()

    def _opened(self) -> Session:
        ours, theirs = socket.socketpair()
        try:
            if not self._forks:
                place = self._built()
                place.ask({"do": "fork"}, START_SECONDS, theirs.fileno())
                return Session(ours, None, 0, place, self._limits.answer_seconds)
            with self._lock:
                place = self._here()
                pid = int(place.ask({"do": "fork"}, START_SECONDS, theirs.fileno()))
            return Session(ours, self, pid, place, self._limits.answer_seconds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def begin(self) -> None:
        """Builds the place now, so that what is missing is said now, and the first episode does not wait for it."""
        if self._forks:
            with self._lock:
                self._here()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _end(self, place: _Place, pid: int) -> None:
        with self._lock:
            if place is self._place:
                place.tell({"do": "end", "pid": pid})

    def _how(self, place: _Place, pid: int) -> str:
        """How a child ended, which is dead when this returns."""
        with self._lock:
            if place is not self._place or not place.alive:
                return "was ended with its place"
            return str(place.ask({"do": "how", "pid": pid}, START_SECONDS))

    def _here(self) -> _Place:
        if self._place is not None and not self._place.alive:
            self._stop()
        if self._place is None:
            self._place = self._built()
        return self._place

    def _stop(self) -> None:
        self._spare = None
        if self._place is not None:
            self._place.close()
            self._place = None

    def _built(self) -> _Place:
        site = _site(self._packages)
        program = seccomp.filter_bytes("judge").hex() if self._limits.filtered else ""
        words = [
            json.dumps(self._options),
            program,
            str(self._limits.memory_bytes),
            str(self._limits.cpu_seconds),
            "forks" if self._forks else "stays",
        ]
        return _Place(self._guest, [site, *self._readable], words)


class Session:
    """An episode's child: its methods are called one after another, and it is dead when this is closed."""

    def __init__(
        self, channel: socket.socket, host: Hosted | None, pid: int, place: _Place, seconds: float
    ) -> None:
        self._line, self._host, self._pid, self._place, self._seconds = (
            Line(channel),
            host,
            pid,
            place,
            seconds,
        )
        self._ended = False

    def ask(self, call: str, **arguments: Any) -> Any:
        """What the judge's method answers: plain JSON. Raises ValueError for what the judge refuses or what is too
        long, EnvironmentFailure for a child that fails, hangs, dies or answers nonsense; then it is ended."""
        asked = json.dumps({"call": call, "with": arguments}).encode() + b"\n"
        if len(asked) > MOST_BYTES:
            raise ValueError(f"that is {len(asked)} bytes long; at most {MOST_BYTES} are read")
        if self._ended:
            raise EnvironmentFailure("the judge of this episode has ended", "reset the world")
        try:
            return _value(self._line.ask(asked, self._seconds))
        except (OSError, EOFError) as error:
            self._ended = True
            self._line.close()
            how = (
                self._host._how(self._place, self._pid)
                if self._host
                else "was ended with its place"
            )
            self._place.close() if self._host is None else None
            raise EnvironmentFailure(f"the judge of this episode {error}: it {how}") from error

    def in_place(self, place: _Place | None) -> bool:
        """Whether it is a child of `place`, which lives."""
        return not self._ended and place is self._place and place.alive

    @property
    def alive(self) -> bool:
        """Whether it can be asked: not after it failed or was closed."""
        return not self._ended

    def close(self) -> None:
        """Ends the child."""
        if self._ended:
            return
        self._ended = True
        self._line.close()
        if self._host is None:
            self._place.close()
        else:
            self._host._end(self._place, self._pid)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


class Line:
    """A socket that a line goes out of for each that comes in, with a deadline and a most length for each."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._rest = channel, b""

    def ask(self, asked: bytes, seconds: float, descriptor: int | None = None) -> bytes:
        """The line that answers `asked`. Raises TimeoutError, EOFError or another OSError."""
        if self._rest:
            raise OSError("answered what it was not asked")
        self._channel.settimeout(seconds)
        if descriptor is None:
            self._channel.sendall(asked)
        else:
            socket.send_fds(self._channel, [asked], [descriptor])
        return self.read(seconds)

    def tell(self, said: bytes) -> None:
        self._channel.settimeout(START_SECONDS)
        self._channel.sendall(said)

    def read(self, seconds: float) -> bytes:
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if len(self._rest) > MOST_BYTES:
                raise OSError(f"answered more than {MOST_BYTES} bytes")
            self._channel.settimeout(max(until - time.monotonic(), 0.001))
            try:
                more = self._channel.recv(1 << 16)
            except TimeoutError:
                raise TimeoutError(f"did not answer within {seconds:g} s") from None
            if not more:
                raise EOFError("ended without an answer")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        self._channel.close()


class _Place:
    """One confined process and its control line. Whatever goes wrong on it, it is ended."""

    def __init__(self, guest: Path, readable: Sequence[Path], words: Sequence[str]) -> None:
        self._owner = os.getpid()
        python, prefix = shared_python()
        ours, theirs = socket.socketpair()
        self._control = Line(ours)
        self._said = tempfile.TemporaryFile()
        program = (
            f"import sys; sys.path.append({str(readable[0])!r}); "
            "exec(compile(open('/host.py').read(), '/host.py', 'exec'))"
        )
        with theirs, _HOST.open("rb") as host, guest.open("rb") as judge:
            self._process = confine.start(
                [python, "-S", "-P", "-c", program, "/judge.py", *words],
                environment=ENVIRONMENT,
                readable=[*readable, *([] if prefix == "/usr" else [Path(prefix)])],
                data={"/host.py": host.fileno(), "/judge.py": judge.fileno()},
                limits=JUDGE,
                pipes={
                    "stdin": theirs.fileno(),
                    "stdout": subprocess.DEVNULL,
                    "stderr": self._said,
                },
            )
        try:
            self._began(guest)
        except BaseException:
            self.close()
            raise

    def _began(self, guest: Path) -> None:
        try:
            self._control.read(START_SECONDS)
        except (OSError, EOFError) as error:
            raise IsolationError(
                f"no place for strangers' code can be built here: {self._last() or error}",
                "run ./xp doctor; in a container, allow user namespaces",
            ) from None
        try:
            told = json.loads(self._control.read(START_SECONDS))
        except (OSError, EOFError, ValueError) as error:
            raise EnvironmentFailure(f"the judge of {guest.stem} {error}: {self._last()}") from None
        if "missing" in told:
            raise MissingPartError(
                f"the judge of {guest.stem} lacks a package: {told['missing']}", "./xp setup worlds"
            )
        if "failed" in told:
            raise EnvironmentFailure(f"the judge of {guest.stem} could not begin: {told['failed']}")

    def _last(self) -> str:
        self._said.seek(0)
        lines = self._said.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and self._owner == os.getpid()

    def ask(self, asked: Mapping[str, Any], seconds: float, descriptor: int | None = None) -> Any:
        try:
            return _value(
                self._control.ask(json.dumps(asked).encode() + b"\n", seconds, descriptor)
            )
        except (OSError, EOFError) as error:
            self.close()
            raise EnvironmentFailure(
                f"the strangers' place {error}: {self._last()}",
                "it is built anew for the next episode",
            ) from error

    def tell(self, said: Mapping[str, Any]) -> None:
        """Says what has no answer. A place that is gone has none of its children left."""
        if self._owner == os.getpid():
            with suppress(OSError):
                self._control.tell(json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        self._control.close()
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()


def _value(line: bytes) -> Any:
    """What an answer holds. Raises ValueError for a refusal, EnvironmentFailure for a failure, OSError for nonsense."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise OSError("answered what is no line of JSON") from None
    if isinstance(told, dict) and "value" in told:
        return told["value"]
    if isinstance(told, dict) and "refused" in told:
        raise ValueError(str(told["refused"]))
    if isinstance(told, dict) and "failed" in told:
        raise EnvironmentFailure(f"the judge failed: {told['failed']}")
    raise OSError("answered neither value nor refusal")


def with_java(guest: Path, package: str, **options: Any) -> Hosted:
    """A judge with a Java machine of its own. Raises MissingPartError without Java."""
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
    """The folder that all `packages` lie in. They are looked for, not imported."""
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
    """Whether a place that is started here sees `path`: started as root, its user is another one."""
    return os.geteuid() != 0 or all(
        p.stat().st_mode & 0o001 for p in (path, *path.parents) if p.is_dir()
    )
