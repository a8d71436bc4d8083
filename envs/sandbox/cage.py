"""The cage: running code of an agent where it can reach nothing.

Tier `namespaces`: bubblewrap (own pid, net, ipc, uts, mount and cgroup namespaces; no /proc, no /dev, nothing
writable, no environment), a system-call allow-list, a dropped uid, limits on memory, CPU, wall time and output.
Tier `landlock`, where no namespaces can be made: the same allow-list, uid and limits, and the kernel's Landlock (files
to read are Python's own, none to write, no TCP, no signal out). Which one is asked of the kernel by trying; a machine
that offers less than XP_MIN_TIER (by default namespaces) is refused. Tier `gvisor`, only where XP_MIN_TIER asks for it:
the same zygote under `runsc`, whose kernel in user space answers the system calls instead of the machine's. Tier
`none`, only where XP_MIN_TIER is none and nothing better can be built: a process with limits, which keeps nothing in.
One caged zygote serves many runs: a run is a fork that can neither write a file, nor fork, nor signal, so it
leaves nothing for the next.
Not covered: a kernel vulnerability reachable through the allow-list. For code trained to attack, use a VM.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from envs.sandbox import seccomp
from envs.sandbox.limits import CAGE, GVISOR, Bounds
from experience.errors import EnvironmentFailure, IsolationError

TIERS = ("none", "landlock", "namespaces", "gvisor")
"""From the weakest to the strongest. All but the first keep an attacker in."""
DEFAULT = "namespaces"
_INSIDE_PYTHON = "/python"
_ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass(frozen=True)
class Outcome:
    """What a run left: its output, one answer per call (("value", v) or ("error", text)), and how it ended."""

    ending: str  # ok, timeout or killed
    stdout: str
    answers: tuple[tuple[str, Any], ...]


@cache
def probe(tier: str = DEFAULT) -> str | None:
    """None if this machine can build the cage of that tier, else why not."""
    try:
        with Sandbox(tier=tier) as sandbox:
            outcome = sandbox.run("print(6 * 7)")
    except (IsolationError, EnvironmentFailure, OSError) as error:
        return str(error)
    return (
        None
        if outcome.stdout == "42\n"
        else f"a test program printed {outcome.stdout!r} ({outcome.ending})"
    )


def tier() -> str:
    """The strongest tier that this machine offers, gvisor only if it is asked for: a run costs ten times as much there.
    Raises IsolationError if that is less than XP_MIN_TIER asks."""
    least = os.environ.get("XP_MIN_TIER", DEFAULT)
    if least not in TIERS:
        raise IsolationError(
            f"sandbox.min_tier {least!r} is not offered", f"there are: {', '.join(TIERS)}"
        )
    why = {}
    for offered in reversed(
        [t for t in TIERS[TIERS.index(least) :] if t != "gvisor" or least == "gvisor"]
    ):
        why[offered] = probe(offered)
        if why[offered] is None:
            return offered
    raise IsolationError(
        "; ".join(f"{name}: {reason}" for name, reason in why.items()),
        "run ./xp doctor; in a container, allow user namespaces, or set sandbox.min_tier: landlock",
    )


def _slot_uid() -> int:
    """A host uid that no account has, its own for each process that starts cages."""
    return 200_000 + os.getpid() % 50_000


def _command(inside: Sequence[str], filter_descriptor: int | None) -> list[str]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise IsolationError(
            "bubblewrap (bwrap) is not installed; agent code runs in no weaker place",
            "install it: apt-get install bubblewrap",
        )
    command = [
        bwrap,
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--hostname",
        "cage",
        "--cap-drop",
        "ALL",
    ]
    if os.geteuid() == 0:
        command += [
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
            "--cap-add",
            "CAP_SETPCAP",
        ]
    else:
        command += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    for folder in ("/usr/lib", "/usr/lib64"):
        if os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for link in ("lib", "lib64"):
        if os.path.islink(f"/{link}"):
            command += ["--symlink", f"usr/{link}", f"/{link}"]
        elif os.path.isdir(f"/{link}"):
            command += ["--ro-bind", f"/{link}", f"/{link}"]
    command += ["--perms", "0755", "--dir", _INSIDE_PYTHON]
    for folder in ("bin", "lib"):
        source = Path(sys.base_prefix) / folder
        if folder == "lib" and sys.base_prefix == "/usr":
            command += ["--symlink", "/usr/lib", f"{_INSIDE_PYTHON}/lib"]
        else:
            command += ["--ro-bind", str(source), f"{_INSIDE_PYTHON}/{folder}"]
    command += ["--ro-bind", str(_ZYGOTE), "/zygote.py", "--remount-ro", "/", "--chdir", "/"]
    if filter_descriptor is not None:
        command += ["--seccomp", str(filter_descriptor)]
    version = sysconfig.get_python_version()
    return [
        *command,
        "--",
        f"{_INSIDE_PYTHON}/bin/python{version}",
        "-I",
        "-S",
        "/zygote.py",
        *inside,
    ]


def _bundle(folder: Path, inside: Sequence[str]) -> list[str]:
    """The command that runs the zygote under gVisor, its OCI bundle in `folder`. Python is there twice: gVisor puts
    /proc, /dev, /sys and /tmp of its own into the root, and the zygote moves from there to /cage, where they are not.
    """
    runsc = shutil.which("runsc")
    if runsc is None:
        raise IsolationError("gVisor (runsc) is not installed", "install it: apt-get install runsc")
    python, prefix = shared_python()
    root = folder / "root"
    shown = {
        p: p
        for p in ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
        if os.path.isdir(p) and not os.path.islink(p)
    }
    shown |= {f"{_INSIDE_PYTHON}/{part}": f"{prefix}/{part}" for part in ("bin", "lib")}
    mounts = []
    for base in ("", "/cage"):
        for place, source in shown.items():
            (root / f"{base}{place}"[1:]).mkdir(parents=True, exist_ok=True)
            mounts.append(
                {
                    "destination": base + place,
                    "type": "bind",
                    "source": source,
                    "options": ["ro", "rbind"],
                }
            )
        for link in ("lib", "lib64"):
            if os.path.islink(f"/{link}"):
                (root / base[1:] / link).symlink_to(f"usr/{link}")
    shutil.copy(_ZYGOTE, root / "zygote.py")
    needed = ["CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    words = [
        f"{_INSIDE_PYTHON}/bin/{Path(python).name}",
        "-I",
        "-S",
        "/zygote.py",
        *inside,
        "gvisor",
    ]
    (folder / "config.json").write_text(
        json.dumps(
            {
                "ociVersion": "1.0.0",
                "hostname": "cage",
                "root": {"path": str(root), "readonly": True},
                "mounts": mounts,
                "process": {
                    "terminal": False,
                    "cwd": "/",
                    "env": [],
                    "user": {"uid": 0, "gid": 0},
                    "noNewPrivileges": True,
                    "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), needed),
                    "args": words,
                },
                "linux": {
                    "namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")]
                },
            }
        )
    )
    for path in (folder, root):
        path.chmod(0o755)
    rootless = ["--rootless"] if os.geteuid() else []
    return [
        runsc,
        f"--root={folder / 'state'}",
        "--network=none",
        "--platform=ptrace",
        "--ignore-cgroups",
        *rootless,
        "run",
        f"--bundle={folder}",
        f"cage-{os.getpid()}-{folder.name}",
    ]


def shared_python() -> tuple[str, str]:
    """(a Python that a dropped uid may run, its prefix): ours, or the system's where ours is in a private place."""
    for prefix in (Path(sys.base_prefix), Path("/usr")):
        python = prefix / "bin" / f"python{sysconfig.get_python_version()}"
        parents = [python, *python.parents]
        if python.exists() and (
            os.geteuid() != 0 or all(p.stat().st_mode & 0o5 == 5 for p in parents)
        ):
            return str(python), str(prefix)
    raise IsolationError("no Python that another user may run", "install the system's python3")


class Sandbox:
    """A caged zygote. `run` costs a fork (some 3 ms); the cage itself is built once, when first needed.

    Safe to use from many threads. `filtered=False` and `closed=False` are for tests only: the controls that must let an
    attack through, without the system-call filter and without Landlock.
    """

    def __init__(self, *, tier: str = "", filtered: bool = True, closed: bool = True) -> None:
        self._tier, self._filtered, self._closed = tier, filtered, closed
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
        """Runs `code`, then `entry(*arguments)` for each call, in a fork that is dead when this returns.

        Answers are plain JSON values made in the cage; what they are worth is judged by the caller, outside.
        Raises EnvironmentFailure if the cage itself fails (not if the code does).
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
                self._send(process, b"%8.3f" % wall_seconds + request)
                reply = json.loads(self._receive(process, wall_seconds + 20))
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
        if self._process is not None and self._process.poll() is None:
            return self._process
        uid = _slot_uid() if os.geteuid() == 0 else -1
        self._tier = self._tier or tier()
        inside = [
            str(uid),
            seccomp.filter_bytes("run").hex(),
            "filtered" if self._filtered else "unfiltered",
        ]
        if self._tier == "gvisor":
            self._folder = tempfile.TemporaryDirectory(
                prefix="xp-gvisor-", ignore_cleanup_errors=True
            )
            return self._begin(
                _bundle(Path(self._folder.name), [str(_slot_uid()), *inside[1:]]), (), 60
            )
        if self._tier == "none":
            return self._begin(
                [sys.executable, "-I", "-S", str(_ZYGOTE), "-1", "", "unfiltered", "none"], ()
            )
        if self._tier == "landlock":
            python, prefix = shared_python()
            paths = (
                [
                    p
                    for p in (
                        "/usr/lib",
                        "/usr/lib64",
                        "/lib",
                        "/lib64",
                        f"{prefix}/bin",
                        f"{prefix}/lib",
                    )
                    if os.path.isdir(p)
                ]
                if self._closed
                else []
            )
            words = [python, "-I", "-S", str(_ZYGOTE), *inside, "landlock", *paths]
            return self._begin(words, ())
        with tempfile.TemporaryFile() as program:
            program.write(seccomp.filter_bytes("cage"))
            program.seek(0)
            kept = (program.fileno(),) if self._filtered else ()
            return self._begin(_command(inside, program.fileno() if kept else None), kept)

    def _begin(
        self, words: Sequence[str], kept: Sequence[int], seconds: float = 20
    ) -> subprocess.Popen[bytes]:
        self._bounds = bounds = Bounds(GVISOR if self._tier == "gvisor" else CAGE)
        weakref.finalize(self, bounds.close)
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=kept,
            env={},
            bufsize=0,
            cwd="/",
        )
        self._process = process
        try:
            bounds.hold(process.pid)  # nothing of an agent runs yet
            self._receive(process, seconds)
            bounds.hold(process.pid)  # and what was started meanwhile
        except IsolationError:
            self._stop()
            raise
        except (OSError, struct.error):
            process.kill()
            reason = (
                process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
            )
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
        if self._folder is not None:  # the zygote's stdin has ended, and it with it
            self._folder.cleanup()
            self._folder = None

    @staticmethod
    def _send(process: subprocess.Popen[bytes], payload: bytes) -> None:
        assert process.stdin is not None
        view = memoryview(struct.pack("<I", len(payload)) + payload)
        while view:
            view = view[process.stdin.write(view) :]

    @staticmethod
    def _receive(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """One frame. A cage that stays silent is killed, which ends the read."""
        assert process.stdout is not None
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.start()
        try:
            size = struct.unpack("<I", _exactly(process.stdout, 4))[0]
            if size > 1 << 20:
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


def _answers(results: str, expected: int) -> tuple[tuple[str, Any], ...]:
    """Parses what the fork claims. Anything but a list of (kind, plain value) counts as no answer."""
    try:
        parsed = json.loads(results)
        answers = tuple((kind, value) for kind, value in parsed if kind in ("value", "error"))
    except (ValueError, TypeError, RecursionError):
        return ()
    return answers[: max(expected, 1)]
