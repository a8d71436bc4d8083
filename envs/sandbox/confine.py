"""Programs of others (a proof assistant, a shell, an office) run in a place: bubblewrap's sandbox.

Covers: a place has its own user, pid, network, ipc, uts and mount namespaces and a dropped uid.
/usr is read-only. Home, /tmp and /dev/shm are empty and of limited size; nothing else can be
written. The environment holds only what is given. A system-call filter refuses calls that such
programs never need: ptrace, keys, bpf, perf, mounts, new namespaces, modules, io_uring, memory
files, and sockets other than local and inet ones. Memory, processes and files are limited (see
`limits`). The process that starts a place has an empty environment too, and passes the arguments
of bubblewrap by a descriptor, so pid 1 in the place shows neither.

Does not cover: a kernel vulnerability; a place that is given `network=True`. An agent's own code
needs far fewer rights: see `cage`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.sandbox import seccomp
from envs.sandbox.limits import Bounds, Limits
from experience.errors import EnvironmentFailure, IsolationError

MOST_OUTPUT = 16 << 20
"""The most bytes of output that `run` reads from a program."""
_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")
_ETC = (
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/chromium.d",
    "/etc/alternatives",
    "/etc/ocamlfind.conf",
    "/etc/libreoffice",
)


def bwrap_arguments(
    *,
    readable: Sequence[Path] = (),
    writable: Mapping[Path, str] | None = None,
    data: Mapping[str, int] | None = None,
    chdir: str = "/",
    network: bool = False,
    environment: Mapping[str, str] | None = None,
    limits: Limits = Limits(),
) -> list[str]:
    """The bubblewrap arguments that make a place.

    `readable` are paths that stand in the place as they do outside. `writable` maps a directory
    outside to its path inside. `data` maps a path inside to a descriptor whose content is read
    there, even if a file stands there already. `network` leaves the place in the machine's network:
    for our own programs only.
    """
    size = str(limits.tmp_bytes)
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try"]
    if not network:
        words += ["--unshare-net"]
    words += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "place"]
    words += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    # `--size` holds for the next tmpfs only, so each one has its own.
    words += ["--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    words += ["--size", size, "--tmpfs", "/tmp", "--size", size, "--tmpfs", "/home"]
    words += ["--setenv", "HOME", "/home", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]
    words += ["--setenv", "LANG", "C.UTF-8"]
    for name in ("lib", "lib64", "bin", "sbin"):
        link = Path("/") / name
        if link.is_symlink():
            words += ["--symlink", os.readlink(link), str(link)]
        elif link.is_dir():
            words += ["--ro-bind", str(link), str(link)]
    for path in (*_ETC, *(_NETWORK if network else ()), *map(str, readable)):
        if os.path.exists(path):
            words += ["--ro-bind", path, path]
    for outside, inside in (writable or {}).items():
        words += ["--bind", str(outside), inside]
    for inside, descriptor in (data or {}).items():
        words += ["--ro-bind-data", str(descriptor), inside]
    for name, value in (environment or {}).items():
        words += ["--setenv", name, value]
    return [*words, "--remount-ro", "/", "--chdir", chdir]


def entry(words: int) -> list[str]:
    """The start of a command line: it makes a place and runs the command that follows.

    bubblewrap reads its arguments (see `packed`) from the descriptor `words`. If we are root, the
    place runs as another user. Raises IsolationError if bubblewrap or setpriv is missing.
    """
    bwrap = shutil.which("bwrap")
    setpriv = shutil.which("setpriv")
    if bwrap is None:
        raise IsolationError(
            "bubblewrap (bwrap) is not installed; programs of others run in no weaker place",
            "apt-get install bubblewrap",
        )
    if os.geteuid() != 0:
        return [bwrap, "--args", str(words), "--"]
    if setpriv is None:
        raise IsolationError(
            "setpriv is not installed; programs of others are not run as root",
            "apt-get install util-linux",
        )
    uid = str(slot_uid())
    as_another_user = [setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs"]
    return [*as_another_user, bwrap, "--args", str(words), "--"]


def packed(words: Sequence[str]) -> bytes:
    """Arguments in the form in which bwrap reads them from a descriptor."""
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder in which the user of a place can write; removed when closed or collected.

    The folder stands where that user can reach it: TMPDIR may be private to us.
    """

    def reached(path: Path) -> bool:
        return path.is_dir() and all(p.stat().st_mode & 0o001 for p in (path, *path.parents))

    among = [Path(tempfile.gettempdir()), *map(Path, ("/tmp", "/var/tmp", "/dev/shm"))]
    root = os.geteuid() == 0
    made = tempfile.TemporaryDirectory(
        prefix=prefix, dir=next((p for p in among if not root or reached(p)), None)
    )
    give(Path(made.name))
    return made


def give(path: Path) -> None:
    """Makes the user of our places the owner of a folder and of all in it."""
    if os.geteuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, slot_uid(), slot_uid(), follow_symlinks=False)


def slot_uid() -> int:
    """A host uid that no account has. Each process that starts places gets its own."""
    return 310_000 + os.getpid() % 50_000


def account() -> bytes:
    """The /etc/passwd of our places, for programs that look up their user."""
    uid = slot_uid() if os.geteuid() == 0 else os.geteuid()
    return f"user:x:{uid}:{uid}:user:/home:/bin/sh\n".encode()


class ConfinedProcess(subprocess.Popen[bytes]):
    """A running place. After `wait`, none of its processes runs and its control groups are gone."""

    bounds: Bounds

    def kill(self) -> None:
        if self.poll() is None:
            self.bounds.kill()
            super().kill()

    def wait(self, timeout: float | None = None) -> int:
        code = super().wait(timeout)
        self.bounds.close()
        return code


def start(
    command: Sequence[str],
    *,
    pipes: Mapping[str, Any],
    filtered: bool = True,
    limits: Limits = Limits(),
    **where: Any,
) -> ConfinedProcess:
    """Starts `command` in a place of its own and returns the running place.

    `pipes` are Popen's stdin, stdout and stderr; `where` are arguments of `bwrap_arguments`.
    Without `filtered` there is no system-call filter: for a command that filters its own calls.
    """
    with tempfile.TemporaryFile() as program, tempfile.TemporaryFile() as arguments:
        words = bwrap_arguments(limits=limits, **where)
        if filtered:
            program.write(seccomp.filter_bytes("programs"))
            program.seek(0)
            words += ["--seccomp", str(program.fileno())]
        # bubblewrap waits at the gate until a byte arrives: the limits hold before anything runs.
        gate, opened = os.pipe()
        arguments.write(packed([*words, "--block-fd", str(gate)]))
        arguments.seek(0)
        bounds = Bounds(limits, tuple(where.get("writable") or ()))
        process = None
        try:
            process = ConfinedProcess(
                [*entry(arguments.fileno()), *limits.words(), *command],
                bufsize=0,
                **pipes,
                env={},
                cwd="/",
                pass_fds=(
                    gate,
                    arguments.fileno(),
                    *([program.fileno()] if filtered else ()),
                    *(where.get("data") or {}).values(),
                ),
            )
            process.bounds = bounds
            weakref.finalize(process, bounds.close)
            bounds.hold(process.pid)
        except BaseException:
            if process is not None:  # its gate is still closed: no command has run
                subprocess.Popen.kill(process)
                subprocess.Popen.wait(process)
            bounds.close()
            raise
        else:
            os.write(opened, b".")
        finally:
            os.close(gate)
            os.close(opened)
        return process


def run(
    command: Sequence[str], *, seconds: float, stdin: bytes = b"", **where: Any
) -> subprocess.CompletedProcess[bytes]:
    """Runs `command` in a place to its end; returns its exit code and output (stdout and stderr).

    The command reads `stdin`, and is dead when this returns. Raises subprocess.TimeoutExpired if
    it was ended after `seconds`. Raises EnvironmentFailure if the place itself could not be
    started, so that no message of bubblewrap or setpriv is taken for the command's own verdict.
    """
    # The shell prints this word when the place is ready: what comes before is not the command's.
    begun = uuid.uuid4().hex
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = start(
        ["/bin/sh", "-c", 'echo "$0"; exec "$@"', begun, *command], pipes=pipes, **where
    )
    try:
        output = _output(process, stdin, time.monotonic() + seconds)
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        code = process.wait()
    said, started, output = output.partition(f"{begun}\n".encode())
    if not started:
        raise EnvironmentFailure(
            f"no place for {command[0]} could be started: {said[-200:].decode(errors='replace')}",
            "./xp doctor says what places need",
        )
    return subprocess.CompletedProcess(list(command), code, output)


def _output(process: ConfinedProcess, stdin: bytes, until: float) -> bytes:
    """All that the place writes to stdout, while it reads `stdin`.

    Raises TimeoutExpired at `until`. Raises EnvironmentFailure beyond MOST_OUTPUT bytes, because
    the output stands in this process's memory.
    """
    assert process.stdin is not None and process.stdout is not None
    left = memoryview(stdin)
    output = bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        if stdin:
            # A blocking write could wait for ever for a program that only writes.
            os.set_blocking(process.stdin.fileno(), False)
            waiting.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while True:
            ready = waiting.select(max(until - time.monotonic(), 0))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, 0, bytes(output))
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    left = left[_sent(process.stdin.fileno(), left) :]
                    if not left:
                        waiting.unregister(process.stdin)
                        process.stdin.close()
                    continue
                more = os.read(process.stdout.fileno(), 1 << 16)
                if not more:
                    return bytes(output)
                output += more
                if len(output) > MOST_OUTPUT:
                    raise EnvironmentFailure(
                        f"a program of others wrote more than {MOST_OUTPUT >> 20} MiB",
                        "its place was ended",
                    )


def _sent(descriptor: int, data: memoryview) -> int:
    """The number of bytes of `data` that were taken: all, if nobody reads them any more."""
    try:
        return os.write(descriptor, data[: 1 << 16])
    except BrokenPipeError:
        return len(data)
