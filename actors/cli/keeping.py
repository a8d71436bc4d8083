"""Verbs that keep a store in order: verify, compact, forget, export, import."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.verbs import Json, RunName, Verbs
from experience.command.output import emit, say
from experience.errors import ConfigError

if TYPE_CHECKING:
    from experience.shards.verify import Problem

app = Verbs()


@app.command()
def verify(
    name: RunName = "latest",
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="also SHA-256 of whole shards, every value")
    ] = False,
) -> None:
    """Checks checksums, gaps, doubled rows, schema, manifests. Exit code 4 if anything is wrong."""
    from actors.runs.directory import RunDirectory
    from experience.shards.verify import verify_run

    directory = RunDirectory.find(name)
    found = verify_run(directory.path, deep=deep)
    for problem in found.problems:
        emit(vars(problem) if as_json else _problem_in_words(problem))
    if as_json:
        emit(
            {
                "run": directory.name,
                "segments": found.segments,
                "rows": found.rows,
                "bytes": found.bytes,
                "problems": len(found.problems),
            }
        )
    else:
        verdict = f"{len(found.problems)} problems" if found.problems else "nothing is wrong"
        emit(
            f"{directory.name}: {found.segments} segments, {found.rows} rows, "
            f"{found.bytes / 1e6:.1f} MB: {verdict}"
        )
    sys.exit(4 if found.problems else 0)


def _problem_in_words(problem: Problem) -> str:
    prefix = "can be mended: " if problem.repairable else ""
    return f"{problem.where}: {problem.what}\n  {prefix}{problem.remedy}"


@app.command()
def compact(
    name: RunName,
    to: Annotated[str, typer.Option(help="parquet or lance")] = "parquet",
    keep_days: Annotated[
        float | None, typer.Option(help="remove older rows; default: none")
    ] = None,
    as_json: Json = False,
) -> None:
    """Moves sealed shards into the cold tier: smaller, sorted, read together with the new ones."""
    from actors.runs.directory import RunDirectory
    from experience.shards.cold.compaction import compact as compact_store
    from experience.shards.forget import drop_orphans

    if to not in ("parquet", "lance"):
        raise ConfigError(f"--to {to}: no such format", "choose parquet or lance")
    before = 0 if keep_days is None else time.time_ns() - int(keep_days * 86_400e9)
    directory = RunDirectory.find(name)
    done = compact_store(directory.shards, to, expire_before_ns=before)  # type: ignore[arg-type]
    # Imagined steps branch from real ones: without these they tell of nothing.
    imagined = drop_orphans(directory.path) if keep_days is not None else 0
    if as_json:
        emit({"run": directory.name, **vars(done), "imagined_removed": imagined})
    else:
        emit(f"{directory.name}: {_compaction_in_words(done, to, imagined)}")


def _compaction_in_words(done: Any, to: str, imagined: int) -> str:
    text = (
        f"{done.shards} shards, {done.rows} rows, {done.bytes_before / 1e6:.1f} MB are now "
        f"{done.bytes_after / 1e6:.1f} MB of {to}; "
        f"{done.rows_removed} rows and {done.blobs_dropped} blobs removed"
    )
    if imagined:
        text += f", {imagined} imagined rows with them"
    if done.files_waiting:
        text += f"; {done.files_waiting} old files go with the next compaction"
    return text


@app.command()
def forget(
    name: RunName,
    stream: Annotated[
        list[str] | None, typer.Option(help="its id in hexadecimal; may be given again")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="all rows about this one")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="do it; without, only say what would go")
    ] = False,
    seal: Annotated[
        bool, typer.Option("--seal", help="the run was killed: close what it left open")
    ] = False,
    as_json: Json = False,
) -> None:
    """Deletes from disk a stream, all rows about a subject, or (without either) the whole run."""
    from actors.commands.forgetting import forget_rows, forget_run
    from actors.runs.directory import RunDirectory

    directory = RunDirectory.find(name)
    if stream or subject is not None:
        report = forget_rows(directory, stream or [], subject, yes, seal)
    else:
        report = forget_run(directory, yes, seal)
    emit(report if as_json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    if not yes:
        say("nothing was changed; add --yes to delete it for good")


@app.command("export")
def export_run(
    name: RunName,
    to: Annotated[str, typer.Option(help="jsonl, atif, parquet, hf, minari or lerobot")],
    out: Annotated[Path, typer.Option(help="a new folder")],
    as_json: Json = False,
    as_written: Annotated[bool, typer.Option("--as-written", help="without amendments")] = False,
) -> None:
    """A run's rows, as amended, in another project's format. docs/exchange.md: what each keeps."""
    from actors.config.section import absolute
    from actors.runs.directory import RunDirectory
    from experience.shards.exchange import export

    out = absolute(out)
    done = export(RunDirectory.find(name).shards, to, out, as_written=as_written)
    _emit_exchanged(done, str(out), as_json)


@app.command("import")
def import_run(
    source: Annotated[Path, typer.Argument(help="a file or folder")],
    of: Annotated[str, typer.Option("--from", help="jsonl, atif or minari")],
    name: Annotated[str, typer.Option(help="the new run's name")] = "imported",
    as_json: Json = False,
    runs_dir: str = "runs",
) -> None:
    """A new run made of another project's data, to be read, queried and exported like any run."""
    from actors.commands.importing import import_as_run
    from actors.config.section import absolute

    done = import_as_run(absolute(source), of, absolute(runs_dir), name)
    _emit_exchanged(done, str(absolute(runs_dir) / name), as_json)


def _emit_exchanged(done: Any, where: str, as_json: bool) -> None:
    if as_json:
        emit({"path": where, **vars(done)})
        return
    text = f"{where}: {done.rows} rows"
    if done.episodes:
        text += f", {done.episodes} episodes"
    if done.left_out:
        text += f"; {done.left_out} episodes without a last observation left out"
    emit("\n  ".join([text, *done.notes]))
