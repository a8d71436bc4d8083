"""A disk in memory that records every call, can fail any of them, and can lose its power at any
instant.

What a power cut may leave is whatever was not synced, in any mixture: each 512-byte sector of each
unsynced write there or not (a gap reads as zeros), each unsynced change of a directory there or
not.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from experience.shards.storage.disk import Disk

SECTOR = 512


@dataclass(eq=False)
class Inode:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes written there), or (size, None) for a truncation."""


@dataclass
class Fault:
    """Fails the `at`-th call whose name is among `calls` (all if empty): once, or that one and all
    after it."""

    at: int
    number: int
    calls: frozenset[str] = frozenset()
    for_ever: bool = False
    short: bool = False
    """A write takes half of what it was given instead of failing."""
    seen: int = 0
    fired: int = 0

    def strikes(self, call: str) -> bool:
        if self.calls and call not in self.calls:
            return False
        self.seen += 1
        hit = self.seen == self.at or (self.for_ever and self.seen > self.at)
        self.fired += hit
        return hit


class _AsLateAsPossible(Future):  # type: ignore[type-arg]
    """Runs its call only when its result is asked for: whoever relies on it earlier is found out.
    It says that it is done when it is asked for the second time, so that work piles up behind it.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call, self._asked = call, 0

    def exception(self, timeout: float | None = None) -> BaseException | None:
        try:
            self._call()
        except Exception as error:  # noqa: BLE001  whatever it was is handed to who asks
            return error
        return None

    def done(self) -> bool:
        self._asked += 1
        return self._asked >= 2


class _SameThread(Executor):
    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return _AsLateAsPossible(lambda: call(*arguments, **named))


class SimulatedDisk(Disk):
    def __init__(self, files: dict[Path, bytes] | None = None, fault: Fault | None = None) -> None:
        self.names_now: dict[Path, Inode] = {
            p: Inode(bytearray(b), bytes(b)) for p, b in (files or {}).items()
        }
        self.initial = [(p, i, i.durable) for p, i in self.names_now.items()]
        self.fault = fault
        self.log: list[tuple[str, object, object]] = []
        self._open: dict[int, Inode] = {}
        self._next = 100

    def _call(self, name: str) -> None:
        if self.fault and not self.fault.short and self.fault.strikes(name):
            raise OSError(
                self.fault.number, f"injected {errno.errorcode[self.fault.number]} in {name}"
            )

    def _descriptor(self, inode: Inode) -> int:
        self._next += 1
        self._open[self._next] = inode
        return self._next

    def _new(self, path: Path) -> int:
        inode = self.names_now[path] = Inode()
        self.log.append(("name", path, inode))
        return self._descriptor(inode)

    def _find(self, path: Path) -> Inode:
        if path not in self.names_now:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self.names_now[path]

    def make_directory(self, path: Path) -> None: ...

    def create(self, path: Path) -> int:
        self._call("create")
        if path in self.names_now:
            raise FileExistsError(errno.EEXIST, "there is one", str(path))
        return self._new(path)

    def reopen(self, path: Path) -> int:
        self._call("reopen")
        return self._descriptor(self.names_now[path]) if path in self.names_now else self._new(path)

    def write_some(self, descriptor: int, data: memoryview) -> int:
        self._call("write")
        if self.fault and self.fault.short and len(data) > 1 and self.fault.strikes("write"):
            data = data[: len(data) // 2]
        inode = self._open[descriptor]
        self.log.append(("write", inode, (len(inode.data), bytes(data))))
        inode.data += data
        return len(data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._call("truncate")
        inode = self._open[descriptor]
        self.log.append(("write", inode, (size, None)))
        del inode.data[size:]

    def sync(self, descriptor: int) -> None:
        self._call("sync")
        self.log.append(("sync", self._open[descriptor], None))

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]  # a descriptor closed twice is a mistake: KeyError
        self._call("close")

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename")
        inode = self.names_now[new] = self._find(old)
        del self.names_now[old]
        self.log.append(("rename", old, (new, inode)))

    def remove(self, path: Path) -> None:
        self._call("remove")
        self._find(path)
        del self.names_now[path]
        self.log.append(("name", path, None))

    def remove_tree(self, path: Path) -> None:
        self.remove(path)

    @contextlib.contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        yield

    def sync_directory(self, path: Path) -> None:
        self._call("sync_directory")
        self.log.append(("sync_directory", path, None))

    def size(self, path: Path) -> int:
        return len(self._find(path).data)

    def identity(self, path: Path) -> None:
        """Unknown: nothing is remembered of a file."""
        self._find(path)

    def mapped(self, path: Path) -> pa.Buffer:
        return pa.py_buffer(self.read(path))

    def exists(self, path: Path) -> bool:
        return path in self.names_now

    def names(self, directory: Path) -> list[str]:
        self._call("names")
        return sorted(p.name for p in self.names_now if p.parent == directory)

    def directories(self, directory: Path) -> list[Path]:
        return sorted({p.parent for p in self.names_now if p.parent.parent == directory})

    def read(self, path: Path, start: int = 0, end: int | None = None) -> bytes:
        self._call("read")
        return bytes(self._find(path).data[start:end])

    def free_bytes(self, directory: Path) -> int:
        return 1 << 40

    def thread(self) -> Executor:
        return _SameThread()

    def files(self) -> dict[Path, bytes]:
        return {p: bytes(i.data) for p, i in self.names_now.items()}

    @property
    def open_descriptors(self) -> int:
        return len(self._open)


def power_cuts(
    disk: SimulatedDisk, per_instant: int, rng: random.Random
) -> Iterator[tuple[int, dict[Path, bytes]]]:
    """(instant, what the disk may hold if power fails right then), `per_instant` draws for every
    prefix of its log."""
    log = disk.log
    pending: list[tuple[str, Path, object]] = []
    inodes: dict[int, Inode] = {id(inode): Inode(durable=data) for _, inode, data in disk.initial}
    durable: dict[Path, Inode] = {path: inodes[id(inode)] for path, inode, _ in disk.initial}

    def shadow(inode: object) -> Inode:
        return inodes.setdefault(id(inode), Inode())

    for instant in range(len(log) + 1):
        for _ in range(per_instant):
            yield instant, _image(durable, pending, rng)
        if instant == len(log):
            return
        kind, what, how = log[instant]
        if kind == "name":
            pending.append(("name", what, None if how is None else shadow(how)))  # type: ignore[arg-type]
        elif kind == "rename":
            new, inode = how  # type: ignore[misc]
            pending.append(("rename", what, (new, shadow(inode))))  # type: ignore[arg-type]
        elif kind == "sync_directory":
            for change in pending:
                _rename(durable, change)
            pending.clear()
        elif kind == "write":
            shadow(what).pending.append(how)  # type: ignore[arg-type]
        elif kind == "sync":
            inode = shadow(what)
            inode.durable, inode.pending = _written(inode.durable, inode.pending), []


def _rename(names: dict[Path, Inode], change: tuple[str, Path, object]) -> None:
    kind, path, what = change
    if kind == "rename":  # of one file, whatever else has that name by then
        new, inode = what  # type: ignore[misc]
        if names.get(path) is inode:
            del names[path]
        names[new] = inode
    elif what is None:
        names.pop(path, None)
    else:
        names[path] = what  # type: ignore[assignment]


def _written(data: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    new = bytearray(data)
    for offset, piece in writes:
        if piece is None:
            del new[offset:]
            continue
        new += bytes(max(0, offset - len(new)))
        new[offset : offset + len(piece)] = piece
    return bytes(new)


def _image(
    durable: dict[Path, Inode], pending: list[tuple[str, Path, object]], rng: random.Random
) -> dict[Path, bytes]:
    names = dict(durable)
    order = rng.choice(("none", "prefix", "subset", "all"))
    until = rng.randint(0, len(pending))
    for i, change in enumerate(pending):
        if (
            order == "all"
            or (order == "prefix" and i < until)
            or (order == "subset" and rng.random() < 0.5)
        ):
            _rename(names, change)
    return {path: _torn(inode, rng) for path, inode in names.items()}


def _torn(inode: Inode, rng: random.Random) -> bytes:
    if not inode.pending:
        return inode.durable
    mode = rng.choice(("none", "all", "sectors", "zeros"))
    if mode == "none":
        return inode.durable
    if mode == "all":
        return _written(inode.durable, inode.pending)
    kept: list[tuple[int, bytes | None]] = []
    for offset, piece in inode.pending:
        if piece is None:
            kept += [(offset, None)] * (rng.random() < 0.5)
            continue
        start = offset
        while start < offset + len(piece):
            end = min((start // SECTOR + 1) * SECTOR, offset + len(piece))
            if mode == "sectors" and rng.random() < 0.5:
                kept.append((start, piece[start - offset : end - offset]))
            elif mode == "zeros":  # the size was kept, the data was not
                kept.append((start, bytes(end - start)))
            start = end
    return _written(inode.durable, kept)
