"""Verbs that read runs: ls, show, query, view."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.verbs import Json, RunName, Verbs
from experience.command.output import say

app = Verbs()


@app.command("ls")
def list_runs(as_json: Json = False, runs_dir: str = "runs") -> None:
    """The runs on this machine, newest last."""
    from actors.reading import listing

    for damaged in listing.list_runs(runs_dir, as_json):
        say(f"error: {damaged}")


@app.command()
def show(name: RunName = "latest", as_json: Json = False) -> None:
    """What a run did: counts and held-out returns read from its shards, and what failed."""
    from actors.reading import listing
    from actors.runs.directory import RunDirectory

    listing.show_run(RunDirectory.find(name), as_json)


@app.command()
def query(
    name: RunName,
    sql: Annotated[
        str,
        typer.Argument(
            help="over the tables steps, imagined and episodes, e.g. "
            "'select env_id, avg(reward) from steps group by all'"
        ),
    ],
    as_json: Json = False,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="do not hold sealed files against their SHA-256 first: faster, damage may be read",
        ),
    ] = False,
) -> None:
    """SQL (DuckDB) over a run's rows, those of a segment still being written included.

    Signals are columns "signal.NAME".
    """
    from actors.reading.query import run_query
    from actors.runs.directory import RunDirectory

    directory = RunDirectory.find(name)
    tables = {"steps": directory.shards, "imagined": directory.path / "imagined"}
    run_query(tables, sql, as_json, checked=not unchecked)


@app.command()
def view(
    names: Annotated[
        list[str] | None, typer.Argument(help="runs to show; default: all of the folder")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 7575,
    export: Annotated[
        Path | None, typer.Option(help="write one run as one HTML file instead of serving")
    ] = None,
    episode: Annotated[
        list[str] | None,
        typer.Option(help="with --export: an episode to hold; may be given again"),
    ] = None,
    runs_dir: str = "runs",
    as_json: Json = False,
) -> None:
    """Runs, episodes, groups, timelines in a browser, on this machine only."""
    # Arrow's own pools keep what a search has read; the system's gives it back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from actors.reading.viewer import view as viewing

    if export is not None:
        viewing.export(names or [], runs_dir, export, episode or [], as_json)
    else:
        viewing.view(names or [], runs_dir, port, as_json)
