"""The store that a collection or an evaluation writes to: a run directory that grows with calls."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from actors.config.changes import Change, changes
from actors.config.schema import Config
from actors.config.section import absolute
from actors.runs.directory import RunDirectory
from actors.runs.finding import find_run, is_run_name
from experience.errors import ConfigError

_FIXED = re.compile(r"seed|collecting\.group_size|worlds\[.*\](\.(arguments|rewards).*|\.groups)?")
"""Keys that say which tasks are lived, in which world, and what they earn."""


def open_store(to: str, verb: str, config: Config, origins: dict[str, str]) -> RunDirectory:
    """The store `to`, held by this process; made where there is none.

    to: a name in `runs_dir`, or a path. verb: what the store is for. Raises ConfigError where the
    name is that of something else, or the store was made for other tasks.
    """
    path = _path(to, config)
    if not (path / "run.json").exists():
        directory = RunDirectory.create(config, origins, sys.argv[1:], path)
        directory.hold()
        directory.write_record(verb=verb)
        return directory
    directory = RunDirectory(find_run(str(path), config.runs_dir))
    if directory.record.get("verb") != verb:
        raise ConfigError(
            f"{directory.path} was not made by ./xp {verb}", "choose another name: --to NAME"
        )
    _refuse_others(directory, config)
    directory.begin_again(seconds=float(directory.record.get("seconds") or 0.0))
    return directory


def _path(to: str, config: Config) -> Path:
    if is_run_name(to) and to != "latest":
        return absolute(config.runs_dir) / to
    if "/" not in to:
        raise ConfigError(
            f"--to {to}: not the name of a run", "use letters, digits, '-', '_' and '.'"
        )
    return absolute(to)


def _refuse_others(directory: RunDirectory, config: Config) -> None:
    """Raises ConfigError where `config` asks for other tasks than the store holds."""
    found = changes(directory.config().model_dump(), config.model_dump())
    wrong: list[Change] = [change for change in found if _FIXED.fullmatch(change.key)]
    if wrong:
        listed = "\n".join(f"  {change}" for change in wrong)
        raise ConfigError(
            f"{directory.path} holds other tasks than this configuration asks for:\n{listed}",
            "put the old values back, or choose another store: --to NAME",
        )
