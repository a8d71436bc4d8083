"""Whole files held against their SHA-256: once a process, for as long as a file stays as it is.

A file counts as unchanged while its size, times, inode and device are the same. A file that changed
within the last two seconds is checked again, since a later change might have the same time. Damage
of the medium behind a checked file is not seen until the next process opens the file;
`./xp verify --deep` reads everything anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk, Identity

_SETTLED_NS = 2_000_000_000
_remembered: set[tuple[str, str, Identity]] = set()


@dataclass(frozen=True)
class Expected:
    """A file and what it must hold."""

    path: Path
    bytes: int
    sha256: str


def open_checked(expected: Expected, disk: Disk = REAL, *, checked: bool = True) -> pa.Buffer:
    """The file's bytes, mapped. Raises ShardError for other bytes than were written.

    Raises FileNotFoundError if the file is gone.

    With `checked` False only the size is held against what is known.
    """
    # Before the bytes: if the file changes in between, a later look finds another identity.
    identity = disk.identity(expected.path)
    buffer = disk.mapped(expected.path)
    if buffer.size != expected.bytes:
        raise ShardError(
            f"{expected.path} holds {buffer.size} bytes, {expected.bytes} expected",
            "restore the file from a copy",
        )
    key = None if identity is None else (str(expected.path.absolute()), expected.sha256, identity)
    if not checked or key in _remembered:
        return buffer
    if hashlib.sha256(memoryview(buffer)).hexdigest() != expected.sha256:
        raise ShardError(
            f"{expected.path} is damaged: its bytes differ from the SHA-256 that was noted",
            "restore the file from a copy; ./xp verify says which rows are readable",
        )
    if key is not None and identity is not None and time.time_ns() - identity[1] > _SETTLED_NS:
        _remembered.add(key)
    return buffer


def open_all(
    files: Sequence[Expected], disk: Disk = REAL, *, checked: bool = True
) -> list[pa.Buffer]:
    """The same for many, on all cores. Raises what the first that is wrong raises."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(lambda file: open_checked(file, disk, checked=checked), files))
