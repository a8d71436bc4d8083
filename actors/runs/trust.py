"""Reads files that may come from a stranger: links checked, sizes bounded, JSON strict.

A run directory may be a download, and a resume writes into it. Nothing here follows a link out of
the directory, waits for a pipe or reads a file without a limit.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from experience.errors import ShardError

_MAX_BYTES = 256 << 20


def checked(path: Path) -> Path:
    """`path`, whose tree holds only files and folders of its own.

    Raises ShardError for a link that leads out of the tree, and for a pipe or device, which would
    block a reader.
    """
    inside = path.resolve()
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            _check_entry(Path(folder) / name, inside)
    return path


def _check_entry(entry: Path, inside: Path) -> None:
    mode = entry.lstat().st_mode
    if stat.S_ISLNK(mode):
        if not entry.resolve().is_relative_to(inside):
            raise ShardError(
                f"{entry} is a link that leads out of the run directory",
                "put what it leads to in its place, if you trust it",
            )
        return
    # A socket is let pass: opening one fails at once, so that it blocks no reader.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
        raise ShardError(f"{entry} is neither a file nor a folder", "remove it")


def read_bounded(path: Path) -> bytes:
    """The bytes of a regular file of at most 256 MiB. Raises ShardError for any other file."""
    try:
        # Without O_NONBLOCK, opening a pipe that stands in place of the file would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ShardError(f"{path} is no file", "remove it")
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ShardError(
            f"{path} cannot be read: {error.strerror}", "restore it from a copy"
        ) from error
    if len(data) > _MAX_BYTES:
        raise ShardError(f"{path} has more than {_MAX_BYTES >> 20} MiB", "restore it from a copy")
    return data


def read_json(data: bytes, place: str) -> Any:
    """The value that `data` holds as JSON. Raises ShardError, which names `place`, for other bytes.

    NaN and infinity, which are no JSON, are read as None, an unknown value.
    """
    try:
        return json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{place}: not JSON: {error}", "restore it from a copy") from None
