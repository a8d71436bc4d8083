"""News of a run, as server-sent events: an event whenever a file of it changes.

An event names what changed, not what it is now: the page asks for what it shows. So a page that is
slow, or slept, misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from actors.runs.directory import RunDirectory
from experience.text.strict_json import dumps

LOOK_SECONDS = 0.4
_SILENT_LOOKS = 35
"""Looks without news until a comment is sent, so that a dead connection is noticed."""
Signs = dict[str, tuple[int, ...]]


async def news(
    directory: RunDirectory, is_gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    """Events `changed` with the names of what changed: record, metrics, episodes, imagined."""
    before = await asyncio.to_thread(signs, directory)
    yield _event(["hello"], directory)
    silent = 0
    while not await is_gone():
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(signs, directory)
        changed = [name for name, sign in now.items() if sign != before[name]]
        before = now
        silent = 0 if changed else silent + 1
        if changed:
            yield _event(changed, directory)
        elif silent >= _SILENT_LOOKS:
            silent = 0
            yield ": still here\n\n"


def _event(changed: list[str], directory: RunDirectory) -> str:
    return f"data: {dumps({'changed': changed, 'runs': bool(directory.is_held)})}\n\n"


def signs(directory: RunDirectory) -> Signs:
    """What tells that a file was written: its time and size; of a store, of each writer's files."""
    return {
        "record": (*_of_files(directory, ["run.json", ".running"]), bool(directory.is_held)),
        "metrics": _of_files(directory, ["metrics/metrics.jsonl", "metrics/phases.jsonl"]),
        "episodes": _of_store(directory, "shards"),
        "imagined": _of_store(directory, "imagined"),
    }


def _of_files(directory: RunDirectory, names: list[str]) -> tuple[int, ...]:
    found: list[int] = []
    for name in names:
        try:
            stat = (directory.path / name).stat()
        except OSError:
            continue
        found += [stat.st_mtime_ns, stat.st_size]
    return tuple(found)


def _of_store(directory: RunDirectory, name: str) -> tuple[int, ...]:
    """Sizes and numbers of the commit logs and shards: each commit changes one of them."""
    store = directory.path / name
    total = count = newest = 0
    for path in store.glob("*/*"):
        try:
            stat = path.lstat()
        except OSError:  # sealed and renamed meanwhile: the next look finds it
            continue
        total, count = total + stat.st_size, count + 1
        newest = max(newest, stat.st_mtime_ns)
    return total, count, newest
