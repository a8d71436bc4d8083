"""Control groups for places: finds where this process can make groups, and makes them with limits.

Uses version 2 if a group at or above ours is writable and hands out memory and pids. Else uses
version 1's memory and pids, and cpu, so that each place has the CPU share of one process. The
groups stand below our own group, so our own limits hold for them too. If a process dies and leaves
its groups, the next process that makes groups removes them.

Does not cover: machines where no group can be made; there `limits` watches instead.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

JOIN = 'for g in $1; do echo 0 > "$g/cgroup.procs" || exit 97; done; shift; exec "$@"'
"""A shell script that joins groups and runs a command. $1: the groups' paths; then the command."""
_number = itertools.count()


@dataclass(frozen=True)
class Home:
    """A group below which this process may make groups, and the names of its limits' files."""

    path: Path
    settings: Mapping[str, str]
    """File name to "memory", "processes" or the value itself."""


def make(memory_bytes: int, processes: int) -> list[Path]:
    """New groups with these limits; an empty list if no groups can be made."""
    made: list[Path] = []
    name = f"{_mark()}{os.getpid()}-{next(_number)}"
    limits = {"memory": str(memory_bytes), "processes": str(processes)}
    try:
        for home in homes():
            group = home.path / name
            group.mkdir()
            made.append(group)
            for file, value in home.settings.items():
                if (group / file).exists():
                    (group / file).write_text(limits.get(value, value))
    except OSError:  # the right to make groups was taken from us since `homes` tried
        for group in made:
            remove(group)
        return []
    return made


@cache
def homes() -> tuple[Home, ...]:
    """The groups below which we can make groups, tried once; removes groups of dead processes."""
    found = _second_version() or _first_version()
    for home in found:
        for left in home.path.glob(f"{_mark()}*"):
            if not os.path.exists(f"/proc/{left.name.split('-')[2]}"):
                _emptied(left)
    return found


def _mark() -> str:
    """The first part of our groups' names.

    Names hold process ids, and an id means something only in its pid namespace.
    """
    return f"xp-{os.stat('/proc/self/ns/pid').st_ino}-"


def _emptied(group: Path) -> None:
    """Kills the processes in a group, and removes the group if they end at once."""
    for pid in members(group):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    remove(group)


def _second_version() -> tuple[Home, ...]:
    mount = _mounted("cgroup2", "")
    own = _own("")
    if mount is None or own is None:
        return ()
    settings = {
        "memory.max": "memory",
        "memory.swap.max": "0",  # else the place would go on in swap beyond its memory
        "memory.oom.group": "1",
        "pids.max": "processes",
    }
    for path in _upwards(mount, own):
        with suppress(OSError):
            for controller in ("memory", "pids", "cpu"):
                if controller not in (path / "cgroup.subtree_control").read_text().split():
                    # A group that has processes itself cannot hand out controllers.
                    with suppress(OSError):
                        (path / "cgroup.subtree_control").write_text(f"+{controller}")
            if _works(home := Home(path, settings), ("memory.max", "pids.max")):
                return (home,)
    return ()


def _first_version() -> tuple[Home, ...]:
    found = []
    for controller, file, settings in (
        (
            "memory",
            "memory.limit_in_bytes",
            {"memory.limit_in_bytes": "memory", "memory.memsw.limit_in_bytes": "memory"},
        ),
        ("pids", "pids.max", {"pids.max": "processes"}),
        ("cpu", "cpu.shares", {}),
    ):
        mount = _mounted("cgroup", controller)
        own = _own(controller)
        path = None
        if mount is not None and own is not None:
            path = next(_upwards(mount, own), None)
        if path is not None and _works(home := Home(path, settings), (file,)):
            found.append(home)
        elif controller != "cpu":
            return ()
    return tuple(found)


def _works(home: Home, files: Sequence[str]) -> bool:
    """Whether a group can be made below `home`, has these files, and can be joined."""
    group = home.path / f"{_mark()}{os.getpid()}-trial"
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        if not all((group / file).exists() for file in files):
            return False
        joined = subprocess.run(
            ["/bin/sh", "-c", JOIN, "sh", str(group), "/bin/true"],
            env={},
            cwd="/",
            capture_output=True,
            check=False,
        )
        return joined.returncode == 0
    finally:
        remove(group)


def _upwards(mount: tuple[str, str], own: str) -> Iterator[Path]:
    """This process's group and its parents, as far as they are mounted."""
    where, root = mount
    below = own.removeprefix(root.rstrip("/")).strip("/")
    first = Path(where) / below
    return iter([first, *[p for p in first.parents if p.is_relative_to(where)]])


def _mounted(kind: str, controller: str) -> tuple[str, str] | None:
    """(mount point of a hierarchy, the group in the hierarchy that is mounted there)."""
    with suppress(OSError), open("/proc/self/mountinfo") as file:
        for line in file:
            # The fields before " - " vary in number (proc_pid_mountinfo(5)), those after do not.
            left, _, right = line.partition(" - ")
            fields = left.split()
            what, _, options = right.split()[:3]
            if what == kind and (not controller or controller in options.split(",")):
                return fields[4], fields[3]
    return None


def _own(controller: str) -> str | None:
    """This process's group in the hierarchy of a controller; "" means version 2."""
    with suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                return path
    return None


def members(group: Path) -> list[int]:
    """The processes in a group that are visible from our pid namespace."""
    with suppress(OSError):
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split() if int(pid) > 0]
    return []


def remove(group: Path) -> bool:
    """Removes the group; False if it is still there, because a process runs in it."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
