"""`xp view`: which runs are shown, and where: on loopback, or in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.config.section import absolute
from actors.reading.viewer.shelf.shelf import Shelf
from actors.runs.directory import RunDirectory
from actors.runs.finding import find_run
from experience.command.output import emit
from experience.errors import ConfigError


def shelf_of(names: Sequence[str], runs_dir: str) -> Shelf:
    """The runs that a user named, or all of the folder. Raises ConfigError if there are none."""
    if not names:
        return Shelf(absolute(runs_dir))
    named: dict[str, RunDirectory] = {}
    for name in names:
        run = RunDirectory(find_run(name, runs_dir))
        if named.setdefault(run.name, run).path != run.path:
            raise ConfigError(f"two runs are called {run.name}", "view their folders one by one")
    return Shelf(absolute(runs_dir), named)


def view(names: Sequence[str], runs_dir: str, port: int, as_json: bool) -> None:
    """Serves until interrupted, and says where. With one run named, the address leads to it."""
    from actors.reading.viewer.serving.server import serve, tell

    shelf = shelf_of(names, runs_dir)
    runs = shelf.directories()
    start = f"/run/{runs[0].name}" if len(names) == 1 else "/"

    def opened(address: str) -> None:
        if as_json:
            emit({"event": "serving", "address": address, "runs": len(runs)})
        else:
            tell(address)

    serve(shelf, port, start, opened)


def export(
    names: Sequence[str], runs_dir: str, path: Path, episodes: Sequence[str], as_json: bool
) -> None:
    """Writes one run as one HTML file, and says what it holds."""
    from actors.reading.viewer.serving.export import write_export

    if len(names) > 1:
        raise ConfigError("one file holds one run", "name one run, and export the others after it")
    shelf = shelf_of(names or ["latest"], runs_dir)
    written = write_export(shelf, shelf.directories()[0].name, path, episodes)
    if as_json:
        emit({"event": "exported", **written})
    else:
        emit(
            f"{path}: {written['episodes']} of {written['of']} episodes, "
            f"{written['pictures']} pictures, {written['bytes'] / 1e6:.1f} MB"
        )
