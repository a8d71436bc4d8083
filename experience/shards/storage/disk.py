"""All calls of the store to the operating system, so that a test can cut the power or fail any.

A descriptor is opened to be written to; reading goes by path. Every call may raise OSError.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError

Identity = tuple[int, ...]


class Disk:
    """The real disk. Contents survive power loss after `sync`.

    A name that was made, removed or changed survives after `sync_directory` of its directory.
    """

    manifest_comes_later = False
    """Whether a sealed shard may appear before its line in the manifest. Readers then skip it."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> int:
        """Creates an empty file. Raises FileExistsError if it exists: a fence is taken so."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def reopen(self, path: Path) -> int:
        """A file to go on with, at its end; made if missing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write_some(self, descriptor: int, data: memoryview) -> int:
        """Appends the head of `data`; returns how many bytes of it."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        # Data and size, not the times of the file, which would need a write of their own.
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        """A file, or a directory and all below it."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Takes an exclusive lock on `path`. Raises ShardError if another process holds it."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise ShardError(
                f"{path} is held by another process", "wait until it is done"
            ) from error
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path, start: int = 0, end: int | None = None) -> bytes:
        """Bytes [start, end), fewer where the file is shorter."""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # a damaged length must not reach the allocator
            stop = size if end is None else min(end, size)
            if start >= stop:
                return b""
            file.seek(start)
            return file.read(stop - start)

    def mapped(self, path: Path) -> pa.Buffer:
        """The whole file in memory; it stays readable when the name goes."""
        if self.size(path) == 0:
            return pa.py_buffer(b"")
        return pa.memory_map(str(path)).read_buffer()

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def identity(self, path: Path) -> Identity | None:
        """Numbers that differ once the file was written to or replaced; None if unknown.

        The second number is the time of the last change in nanoseconds.
        """
        found = path.stat()
        return (
            found.st_size,
            max(found.st_mtime_ns, found.st_ctime_ns),
            found.st_mtime_ns,
            found.st_ino,
            found.st_dev,
        )

    def exists(self, path: Path) -> bool:
        return path.exists()

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def directories(self, directory: Path) -> list[Path]:
        return sorted(p for p in directory.iterdir() if p.is_dir()) if directory.exists() else []

    def free_bytes(self, directory: Path) -> int:
        return shutil.disk_usage(directory).free

    def thread(self) -> Executor:
        """Who writes and syncs for one journal, one call after another, while its owner goes on."""
        return ThreadPoolExecutor(1, "journal")

    # What follows needs only what stands above.

    def write(self, descriptor: int, data: bytes) -> None:
        """Appends all of `data`, however many calls it takes."""
        view = memoryview(data)
        while view:
            view = view[self.write_some(descriptor, view) :]

    def write_file(self, path: Path, parts: Iterable[bytes]) -> None:
        """Writes a new file, and replaces what an earlier attempt left under its name.

        The contents are durable now; the name only after `sync_directory`.
        """
        if self.exists(path):
            self.remove(path)
        descriptor = self.create(path)
        try:
            for part in parts:
                self.write(descriptor, part)
            self.sync(descriptor)
        finally:
            self.close(descriptor)

    @contextmanager
    def appending(self, path: Path) -> Iterator[int]:
        """A descriptor at the end of `path`, closed afterwards whatever happens."""
        descriptor = self.reopen(path)
        try:
            yield descriptor
        finally:
            self.close(descriptor)


REAL = Disk()
