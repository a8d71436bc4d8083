"""The command: verbs and exit codes. Everything heavy is imported by the verb that needs it.

stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 usage or configuration, 4 integrity, 5 isolation
refused, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors import ROOT
from actors.cli import env as env_cli
from actors.cli.verbs import Verbs
from actors.output import emit, guard, say
from actors.running.machine import shortage
from experience.errors import ConfigError, XpError
from experience.interrupts import install, leave
from experience.strict_json import dumps

if TYPE_CHECKING:
    from actors.config.schema import Config

app = Verbs(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Agents act, everything is kept, a learner improves, agents get better.",
)
config_app = Verbs(
    no_args_is_help=True, help="Configuration: show, check, explain.", rich_markup_mode=None
)
app.add_typer(env_cli.app, name="env")
app.add_typer(config_app, name="config")

Files = Annotated[
    list[Path] | None, typer.Option("-c", "--config", help="a YAML file; later ones win")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, e.g. workers=4 (a .yaml file also works)")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON record a line on stdout")]
RunJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="JSON Lines on stdout: kind progress (at each phase and every "
        "ten seconds), then one of kind result or error",
    ),
]
Trusted = Annotated[
    bool, typer.Option("--i-trust-this-code", help="sandbox.min_tier: none is meant")
]
RunName = Annotated[
    str, typer.Argument(help="a run's name, the beginning of one, a path, or latest")
]


def main() -> None:
    """Runs the command; errors that a user can mend end it with their message and exit code."""
    install()  # both signals unwind, so that journals are sealed
    guard()
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning")
    try:
        _call()
    except SystemExit as end:
        leave(end.code)


def _call() -> None:
    try:
        app(prog_name="xp")
    except XpError as error:
        _end_with(error)
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        told = shortage(error)
        if told is None:
            raise
        _end_with(told)
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", ()):  # else a run has said how to go on
            say("interrupted")
        sys.exit(130)


def _end_with(error: XpError) -> None:
    text = str(error)
    say(text if text.startswith("error:") else f"error: {text}")
    sys.exit(error.exit_code)


def _here_or_ours(file: Path) -> Path:
    """A file that is not here may be one of the checkout's: configs/local.yaml means the same in every folder."""
    ours = ROOT / file
    return ours if not file.exists() and ours.is_file() else file


def _load(files: list[Path] | None, words: list[str] | None) -> tuple[Config, dict[str, str]]:
    from actors.config.schema import load

    words = words or []
    named = [Path(w) for w in words if "=" not in w and w.endswith((".yaml", ".yml"))]
    return load(
        [_here_or_ours(file) for file in [*(files or []), *named]],
        [w for w in words if Path(w) not in named],
    )


@app.command()
def demo(overrides: Overrides = None, as_json: RunJson = False) -> None:
    """Three worlds, a small model, Ray: collect, learn, improve, and a report. About 8 minutes on 2 cores."""
    from actors.cli.launch import Launch

    with Launch(as_json) as launch:
        launch.start(*_load([ROOT / "configs/demo.yaml"], overrides))


@app.command()
def run(
    overrides: Overrides = None,
    config: Files = None,
    as_json: RunJson = False,
    trusted: Trusted = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, start nothing")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            help="stop after exactly this many real steps of training "
            "episodes; what experts show, the random baseline, held-out "
            "evaluation and what is imagined do not count",
        ),
    ] = None,
) -> None:
    """A run as a configuration says."""
    from actors.cli.launch import Launch

    words = [*(overrides or []), *([f"budget.steps={limit}"] if limit is not None else [])]
    with Launch(as_json) as launch:
        checked, origins = _load(config, words)
        if not dry_run:
            launch.start(checked, origins, trusted)
            return
        from actors.worlds import check_worlds

        check_worlds(checked)
        emit(_dump(checked), end="")


@app.command()
def resume(name: RunName = "latest", as_json: RunJson = False, trusted: Trusted = False) -> None:
    """Goes on with a run from what its directory holds: acknowledged steps and the last checkpoint."""
    from actors.cli.launch import Launch

    with Launch(as_json) as launch:
        launch.resume(name, trusted)


@app.command()
def submit(
    overrides: Overrides = None,
    config: Files = None,
    trusted: Trusted = False,
    address: Annotated[
        str | None, typer.Option(help="of the cluster's dashboard; else RAY_ADDRESS")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait")] = True,
) -> None:
    """`ray job submit` of a run, checked first: the configuration, and what would be uploaded."""
    from actors.cli.submit import submit_job

    words = overrides or []
    _load(config, words)
    files = [str(f) for f in config or []]
    said = ["--i-trust-this-code"] * trusted
    sys.exit(submit_job([*said, *(a for f in files for a in ("-c", f)), *words], address, wait))


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
def verify(
    name: RunName = "latest",
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="also SHA-256 of whole shards, every value")
    ] = False,
) -> None:
    """Checksums, gaps, doubled rows, schema, manifests: what is wrong and can be mended. Exit 4 if anything is."""
    from actors.runs.directory import RunDirectory
    from experience.shards.verify import verify_run

    directory = RunDirectory.find(name)
    found = verify_run(directory.path, deep=deep)
    for problem in found.problems:
        emit(
            vars(problem)
            if as_json
            else f"{problem.where}: {problem.what}\n  {'can be mended: ' if problem.repairable else ''}{problem.remedy}"
        )
    summary = {
        "run": directory.name,
        "segments": found.segments,
        "rows": found.rows,
        "bytes": found.bytes,
        "problems": len(found.problems),
    }
    emit(
        summary
        if as_json
        else f"{directory.name}: {found.segments} segments, {found.rows} rows, {found.bytes / 1e6:.1f} MB: "
        + (f"{len(found.problems)} problems" if found.problems else "nothing is wrong")
    )
    sys.exit(4 if found.problems else 0)


@app.command()
def compact(
    name: RunName,
    to: Annotated[str, typer.Option(help="parquet or lance")] = "parquet",
    keep_days: Annotated[
        float | None, typer.Option(help="let go of older rows; default: none")
    ] = None,
    as_json: Json = False,
) -> None:
    """Moves a run's sealed shards into the cold tier: smaller, sorted, and read together with the new ones."""
    from actors.runs.directory import RunDirectory
    from experience.shards.cold.tier import compact as compact_store
    from experience.shards.forget import drop_orphans

    if to not in ("parquet", "lance"):
        raise ConfigError(f"--to {to}: no such format", "choose parquet or lance")
    before = 0 if keep_days is None else time.time_ns() - int(keep_days * 86_400e9)
    directory = RunDirectory.find(name)
    done = compact_store(directory.shards, to, let_go_before_ns=before)  # type: ignore[arg-type]
    imagined = drop_orphans(directory.path) if keep_days is not None else 0
    emit(
        {"run": directory.name, **vars(done), "imagined_let_go": imagined}
        if as_json
        else f"{directory.name}: {done.shards} shards, {done.rows} rows, {done.bytes_before / 1e6:.1f} MB are now "
        f"{done.bytes_after / 1e6:.1f} MB of {to}; {done.rows_let_go} rows and {done.blobs_dropped} blobs let go"
        + (f", {imagined} imagined rows with them" if imagined else "")
        + (
            f"; {done.files_waiting} old files go with the next compaction"
            if done.files_waiting
            else ""
        )
    )


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
    """Deletes a stream, what is about a subject, or (without either) the whole run, from disk too."""
    from actors.cli.forgetting import forget_rows, forget_run
    from actors.runs.directory import RunDirectory

    directory = RunDirectory.find(name)
    if stream or subject is not None:
        said = forget_rows(directory, stream or [], subject, yes, seal)
    else:
        said = forget_run(directory, yes, seal)
    emit(said if as_json else "\n".join(f"{k}: {v}" for k, v in said.items()))
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
    """A run's rows in the formats of others, as amended. What each keeps stands in docs/exchange.md."""
    from actors.config.schema import absolute
    from actors.runs.directory import RunDirectory
    from experience.shards.exchange import export

    out = absolute(out)
    _say_exchanged(
        export(RunDirectory.find(name).shards, to, out, as_written=as_written), str(out), as_json
    )


@app.command("import")
def import_run(
    source: Annotated[Path, typer.Argument(help="a file or folder")],
    of: Annotated[str, typer.Option("--from", help="jsonl, atif or minari")],
    name: Annotated[str, typer.Option(help="the new run's name")] = "imported",
    as_json: Json = False,
    runs_dir: str = "runs",
) -> None:
    """A new run that holds the experience of others, to be read, queried and exported like any."""
    from actors.config.schema import absolute
    from actors.runs.directory import RunDirectory, is_run_name
    from experience.shards.exchange import import_from

    if not is_run_name(name):
        raise ConfigError(
            f"--name {name}: not the name of a run", "use letters, digits, '-', '_' and '.'"
        )
    path = absolute(runs_dir) / name
    if path.exists():
        raise ConfigError(f"{path} exists already", "choose another --name")
    with RunDirectory.draft(path) as draft:
        done = import_from(absolute(source), of, draft / "shards")
        RunDirectory(draft).write_record(
            status="imported",
            exit=0,
            argv=sys.argv[1:],
            started=time.time(),
            acked_steps=done.rows,
            episodes=done.episodes,
        )
    _say_exchanged(done, str(path), as_json)


def _say_exchanged(done: Any, where: str, as_json: bool) -> None:
    emit(
        {"path": where, **vars(done)}
        if as_json
        else f"{where}: {done.rows} rows"
        + (f", {done.episodes} episodes" if done.episodes else "")
        + (
            f"; {done.left_out} episodes without a last observation left out"
            if done.left_out
            else ""
        )
        + "".join(f"\n  {note}" for note in done.notes)
    )


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
    """SQL (DuckDB) over a run's rows, those of a segment still being written included; signals are columns
    "signal.NAME"."""
    from actors.reading.query import run_query
    from actors.runs.directory import RunDirectory

    directory = RunDirectory.find(name)
    run_query(
        {"steps": directory.shards, "imagined": directory.path / "imagined"},
        sql,
        as_json,
        checked=not unchecked,
    )


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="store, worlds, browser or planning")],
    as_json: Json = False,
    rows: Annotated[int, typer.Option(help="store: how many rows of about 4 KB")] = 20_000,
    rounds: Annotated[int, typer.Option(help="store: interleaved rounds")] = 5,
    plot: Annotated[
        Path | None, typer.Option(help="store: where to draw the ratios, e.g. store.png")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="planning: one part, e.g. dyna, options, science")
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="worlds: into docs/environments.md; planning: into "
            "benchmarks/planning/results.json",
        ),
    ] = False,
) -> None:
    """The store against its peers, every world in a table, the browser against BrowserGym, or what planning is worth.
    Minutes, with nothing else running. Exit code 1: a goal of planning or of the browser was missed."""
    from actors.cli.bench import measure

    sys.exit(measure(what, as_json, rows, rounds, plot, only, write))


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    long: Annotated[bool, typer.Option("--long", help="the long ones too")] = False,
    extras: Annotated[
        str, typer.Option(help="those skipped until ./xp setup worlds, wiki, peers")
    ] = "",
) -> None:
    """Style, types and every test. Further words go to pytest."""
    from actors.cli.selftest import run_all

    sys.exit(run_all(long, extras, context.args))


@app.command("setup")
def set_up(what: Annotated[str, typer.Argument(help="worlds, wiki or peers")] = "worlds") -> None:
    """What the demo does not need, by ./xp itself: worlds, wiki or peers."""
    raise ConfigError(f"setup {what} is done by ./xp", f"{ROOT}/xp setup {what}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has for xp, one line each, with the fix beside what is missing."""
    from actors.cli.doctor import examine

    findings = list(examine())
    for finding in findings:
        if as_json:
            emit(vars(finding))
        else:
            emit(
                f"{'ok  ' if finding.ok else 'MISS'} {finding.part:<10} {finding.found}"
                + (f"\n     fix: {finding.fix}" if finding.fix and not finding.ok else "")
            )
    sys.exit(0 if all(f.ok or f.optional for f in findings) else 1)


@config_app.command("show")
def config_show(overrides: Overrides = None, config: Files = None) -> None:
    """The resolved configuration, as YAML."""
    emit(_dump(_load(config, overrides)[0]), end="")


@config_app.command("check")
def config_check(files: list[Path]) -> None:
    """Checks files; says every mistake with its place. No world is made, and no package but ours imported."""
    from actors.worlds import check_ids

    for file in files:
        check_ids(_load([file], None)[0], bundled_only=True)
        say(f"{file}: ok")


@config_app.command("explain")
def config_explain(
    key: Annotated[
        str,
        typer.Argument(help="a key, or a section such as learning or worlds; all of them if empty"),
    ] = "",
    overrides: Overrides = None,
    config: Files = None,
) -> None:
    """What a key means, what it takes, its value, and what set it; of a section, all its keys."""
    from actors.config.explain import explained

    if "=" in key or key.endswith((".yaml", ".yml")):  # no key was named
        key, overrides = "", [key, *(overrides or [])]
    checked, origins = _load(config, overrides)
    for paragraph in explained(key, checked, origins):
        emit(paragraph)


@config_app.command("schema")
def config_schema() -> None:
    """The JSON schema, for completion in editors."""
    from actors.config.schema import Config

    emit(dumps(Config.model_json_schema(), indent=1))


def _dump(config: Config) -> str:
    from actors.config.schema import dump

    return dump(config)
