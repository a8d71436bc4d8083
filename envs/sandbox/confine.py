"""Programs of others (a proof assistant, a shell, an office) in a place of their own: bubblewrap around any command.

Own user, pid, network, ipc, uts and mount namespaces, a dropped uid, /usr read-only, an empty home and /tmp of limited
size, nothing else to write to, no environment but what is given, and a system-call filter that refuses what such
programs never need (ptrace, keys, bpf, perf, mounts, new namespaces, modules, io_uring, memory files, sockets but
those within the place). What starts a place has an empty environment too, and tells its words by a descriptor: pid 1
in the place shows neither. What a place may use is limited (see limits).
Does not cover: a kernel vulnerability. For an agent's own code, which needs far less, see cage.
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
"""Bytes that a program may write while `run` reads it."""
_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")
_ETC = (
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/chromium.d",
    "/etc/alternatives",
    "/etc/ocamlfind.conf",
    "/etc/libreoffice",
)


def place(
    *,
    readable: Sequence[Path] = (),
    writable: Mapping[Path, str] | None = None,
    data: Mapping[str, int] | None = None,
    chdir: str = "/",
    network: bool = False,
    environment: Mapping[str, str] | None = None,
    limits: Limits = Limits(),
) -> list[str]:
    """Bubblewrap's words for a place. `writable` maps a directory outside to its path inside, `data` a path inside to a
    descriptor that holds what is to be read there, over what may stand there; `network` leaves a program of ours in the
    machine's network."""
    size = str(limits.tmp_bytes)
    words = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        *([] if network else ["--unshare-net"]),
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--hostname",
        "place",
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        size,
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
        "--size",
        size,
        "--tmpfs",
        "/tmp",
        "--size",
        size,
        "--tmpfs",
        "/home",
        "--setenv",
        "HOME",
        "/home",
        "--setenv",
        "PATH",
        "/usr/local/bin:/usr/bin:/bin",
        "--setenv",
        "LANG",
        "C.UTF-8",
    ]
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
    """What starts a place whose words (see `packed`) are read from the descriptor `words`; the command follows. Raises
    IsolationError without bubblewrap."""
    bwrap, setpriv = shutil.which("bwrap"), shutil.which("setpriv")
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
    return [
        setpriv,
        "--reuid",
        uid,
        "--regid",
        uid,
        "--clear-groups",
        "--no-new-privs",
        bwrap,
        "--args",
        str(words),
        "--",
    ]


def packed(words: Sequence[str]) -> bytes:
    """Words as bwrap reads them from a descriptor."""
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder that a place can be given, for its user to write in; gone when closed or collected. It stands where
    that user can get to, which a temporary folder of one's own may not be."""

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
    """A folder and all in it to the user of the places that are started here."""
    if os.geteuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, slot_uid(), slot_uid(), follow_symlinks=False)


def slot_uid() -> int:
    """A host uid that no account has, its own for each process that starts places."""
    return 310_000 + os.getpid() % 50_000


def account() -> bytes:
    """The /etc/passwd of a place that is started here, for programs that ask who they are."""
    uid = slot_uid() if os.geteuid() == 0 else os.geteuid()
    return f"user:x:{uid}:{uid}:user:/home:/bin/sh\n".encode()


class Place(subprocess.Popen[bytes]):
    """A running place. When it has been waited for, nothing of it runs and its groups are gone."""

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
) -> Place:
    """`command` running in its place. `pipes` are Popen's stdin, stdout and stderr; `where` is for `place`. Without
    `filtered` the command filters its own system calls."""
    with tempfile.TemporaryFile() as program, tempfile.TemporaryFile() as told:
        words = place(limits=limits, **where)
        if filtered:
            program.write(seccomp.filter_bytes("programs"))
            program.seek(0)
            words += ["--seccomp", str(program.fileno())]
        gate, opened = os.pipe()
        told.write(packed([*words, "--block-fd", str(gate)]))
        told.seek(0)
        bounds, process = Bounds(limits, tuple(where.get("writable") or ())), None
        try:
            process = Place(
                [*entry(told.fileno()), *limits.words(), *command],
                bufsize=0,
                **pipes,
                env={},
                cwd="/",
                pass_fds=(
                    gate,
                    told.fileno(),
                    *([program.fileno()] if filtered else ()),
                    *(where.get("data") or {}).values(),
                ),
            )
            process.bounds = bounds
            weakref.finalize(process, bounds.close)
            bounds.hold(process.pid)  # it waits at the gate
        except BaseException:
            if process is not None:  # before its gate opens: without its limits it does not run
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
    command: Sequence[str], *, seconds: float, told: bytes = b"", **where: Any
) -> subprocess.CompletedProcess[bytes]:
    """`command` from start to end, `told` on its stdin, its output kept (stderr with stdout). It is dead when this
    returns; a subprocess.TimeoutExpired tells that it was ended. Raises EnvironmentFailure where the place itself could
    not be started, so that nobody takes what bubblewrap or setpriv said for the command's own verdict."""
    begun = uuid.uuid4().hex
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = start(
        ["/bin/sh", "-c", 'echo "$0"; exec "$@"', begun, *command], pipes=pipes, **where
    )
    try:
        output = _spoken(process, told, time.monotonic() + seconds)
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


def _spoken(process: Place, told: bytes, until: float) -> bytes:
    """What the place writes until it ends its output, `told` on its stdin. Raises TimeoutExpired at `until`, and
    EnvironmentFailure beyond MOST_OUTPUT bytes: what it writes stands in this process's memory."""
    assert process.stdin is not None and process.stdout is not None
    left, output = memoryview(told), bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        if told:
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
    """How much of `data` was taken; all of it where nobody reads it any more."""
    try:
        return os.write(descriptor, data[: 1 << 16])
    except BrokenPipeError:
        return len(data)
