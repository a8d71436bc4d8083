"""What a place may use at most, and what holds it there: control groups where they can be had, else a watch.

A place is in its groups (see cgroups) before its first program starts. Where there are none, a thread looks at the
place every 50 ms, adds up what its processes and its tmpfs hold, and kills it when that is too much; it does the same
for a folder outside that a place may write. The number of processes, open files and core dumps are limited by rlimits
in any case. Not covered by the watch: System V segments that no process has mapped, and what happens between two looks.
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envs.sandbox import cgroups
from experience.errors import IsolationError

MIB = 1 << 20
_LOOK_SECONDS, _END_SECONDS = 0.05, 3.0


@dataclass(frozen=True)
class Limits:
    """Bytes and counts that hold for a place as a whole, but `files`, `file_bytes` and `cpu_seconds`: for a process.

    `memory_bytes` holds what is written to /tmp, /home and /dev/shm too, each of which may have `tmp_bytes`.
    `processes` counts threads. `folder_bytes` and `inodes` hold for a folder outside that the place may write.
    """

    memory_bytes: int = 2048 * MIB
    processes: int = 256
    files: int = 1024
    tmp_bytes: int = 256 * MIB
    inodes: int = 200_000
    folder_bytes: int = 256 * MIB
    file_bytes: int | None = None
    cpu_seconds: int | None = None

    def words(self) -> list[str]:
        """The words before a command inside the place, where its user namespace counts its own processes."""
        prlimit = shutil.which("prlimit")
        if prlimit is None:
            raise IsolationError(
                "prlimit is not installed; programs of others run in no place without limits",
                "apt-get install util-linux",
            )
        asked = {
            "nproc": self.processes,
            "nofile": self.files,
            "core": 0,
            "fsize": self.file_bytes,
            "cpu": self.cpu_seconds,
        }
        return [
            prlimit,
            *(
                f"--{name}={_allowed(name, most)}"
                for name, most in asked.items()
                if most is not None
            ),
        ]


def _allowed(name: str, most: int) -> int:
    """`most`, or what this process itself may have, if that is less: a limit cannot be raised."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


CAGE = Limits(memory_bytes=1024 * MIB, processes=16)
GVISOR = Limits(memory_bytes=2048 * MIB, processes=256)
BROWSER = Limits(memory_bytes=4096 * MIB, processes=1024, files=4096, tmp_bytes=1024 * MIB)
JUDGE = Limits(file_bytes=256 * MIB)
PEER = Limits(
    memory_bytes=4096 * MIB, processes=1024, files=4096, tmp_bytes=1024 * MIB, file_bytes=256 * MIB
)
"""A process of strangers' code: what it writes to a file, its messages included, has an end."""
DESKTOP = Limits(memory_bytes=4096 * MIB, processes=512, files=4096, tmp_bytes=512 * MIB)
"""Sessions of several programs, LibreOffice among them; threads count."""


class Bounds:
    """What holds one place to its limits. Its process is told to `hold` before it runs anything of others, or the
    command that starts it comes after `words`; `close` ends all that still runs in the place, and leaves nothing."""

    def __init__(self, limits: Limits, folders: Sequence[Path] = ()) -> None:
        self._limits, self._folders = limits, folders
        self._groups = cgroups.make(limits.memory_bytes, limits.processes)
        self._over = threading.Event()
        self._pid, self._owner = 0, os.getpid()
        self.broken = ""
        """What the place used too much of, where the watch ended it."""
        _open.add(self)

    @property
    def words(self) -> list[str]:
        if not self._groups:
            return []
        return ["/bin/sh", "-c", cgroups.JOIN, "sh", " ".join(map(str, self._groups))]

    @property
    def groups(self) -> tuple[Path, ...]:
        return tuple(self._groups)

    def hold(self, pid: int) -> None:
        """Puts a process and all below it into the place's groups: what they start from now on is in them too. Moving
        one takes the kernel some milliseconds, in which it goes on with its own start. Raises IsolationError."""
        for group in self._groups:
            while outside := [p for p in tree(pid) if p not in cgroups.members(group) and runs(p)]:
                for each in outside:
                    with suppress(ProcessLookupError):
                        self._move(each, group)
        first, self._pid = self._pid == 0, pid
        if first and (not self._groups or self._folders):
            threading.Thread(target=self._watch, name=f"limits of {pid}", daemon=True).start()

    def _move(self, pid: int, group: Path) -> None:
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            raise
        except OSError as refused:
            raise IsolationError(
                f"a place cannot be put into its group {group}: {refused}",
                "see docs/security.md, Places",
            ) from refused

    def close(self) -> None:
        """Raises nothing: what cannot be removed now is removed by the next process that makes groups here."""
        if self._owner != os.getpid():  # a fork of the owner, which ends before it
            return
        self._over.set()
        until = time.monotonic() + _END_SECONDS
        while self._groups and time.monotonic() < until:
            self.kill()
            if self._pid and not runs(self._pid):
                with suppress(
                    OSError
                ):  # nobody has waited for it: what is dead but there still holds its groups
                    os.waitpid(self._pid, os.WNOHANG)
            self._groups = [g for g in self._groups if not cgroups.remove(g)]
            if self._groups:
                time.sleep(0.001)
        _open.discard(self)

    def kill(self) -> None:
        """Ends all that runs in the place, also before bubblewrap has seen to it that its children end with it."""
        for pid in (
            {*cgroups.members(self._groups[0])}
            if self._groups
            else tree(self._pid)
            if self._pid
            else ()
        ):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    # ── the watch

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if not runs(self._pid):
                return
            pids = tree(self._pid)
            if what := self._too_much(pids):
                self.broken = what
                self.kill()

    def _too_much(self, pids: Sequence[int]) -> str:
        limits = self._limits
        for folder in self._folders:
            held, count = folder_use(folder)
            if held > limits.folder_bytes or count > limits.inodes:
                return f"{held >> 20} MiB in {count} files of a folder outside"
        if self._groups:
            return ""  # the kernel holds the rest
        memory, inodes = sum(map(_resident, pids)), 0
        for mount in ("/tmp", "/home", "/dev/shm"):
            held, count = _tmpfs_use(pids[-1], mount)
            memory, inodes = memory + held, inodes + count
        if memory > limits.memory_bytes:
            return f"{memory >> 20} MiB of memory"
        return f"{inodes} files" if inodes > limits.inodes else ""


_open: set[Bounds] = set()


@atexit.register
def _close_all() -> None:
    for bounds in list(_open):
        bounds.close()


def tree(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    found, left = [], [pid]
    while left:
        found.append(at := left.pop())
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{at}/task"):
                with open(f"/proc/{at}/task/{thread}/children") as file:
                    left += map(int, file.read().split())
    return found


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _resident(pid: int) -> int:
    with suppress(OSError), open(f"/proc/{pid}/status") as file:
        return sum(
            int(line.split()[1]) << 10 for line in file if line.startswith(("RssAnon", "RssShmem"))
        )
    return 0


def _tmpfs_use(pid: int, mount: str) -> tuple[int, int]:
    """(bytes, files) of a tmpfs of the place that `pid` is in."""
    with suppress(OSError):
        told = os.statvfs(f"/proc/{pid}/root{mount}")
        if os.stat(f"/proc/{pid}/root").st_dev != os.stat("/").st_dev:  # it is in its place by now
            return (told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree
    return 0, 0


def folder_use(folder: Path) -> tuple[int, int]:
    """(bytes, files) below a folder; links are not followed."""
    held = count = 0
    for at, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        for name in files:
            with suppress(OSError):
                held += os.lstat(os.path.join(at, name)).st_blocks * 512
    return held, count
