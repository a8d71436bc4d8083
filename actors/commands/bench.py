"""`xp bench`: which benchmark is run; what they measure stands in benchmarks/."""

from __future__ import annotations

import os
from pathlib import Path

from actors import ROOT
from actors.config.section import absolute
from experience.errors import ConfigError, MissingPartError


def measure(
    what: str,
    as_json: bool,
    rows: int,
    rounds: int,
    plot: Path | None,
    only: str | None,
    write: bool,
) -> int:
    """Gives the exit code: 1 where a goal was missed."""
    # Before the folder changes, which every relative path hangs on.
    plot = plot and absolute(plot)
    os.chdir(ROOT)  # whose pages and results the benchmarks write
    if what == "planning":
        from benchmarks.planning.bench import main as measure_planning

        return 0 if measure_planning(only, as_json, write) else 1
    if what == "methods":
        from benchmarks.methods.bench import main as measure_methods

        return 0 if measure_methods(only, as_json, write) else 1
    if what == "browser":
        from benchmarks.worlds.browser import main as measure_browser

        return 0 if measure_browser(as_json) else 1
    if what == "worlds":
        from benchmarks.worlds.table import main as measure_worlds

        measure_worlds(as_json, write, only)
        return 0
    if what == "viewer":
        from benchmarks.viewer.bench import main as measure_viewer

        return 0 if measure_viewer(as_json) else 1
    if what == "collecting":
        from benchmarks.collecting.bench import main as measure_collecting

        return 0 if measure_collecting(as_json) else 1
    if what != "store":
        raise ConfigError(
            f"no benchmark {what!r}",
            "there are: store, collecting, viewer, worlds, browser, planning, methods",
        )
    try:
        import datasets  # noqa: F401
        import lance  # noqa: F401
        import orjson  # noqa: F401
    except ImportError as error:
        raise MissingPartError(
            f"the peers are not installed: {error.name} is missing",
            ".venv/bin/uv pip install -p .venv -r benchmarks/store/requirements.txt",
        ) from error
    from benchmarks.store.bench import main as measure_store

    measure_store(as_json, rows, rounds, plot)
    return 0
