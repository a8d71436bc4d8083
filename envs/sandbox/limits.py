"""Limits of places, enforced by control groups and a watching thread.

Covers: memory (tmpfs included), processes, open files, the number of files on each tmpfs, and the
size of a writable folder outside. A place is in its control groups (see `cgroups`) before its first
program starts. A thread counts the files of the place and of a folder outside that it may write,
and kills the place if there are too many. Without groups, that thread also adds up the memory and
tmpfs of the place's processes. Rlimits on processes, open files and core dumps hold in any case.

Does not cover, without control groups: System V segments that no process has mapped, and what
happens between two looks.
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envs.sandbox import cgroups
from experience.errors import IsolationError

MIB = 1 << 20
_LOOK_SECONDS = 0.05
_LOOK_AT_FILES_SECONDS = 0.5
"""Where groups hold the memory: a place makes some 50,000 files in that time."""
_END_SECONDS = 3.0


@dataclass(frozen=True)
class Limits:
    """Limits of a place as a whole; `files`, `file_bytes` and `cpu_seconds` are for one process.

    `memory_bytes` includes what is written to /tmp, /home and /dev/shm, each of which may hold
    `tmp_bytes`. `processes` counts threads. `folder_bytes` is for a folder outside that the place
    may write; `inodes` is for that folder, and for what stands in those three together.
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
        """The prlimit prefix of a command, to be run inside the place.

        Inside, `nproc` counts the processes of the place's user namespace; outside, it would count
        all processes of the same uid.
        """
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
        given = {name: most for name, most in asked.items() if most is not None}
        return [prlimit, *(f"--{name}={_allowed(name, most)}" for name, most in given.items())]


def _allowed(name: str, most: int) -> int:
    """`most`, or this process's own hard limit if it is lower: no process can raise it."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


CAGE = Limits(memory_bytes=1024 * MIB, processes=16)
GVISOR = Limits(memory_bytes=2048 * MIB, processes=256)
BROWSER = Limits(memory_bytes=4096 * MIB, processes=1024, files=4096, tmp_bytes=1024 * MIB)
JUDGE = Limits(file_bytes=256 * MIB)
PEER = Limits(
    memory_bytes=4096 * MIB, processes=1024, files=4096, tmp_bytes=1024 * MIB, file_bytes=256 * MIB
)
"""For a process of strangers' code. `file_bytes` limits its log too, which is a file."""
DESKTOP = Limits(memory_bytes=4096 * MIB, processes=512, files=4096, tmp_bytes=512 * MIB)
"""For sessions of several programs, LibreOffice among them, which start many threads."""


class Bounds:
    """Holds one place to its limits.

    Call `hold` with its process before that process runs code of others, or put `words` before the
    command that starts it. `close` ends all processes of the place, and removes its groups.
    """

    def __init__(self, limits: Limits, folders: Sequence[Path] = ()) -> None:
        self._limits = limits
        self._folders = folders
        self._groups = cgroups.make(limits.memory_bytes, limits.processes)
        self._over = threading.Event()
        self._pid = 0
        self._owner = os.getpid()
        self.broken = ""
        """The limit that the place broke, if the watching thread ended it; else empty."""
        _open.add(self)

    @property
    def words(self) -> list[str]:
        """The prefix of a command that makes it join the groups before it runs."""
        if not self._groups:
            return []
        return ["/bin/sh", "-c", cgroups.JOIN, "sh", " ".join(map(str, self._groups))]

    @property
    def groups(self) -> tuple[Path, ...]:
        return tuple(self._groups)

    def hold(self, pid: int) -> None:
        """Puts a process and its descendants into the groups; later children are in them too.

        Raises IsolationError if the kernel refuses.
        """
        for group in self._groups:
            # To move a process takes the kernel some milliseconds, in which the process may start
            # another one: look again until none is outside.
            while outside := [p for p in tree(pid) if p not in cgroups.members(group) and runs(p)]:
                for each in outside:
                    with suppress(ProcessLookupError):
                        self._move(each, group)
        first = self._pid == 0
        self._pid = pid
        if first:
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
        """Ends the place and removes its groups. Raises nothing.

        Groups that cannot be removed now are removed by the next process that makes groups here.
        """
        if self._owner != os.getpid():  # we are a fork of the owner: the place is still in use
            return
        self._over.set()
        until = time.monotonic() + _END_SECONDS
        while self._groups and time.monotonic() < until:
            self.kill()
            if self._pid and not runs(self._pid):
                # A dead process that nobody has waited for still keeps its groups.
                with suppress(OSError):
                    os.waitpid(self._pid, os.WNOHANG)
            self._groups = [g for g in self._groups if not cgroups.remove(g)]
            if self._groups:
                time.sleep(0.001)
        _open.discard(self)

    def kill(self) -> None:
        """Kills every process in the place.

        To kill bubblewrap alone is not enough: until it has set `--die-with-parent` up, its
        children would go on.
        """
        for pid in self._processes():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterable[int]:
        if self._groups:
            return set(cgroups.members(self._groups[0]))
        return tree(self._pid) if self._pid else ()

    # ── the watching thread

    def _watch(self) -> None:
        is_held = self._groups and not self._folders
        while not self._over.wait(_LOOK_AT_FILES_SECONDS if is_held else _LOOK_SECONDS):
            if not runs(self._pid):
                return
            pids = tree(self._pid)
            if what := self._too_much(pids):
                self.broken = what
                self.kill()

    def _too_much(self, pids: Sequence[int]) -> str:
        """The limit that the place breaks, in words; empty if it keeps to its limits."""
        limits = self._limits
        for folder in self._folders:
            held, count = folder_use(folder)
            if held > limits.folder_bytes or count > limits.inodes:
                return f"{held >> 20} MiB in {count} files of a folder outside"
        used = [_tmpfs_use(pids[-1], mount) for mount in ("/tmp", "/home", "/dev/shm")]
        inodes = sum(count for _, count in used)
        # bubblewrap cannot limit the files of a tmpfs. Millions of empty ones would take the
        # kernel half a minute to remove.
        if inodes > limits.inodes:
            return f"{inodes} files"
        if self._groups:
            return ""  # the kernel holds the memory
        memory = sum(map(_resident, pids)) + sum(held for held, _ in used)
        return f"{memory >> 20} MiB of memory" if memory > limits.memory_bytes else ""


_open: set[Bounds] = set()


@atexit.register
def _close_all() -> None:
    for bounds in list(_open):
        bounds.close()


def tree(pid: int) -> list[int]:
    """The pids of a process and all its descendants, parents first."""
    found: list[int] = []
    left = [pid]
    # A process's children are listed by the thread that forked them.
    while left:
        found.append(at := left.pop())
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{at}/task"):
                with open(f"/proc/{at}/task/{thread}/children") as file:
                    left += map(int, file.read().split())
    return found


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _resident(pid: int) -> int:
    """Bytes of anonymous and shared memory of a process: files in the page cache do not count."""
    with suppress(OSError), open(f"/proc/{pid}/status") as file:
        return sum(
            int(line.split()[1]) << 10 for line in file if line.startswith(("RssAnon", "RssShmem"))
        )
    return 0


def _tmpfs_use(pid: int, mount: str) -> tuple[int, int]:
    """(bytes, files) in use on a tmpfs of the place in which `pid` runs."""
    with suppress(OSError):
        inside = f"/proc/{pid}/root{mount}"
        use = os.statvfs(inside)
        # Before `pid` has entered its place, it sees the machine's file systems: not to be counted.
        machines = [os.stat(path).st_dev for path in ("/", mount) if os.path.exists(path)]
        if os.stat(inside).st_dev not in machines:
            return (use.f_blocks - use.f_bfree) * use.f_frsize, use.f_files - use.f_ffree
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
