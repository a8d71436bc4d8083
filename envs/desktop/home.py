"""The home folder of a desktop, read from outside its place while an agent's programs may run.

Covers: links (none is followed, at no component of a path), pipes and devices (only regular files
are read, and opening never waits), and large files. Does not cover: a file that is written while it
is read.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

_MOST_FILE_BYTES = 4 << 20
_MOST_ENTRIES = 1000
_MODIFIED_SECONDS = 1_700_000_000
"""The same time for all files, so that equal files make equal homes."""


def packed(files: Mapping[str, bytes]) -> bytes:
    """The files of a home (path -> bytes) as a tar; who unpacks the tar owns them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o644
            member.mtime = _MODIFIED_SECONDS
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Home:
    """The home folder at `path`. Paths are relative to it."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self, path: str) -> bytes | None:
        """The bytes of a regular file; None if there is none, or if it is larger than 4 MiB."""
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if descriptor is None:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_FILE_BYTES:
                return None
            return os.pread(descriptor, found.st_size, 0)
        finally:
            os.close(descriptor)

    def listing(self, path: str) -> dict[str, str] | None:
        """Name -> "file", "folder" or "other", for a folder's entries; None if there is none."""
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return None
        try:
            names = sorted(os.listdir(descriptor))[:_MOST_ENTRIES]
            return {name: _kind_of(name, descriptor) for name in names}
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> int | None:
        """A descriptor of what stands at `path`, or None.

        Opens one component after another, because O_NOFOLLOW holds for the last one only.
        """
        names = [part for part in PurePosixPath(path).parts if part not in (".", "/")]
        at = os.dup(self._descriptor)
        try:
            for number, name in enumerate(names, start=1):
                how = flags if number == len(names) else os.O_RDONLY | os.O_DIRECTORY
                below = os.open(name, how | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = below
        except OSError:
            os.close(at)
            return None
        return at


def _kind_of(name: str, folder: int) -> str:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"
