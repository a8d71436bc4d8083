"""Checks that a world leaves no files, processes or secrets behind on the machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from envs.check.repeating import ROOT, elsewhere, namespaces
from envs.check.subject import Failed, Skipped, Subject, check
from envs.episode import Episode, begin

_DEEP = 4
"""New files are looked for in this many levels of folders below a watched folder."""
_MOST_ENTRIES = 50_000
_OTHERS = frozenset(
    {
        ".git",
        ".venv",
        ".peers",
        "runs",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        "node_modules",
    }
)
"""Folders to which other programs of the machine write all the time."""


@check
def host_containment(subject: Subject) -> str:
    """Episodes leave no file behind, not even in hidden folders."""
    episodes = [*subject.random[:2], *subject.lived[:1]]
    folders = _watched()
    own_mounts = [*namespaces(), "--mount"]
    if _can_mount(own_mounts):
        answer = elsewhere(subject, episodes, own_mounts, "--layer", *map(str, folders))
    else:
        answer = elsewhere(subject, episodes)
    if answer["left"]:
        raise Failed(f"left behind: {', '.join(answer['left'][:3])}"[:200])
    listed = [folder for folder in folders if str(folder) not in answer["layered"]]
    # Without an overlay, new files may come from other programs of a busy machine. Their files
    # seldom appear in the same folders twice; the world's files do.
    if listed and (once := _new_files(subject, episodes, listed)):
        twice = once & _new_files(subject, episodes, listed)
        if twice:
            raise Failed(
                f"something came or changed, twice, in {', '.join(sorted(twice)[:3])}"[:200]
            )
    return f"{len(folders)} folders as before: home, temporary ones and hidden folders included"


def _can_mount(own_mounts: list[str]) -> bool:
    words = [*own_mounts, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _new_files(subject: Subject, episodes: list[Episode], folders: list[Path]) -> set[str]:
    """Folders where files of this user appear or change while the episodes are repeated once."""
    before = dict(_listing(folders))
    elsewhere(subject, episodes)
    return {
        str(Path(path).parent) for path, state in _listing(folders) if before.get(path) != state
    }


def _watched() -> list[Path]:
    """The folders that a world might write to; none of them lies in another."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)  # not $HOME, which a world may have been given
    temporary = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
    folders = [home, ROOT, Path.cwd(), Path("/etc"), Path("/opt"), Path("/srv"), *temporary]
    kept = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    return [folder for folder in kept if not set(kept) & set(folder.parents)]


def _listing(folders: list[Path]) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, (bytes, time of change in ns)) of this user's files below `folders`."""
    for folder in folders:
        yield from _files(folder, _DEEP, [_MOST_ENTRIES])


def _files(folder: Path, deep: int, left: list[int]) -> Iterator[tuple[str, tuple[int, int]]]:
    """As `_listing`, for one folder. `left` holds one number: how many entries may still be read.

    The number is shared by all levels of the recursion: a home may hold millions of files.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        left[0] -= 1
        if left[0] < 0 or entry.name in _OTHERS:
            continue
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            about = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if not is_folder and about.st_uid == os.geteuid():
            yield entry.path, (about.st_size, about.st_mtime_ns)
        elif is_folder and deep:
            yield from _files(Path(entry.path), deep - 1, left)


@check
def resource_bounds(subject: Subject) -> str:
    """Thirty resets leave no descriptors, children or memory behind."""
    me = psutil.Process()
    # The first resets may load libraries and fill caches: only later growth is a leak.
    for seed in range(3):
        begin(subject.world, seed, subject.split)
    memory_before = me.memory_info().rss
    descriptors_before = me.num_fds()
    children_before = len(me.children(recursive=True))
    zombies_before = _zombies(me)
    for seed in range(30):
        begin(subject.world, seed, subject.split)
    grown = (me.memory_info().rss - memory_before) / 2**20
    descriptors = me.num_fds() - descriptors_before
    more = len(me.children(recursive=True)) - children_before
    zombies = len(_zombies(me) - zombies_before)
    if grown > 200 or descriptors > 16 or more > 4 or zombies:
        raise Failed(
            f"{grown:.0f} MiB, {descriptors} descriptors, {more} children more, {zombies} zombies"
        )
    return f"{grown:+.0f} MiB, {descriptors:+d} descriptors, {more:+d} children"


def _zombies(process: psutil.Process) -> set[int]:
    """The pids of child processes that have ended without being waited for."""
    found = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


@check
def oracle_containment(subject: Subject) -> str:
    """No environment variable of this process holds an answer of the oracle."""
    answers = subject.answers()
    if not answers:
        raise Skipped(
            "no answer of the oracle is long enough (20 characters) to be told from chance"
        )
    held = [a for a in answers for v in os.environ.values() if a in v]
    if held:
        raise Failed(f"an environment variable holds {held[0][:60]!r}")
    return f"{len(answers)} answers looked for in {len(os.environ)} variables"
