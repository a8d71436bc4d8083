"""The cage: runs an agent's code where the code can reach nothing.

Covers, by tier (see `tiers` for the commands):
- `namespaces`: bubblewrap gives the code its own pid, net, ipc, uts, mount and cgroup namespaces.
  There is no /proc, no /dev, no environment and nothing to write to. A system-call allow-list, a
  dropped uid, and limits on memory, CPU, wall time and output hold too.
- `landlock`, for machines without namespaces: the same allow-list, uid and limits. The kernel's
  Landlock lets the code read Python's own files only, write none, use no TCP, signal nobody.
- `gvisor`, only if XP_MIN_TIER asks for it: the same zygote under `runsc`. System calls are then
  answered by gVisor's kernel in user space instead of the machine's kernel.
- `none`, only if XP_MIN_TIER is none and nothing better can be built: a process with limits. It
  keeps nothing in.

The kernel is asked for a tier by trying it. A machine that offers less than XP_MIN_TIER (by
default `namespaces`) is refused. One caged zygote serves many runs: each run is a fork that can
neither write a file, nor fork, nor signal, so it leaves nothing for the next run.

Does not cover: a kernel vulnerability reachable through the allow-list. For code trained to
attack, use a VM.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from envs.sandbox.limits import Bounds
from envs.sandbox.tiers import TIERS, Launch, launch
from experience.errors import EnvironmentFailure, IsolationError

DEFAULT = "namespaces"
_MOST_FRAME_BYTES = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """The result of a run: its output, one answer for each call, and how it ended.

    An answer is ("value", v) or ("error", text).
    """

    ending: str  # ok, timeout or killed
    stdout: str
    answers: tuple[tuple[str, Any], ...]


@cache
def probe(tier: str = DEFAULT) -> str | None:
    """None if this machine can build the cage of that tier, else the reason why not."""
    try:
        with Sandbox(tier=tier) as sandbox:
            outcome = sandbox.run("print(6 * 7)")
    except (IsolationError, EnvironmentFailure, OSError) as error:
        return str(error)
    if outcome.stdout == "42\n":
        return None
    return f"a test program printed {outcome.stdout!r} ({outcome.ending})"


def tier() -> str:
    """The strongest tier that this machine offers, from XP_MIN_TIER upwards.

    gVisor is tried only if XP_MIN_TIER asks for it: a run there costs ten times as much. Raises
    IsolationError if the machine offers less than XP_MIN_TIER.
    """
    least = os.environ.get("XP_MIN_TIER", DEFAULT)
    if least not in TIERS:
        raise IsolationError(
            f"sandbox.min_tier {least!r} is not offered", f"there are: {', '.join(TIERS)}"
        )
    reasons = {}
    for candidate in reversed(TIERS[TIERS.index(least) :]):
        if candidate == "gvisor" and least != "gvisor":
            continue
        reason = probe(candidate)
        if reason is None:
            return candidate
        reasons[candidate] = reason
    raise IsolationError(
        "; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
        "run ./xp doctor; in a container, allow user namespaces, or set sandbox.min_tier: landlock",
    )


class Sandbox:
    """A caged zygote. `run` costs a fork (some 3 ms); the first run builds the cage.

    Safe to use from many threads. `filtered=False` (no system-call filter) and `closed=False` (no
    Landlock) are for tests only: with these controls an attack must get through.
    """

    def __init__(self, *, tier: str = "", filtered: bool = True, closed: bool = True) -> None:
        self._tier = tier
        self._filtered = filtered
        self._closed = closed
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._bounds: Bounds | None = None
        self._lock = threading.Lock()

    def run(
        self,
        code: str,
        calls: Sequence[Sequence[Any]] = (),
        entry: str = "f",
        *,
        wall_seconds: float = 2.0,
        cpu_seconds: int = 2,
        memory_bytes: int = 512 << 20,
    ) -> Outcome:
        """Runs `code`, then `entry(*arguments)` for each call, in one fork; returns their answers.

        The fork is dead when this returns. Answers are plain JSON values made in the cage, so an
        agent chose them: the caller judges them, outside. Raises EnvironmentFailure if the cage
        itself fails (not if the code does).
        """
        request = json.dumps(
            {
                "code": code,
                "calls": [list(c) for c in calls],
                "entry": entry,
                "cpu_seconds": cpu_seconds,
                "memory_bytes": memory_bytes,
            }
        ).encode()
        with self._lock:
            try:
                process = self._start()
                # The zygote reads the time limit by itself: the request is parsed in the fork only.
                _send(process, b"%8.3f" % wall_seconds + request)
                # A fork that overruns is ended by the zygote; 20 s more mean that the zygote hangs.
                reply = json.loads(_receive(process, wall_seconds + 20))
            except (OSError, ValueError, struct.error) as error:
                self._stop()
                raise EnvironmentFailure(
                    f"the sandbox did not answer: {error}", "it is built anew for the next run"
                ) from error
        return Outcome(reply["ending"], reply["stdout"], _answers(reply["results"], len(calls)))

    def close(self) -> None:
        with self._lock:
            self._stop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        """The running zygote; builds its cage if there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._tier = self._tier or tier()
        with launch(self._tier, filtered=self._filtered, closed=self._closed) as command:
            # `runsc` reads the folder as long as the cage lives, so `_stop` removes it.
            self._folder = command.folder
            return self._begin(command)

    def _begin(self, command: Launch) -> subprocess.Popen[bytes]:
        self._bounds = bounds = Bounds(command.limits)
        weakref.finalize(self, bounds.close)
        self._process = process = subprocess.Popen(
            command.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=command.descriptors,
            env={},
            bufsize=0,
            cwd="/",
        )
        try:
            bounds.hold(process.pid)  # no code of an agent runs yet
            _receive(process, command.start_seconds)
            bounds.hold(process.pid)  # bubblewrap has started the zygote meanwhile
        except IsolationError:
            self._stop()
            raise
        except (OSError, struct.error):
            process.kill()
            reason = _last_words(process)
            process.wait()
            bounds.close()
            self._process = None
            raise IsolationError(
                f"the {self._tier} sandbox cannot be built here: {reason or 'no reason given'}",
                "run ./xp doctor; in a container, allow user namespaces or start as root",
            ) from None
        return process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe:
                    pipe.close()
            self._process.wait()
            self._process = None
        if self._bounds is not None:
            self._bounds.close()
            self._bounds = None
        if self._folder is not None:  # the zygote's stdin is closed, so the zygote has ended
            self._folder.cleanup()
            self._folder = None


# ── frames: u32 length, little-endian, then that many bytes


def _send(process: subprocess.Popen[bytes], payload: bytes) -> None:
    assert process.stdin is not None
    view = memoryview(struct.pack("<I", len(payload)) + payload)
    while view:
        view = view[process.stdin.write(view) :]


def _receive(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One frame from the zygote. A cage that is silent for `seconds` is killed: the read ends."""
    assert process.stdout is not None
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        size = struct.unpack("<I", _exactly(process.stdout, 4))[0]
        if size > _MOST_FRAME_BYTES:
            raise OSError(f"a frame of {size} bytes")
        return _exactly(process.stdout, size)
    finally:
        watchdog.cancel()


def _exactly(pipe: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = pipe.read(count - len(data))
        if not more:
            raise OSError("the cage ended")
        data += more
    return data


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """What a process that has ended wrote to stderr."""
    return process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""


def _answers(results: str, expected: int) -> tuple[tuple[str, Any], ...]:
    """The answers that the fork claims. Anything but a list of (kind, plain value) is no answer."""
    try:
        parsed = json.loads(results)
        answers = tuple((kind, value) for kind, value in parsed if kind in ("value", "error"))
    except (ValueError, TypeError, RecursionError):
        return ()
    return answers[: max(expected, 1)]
