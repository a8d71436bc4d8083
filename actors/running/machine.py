"""Checks, before and during a run, that memory and disk suffice."""

from __future__ import annotations

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
    """Raises XpError where this process's limit on address space is too low for Ray.

    Ray's own processes would die of the limit without naming it.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if workers and limit != resource.RLIM_INFINITY and limit < _RAY_BYTES:
        raise XpError(
            f"this shell allows {limit / _GIB:.1f} GiB of address space (ulimit -v), "
            f"and Ray reserves more than {_RAY_BYTES // _GIB}",
            "ulimit -v unlimited, or workers=0, which runs without Ray",
        )


def is_full(folder: Path) -> bool:
    """Whether the disk under `folder` has too little room for a run to go on."""
    return shutil.disk_usage(folder).free < _LOW_WATER_BYTES
