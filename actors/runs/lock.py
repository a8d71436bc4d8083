"""The lock of a run: one process at a time runs it.

The kernel drops the lock with the process that holds it, however the process ends. A run that is
marked as running and is not locked was therefore interrupted.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from experience.errors import ConfigError

_NAME = ".running"
_held: dict[str, int] = {}
"""Path of a run -> descriptor of its lock, which stays open until this process ends."""


def take_lock(run: Path) -> None:
    """Takes the run for this process until the process ends.

    Raises ConfigError if another process has the run. On a file system without locks nothing is
    held and nobody is refused.
    """
    descriptor = os.open(run / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"{run.name} is running in another process", "end that one first, or wait"
        ) from None
    except OSError:
        os.close(descriptor)
        return
    _held[str(run.resolve())] = descriptor


def is_locked(run: Path) -> bool | None:
    """Whether a live process runs it. None where the file system cannot tell."""
    try:
        descriptor = os.open(run / _NAME, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False  # no process has begun the run here, or the run was copied here
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
