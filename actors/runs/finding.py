"""Finds a run by what a user calls it."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from actors.config.section import absolute
from actors.runs.trust import checked
from experience.errors import ConfigError, ShardError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")


def is_run_name(name: str) -> bool:
    """Whether `name` can name a folder in the folder of runs, and leads nowhere else."""
    return bool(_PLAIN_NAME.fullmatch(name))


def find_run(name: str, runs_dir: str) -> Path:
    """The checked path of the run `name`: a path, a folder's name or its beginning, or `latest`.

    Raises ConfigError where no run or several runs are meant, ShardError for a run that leads out
    of its own directory.
    """
    for candidate in (absolute(name), absolute(runs_dir) / name):
        if (candidate / "run.json").exists():
            return checked(_behind_link(candidate))
    found = _beginning_with(name, Path(runs_dir)) if is_run_name(name) else []
    if len(found) == 1:
        return checked(found[0])
    if found:
        raise ConfigError(
            f"{name!r} begins {len(found)} runs", f"one of: {', '.join(p.name for p in found)}"
        )
    known = sorted(p.parent.name for p in Path(runs_dir).glob("*/run.json"))
    raise ConfigError(
        f"no run {name!r}", f"known: {', '.join(known[-5:]) or 'none yet; ./xp demo makes one'}"
    )


def _behind_link(candidate: Path) -> Path:
    """The run that a link leads to. `latest` may lead to a run beside it only.

    A user who says `latest` means a run of this folder. Another link was named on purpose.
    """
    path = candidate.resolve() if candidate.is_symlink() else candidate
    if candidate.name == "latest" and path.parent.resolve() != candidate.parent.resolve():
        raise ShardError(
            f"{candidate} leads to {path}, outside {candidate.parent}", "name the run itself"
        )
    return path


def _beginning_with(name: str, runs: Path) -> list[Path]:
    records = runs.glob(f"{glob.escape(name)}*/run.json")
    return sorted(p.parent for p in records if not p.parent.is_symlink())
