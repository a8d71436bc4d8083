"""How a command ends: errors that a user can mend as a message, and exit codes.

0 done, 1 failed, 2 usage or configuration, 4 integrity, 5 isolation refused, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable

from experience.command.output import guard, say
from experience.errors import XpError
from experience.interrupts import install, leave

_GIB = 2**30


def run_command(command: Callable[[], None]) -> None:
    """Runs `command` with guarded output; an XpError ends it with its message and exit code."""
    install()  # both signals unwind, so that journals are sealed
    guard()
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning")
    try:
        _call(command)
    except SystemExit as end:
        leave(end.code)


def _call(command: Callable[[], None]) -> None:
    try:
        command()
    except XpError as error:
        _end_with(error)
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        in_words = shortage(error)
        if in_words is None:
            raise
        _end_with(in_words)
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", ()):  # else a run has said how to go on
            say("interrupted")
        sys.exit(130)


def _end_with(error: XpError) -> None:
    text = str(error)
    say(text if text.startswith("error:") else f"error: {text}")
    sys.exit(error.exit_code)


def shortage(error: BaseException) -> XpError | None:
    """The error in words, where memory or a disk ran out; None for any other."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return XpError(
            f"the disk is full: {error.filename or 'a file of the run'} could not be written",
            "make room, or set runs_dir to another disk; then: ./xp resume latest",
        )
    no_room = isinstance(error, OSError) and error.errno == errno.ENOMEM
    no_room |= isinstance(error, ImportError) and (
        "failed to map segment" in text or "Cannot allocate memory" in text
    )
    no_room |= isinstance(error, RuntimeError) and (
        "can't start new thread" in text or "can't allocate memory" in text
    )
    if isinstance(error, MemoryError) or no_room:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        allowed = (
            ""
            if limit == resource.RLIM_INFINITY
            else f"; this shell allows {limit / _GIB:.1f} GiB (ulimit -v)"
        )
        return XpError(
            f"there is not enough memory: {text or type(error).__name__}{allowed}",
            "ulimit -v unlimited, a smaller model, or fewer workers and collecting.slots",
        )
    return None
