"""What this machine has too little of, in a sentence: memory, or room on a disk."""

from __future__ import annotations

import errno
import resource
import shutil
from pathlib import Path

from experience.errors import XpError

_GIB = 2**30
_RAY_BYTES = 32 * _GIB
"""Address space that Ray's processes reserve, most of it never used."""
_LOW_WATER_BYTES = 64 << 20
"""Where less is free, a journal acknowledges nothing more."""


def check_memory(workers: int) -> None:
    """Raises XpError where a limit on this process's address space would end Ray's in ways that do not say so."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if workers and limit != resource.RLIM_INFINITY and limit < _RAY_BYTES:
        raise XpError(
            f"this shell allows {limit / _GIB:.1f} GiB of address space (ulimit -v), and Ray reserves more "
            f"than {_RAY_BYTES // _GIB}",
            "ulimit -v unlimited, or workers=0, which runs without Ray",
        )


def is_full(folder: Path) -> bool:
    """Whether the disk under `folder` has too little room for a run to go on."""
    return shutil.disk_usage(folder).free < _LOW_WATER_BYTES


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
