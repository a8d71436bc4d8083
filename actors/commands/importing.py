"""A run made of another project's data."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from actors.runs.directory import RunDirectory
from actors.runs.finding import is_run_name
from actors.runs.writing import draft_folder
from experience.errors import ConfigError
from experience.shards.exchange import Exchanged, import_from


def import_as_run(source: Path, form: str, runs: Path, name: str) -> Exchanged:
    """Writes the run `name` into the folder `runs` from `source`; returns counts of what came in.

    The directory appears whole or not at all. Raises ConfigError where the name is no run's name
    or is taken, and what `import_from` raises for a source that cannot be read.
    """
    if not is_run_name(name):
        raise ConfigError(
            f"--name {name}: not the name of a run", "use letters, digits, '-', '_' and '.'"
        )
    path = runs / name
    if path.exists():
        raise ConfigError(f"{path} exists already", "choose another --name")
    with draft_folder(path) as draft:
        done = import_from(source, form, draft / "shards")
        RunDirectory(draft).write_record(
            status="imported",
            exit=0,
            argv=sys.argv[1:],
            started=time.time(),
            acked_steps=done.rows,
            episodes=done.episodes,
        )
    return done
