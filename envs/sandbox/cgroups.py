"""Control groups: where this process can make them, and groups with the limits of one place.

The second version where a group at or above ours can be written and hands out memory and pids; else the first version's
memory and pids (and cpu, so that a place counts as one process beside the others). Groups stand below our own, so what
limits us limits them. What dead processes left is removed by the next one that makes some.
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
"""A shell's way into groups: their paths are its first word, the command follows."""
_number = itertools.count()


@dataclass(frozen=True)
class Home:
    """A group below which this process may make groups, and the files there that limit memory and processes."""

    path: Path
    settings: Mapping[str, str]
    """File -> "memory", "processes" or the value itself."""
    needed: bool = True


def make(memory_bytes: int, processes: int) -> list[Path]:
    """New groups with those limits; none where there are no groups to be had."""
    made: list[Path] = []
    name = f"{_mark()}{os.getpid()}-{next(_number)}"
    try:
        for home in homes():
            group = home.path / name
            group.mkdir()
            made.append(group)
            for file, value in home.settings.items():
                told = {"memory": str(memory_bytes), "processes": str(processes)}.get(value, value)
                if (group / file).exists():
                    (group / file).write_text(told)
    except OSError:  # taken from us since we tried
        for group in made:
            remove(group)
        return []
    return made


@cache
def homes() -> tuple[Home, ...]:
    """Where groups can be made, tried out once a process. What dead processes left there is removed."""
    found = _second_version() or _first_version()
    for home in found:
        for left in home.path.glob(f"{_mark()}*"):
            if not os.path.exists(f"/proc/{left.name.split('-')[2]}"):
                _emptied(left)
    return found


def _mark() -> str:
    """What the names of our groups begin with: process ids are those of a pid namespace."""
    return f"xp-{os.stat('/proc/self/ns/pid').st_ino}-"


def _emptied(group: Path) -> None:
    """Ends what is in a group, and removes it if that is done at once."""
    for pid in members(group):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    remove(group)


def _second_version() -> tuple[Home, ...]:
    mount, own = _mounted("cgroup2", ""), _own("")
    if mount is None or own is None:
        return ()
    settings = {
        "memory.max": "memory",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "processes",
    }
    for path in _upwards(mount, own):
        with suppress(OSError):
            for controller in ("memory", "pids", "cpu"):
                if controller not in (path / "cgroup.subtree_control").read_text().split():
                    with suppress(
                        OSError
                    ):  # a group that holds processes itself cannot hand out any
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
        mount, own = _mounted("cgroup", controller), _own(controller)
        path = next(_upwards(mount, own), None) if mount is not None and own is not None else None
        if path is not None and _works(home := Home(path, settings), (file,)):
            found.append(home)
        elif controller != "cpu":
            return ()
    return tuple(found)


def _works(home: Home, files: Sequence[str]) -> bool:
    """Whether a group can be made there, has those files, and can be joined."""
    group = home.path / f"{_mark()}{os.getpid()}-trial"
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        return (
            all((group / file).exists() for file in files)
            and subprocess.run(
                ["/bin/sh", "-c", JOIN, "sh", str(group), "/bin/true"],
                env={},
                cwd="/",
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    finally:
        remove(group)


def _upwards(mount: tuple[str, str], own: str) -> Iterator[Path]:
    """This process's group and those above it, as far as they are mounted."""
    where, root = mount
    below = own.removeprefix(root.rstrip("/")).strip("/")
    first = Path(where) / below
    return iter([first, *[p for p in first.parents if p.is_relative_to(where)]])


def _mounted(kind: str, controller: str) -> tuple[str, str] | None:
    """(where a hierarchy is mounted, which of its groups is there)."""
    with suppress(OSError), open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields, (what, _, options) = left.split(), right.split()[:3]
            if what == kind and (not controller or controller in options.split(",")):
                return fields[4], fields[3]
    return None


def _own(controller: str) -> str | None:
    """This process's group in the hierarchy of a controller, "" for the second version."""
    with suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                return path
    return None


def members(group: Path) -> list[int]:
    """The processes in a group, as far as they are seen from here."""
    with suppress(OSError):
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split() if int(pid) > 0]
    return []


def remove(group: Path) -> bool:
    """Whether the group is gone now; it stays as long as something runs in it."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
