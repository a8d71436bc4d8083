"""The reserve: a file that takes room, which is given back when a full disk must still seal."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from experience.shards.storage.disk import Disk

_NAME = "RESERVE"
RESERVE_BYTES = 4 << 20
"""Room for the footer of a segment of many small blocks, and for a longer manifest."""


def is_full(error: OSError) -> bool:
    """Whether `error` says that the disk, or a quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """The reserve of one writer's directory."""

    def __init__(self, directory: Path, size: int, disk: Disk) -> None:
        self._directory, self._size, self._disk = directory, size, disk

    def keep(self) -> None:
        """Takes the room, unless it is taken already. Raises OSError if the disk is full."""
        if _NAME in self._disk.names(self._directory):
            return
        descriptor = self._disk.create(self._directory / _NAME)
        try:
            self._disk.write(descriptor, bytes(self._size))
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.remove(self._directory / _NAME)
            raise
        finally:
            self._disk.close(descriptor)

    def free(self) -> bool:
        """Gives the room to whatever must be written now; whether there was any.

        It is taken again with the next segment.
        """
        try:
            self._disk.remove(self._directory / _NAME)
        except FileNotFoundError:
            return False
        return True
