"""Verbs that start a run: demo, run, resume, submit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from actors import ROOT
from actors.cli.verbs import (
    Files,
    Overrides,
    RunName,
    Trusted,
    Verbs,
    dump_config,
    load_config,
)
from experience.command.output import emit

app = Verbs()

RunJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="JSON Lines on stdout: kind progress (at each phase and every "
        "ten seconds), then one of kind result or error",
    ),
]

Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        help="send the metrics there too: tensorboard, wandb, mlflow, trackio or prometheus; "
        "may be given again",
    ),
]


@app.command()
def demo(overrides: Overrides = None, as_json: RunJson = False) -> None:
    """Three worlds, a small model, Ray: collect, learn, improve, report. 8 minutes on 2 cores."""
    from actors.commands.launch import Launch

    with Launch(as_json) as launch:
        launch.start(*load_config([ROOT / "configs/demo.yaml"], overrides))


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
    log: Log = None,
) -> None:
    """A run as a configuration says."""
    from actors.commands.launch import Launch

    words = [*(overrides or []), *([f"budget.steps={limit}"] if limit is not None else [])]
    # Within Launch: with --json, a configuration that is refused is a record on stdout too.
    with Launch(as_json) as launch:
        checked, origins = load_config(config, words)
        if not dry_run:
            launch.start(checked, origins, trusted, log or ())
            return
        from actors.worlds import check_worlds

        check_worlds(checked)
        emit(dump_config(checked), end="")


@app.command()
def resume(
    name: RunName = "latest", as_json: RunJson = False, trusted: Trusted = False, log: Log = None
) -> None:
    """Continues a run from its directory: the acknowledged steps and the last checkpoint."""
    from actors.commands.launch import Launch

    with Launch(as_json) as launch:
        launch.resume(name, trusted, log or ())


@app.command()
def submit(
    overrides: Overrides = None,
    config: Files = None,
    trusted: Trusted = False,
    address: Annotated[
        str | None, typer.Option(help="of the cluster's dashboard; else RAY_ADDRESS")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait")] = True,
    log: Log = None,
) -> None:
    """`ray job submit` of a run, checked first: the configuration, and what would be uploaded."""
    from actors.commands.submit import submit_job

    words = overrides or []
    # Here, where the user looks: on the cluster the same mistake is found minutes later.
    load_config(config, words)
    trust = ["--i-trust-this-code"] if trusted else []
    files = [word for file in config or [] for word in ("-c", str(file))]
    logs = [word for name in log or [] for word in ("--log", name)]
    sys.exit(submit_job([*trust, *logs, *files, *words], address, wait))
