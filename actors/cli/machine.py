"""Verbs about this machine and this checkout: bench, test, setup, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors import ROOT
from actors.cli.verbs import Json, Verbs
from experience.command.house import IS_INSTALLED
from experience.command.output import emit
from experience.errors import ConfigError

if TYPE_CHECKING:
    from actors.commands.doctor import Finding

app = Verbs()


@app.command()
def bench(
    what: Annotated[
        str,
        typer.Argument(help="store, collecting, viewer, worlds, browser, planning or methods"),
    ],
    as_json: Json = False,
    rows: Annotated[int, typer.Option(help="store: how many rows of about 4 KB")] = 20_000,
    rounds: Annotated[int, typer.Option(help="store: interleaved rounds")] = 5,
    plot: Annotated[
        Path | None, typer.Option(help="store: where to draw the ratios, e.g. store.png")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="planning, methods: one part, e.g. dyna, scaling; worlds: one world"),
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="worlds: into docs/environments.md; planning: into "
            "benchmarks/planning/results.json and docs/planning-results.md; methods: likewise",
        ),
    ] = False,
) -> None:
    """Measures the store against its peers, a collector, the viewer, the worlds, the browser,
    planning, or the methods of learning.

    Takes minutes, with nothing else running. Exit code 1: a goal of planning, of methods, of the
    viewer or of the browser was missed.
    """
    _need_a_checkout("bench")
    from actors.commands.bench import measure

    sys.exit(measure(what, as_json, rows, rounds, plot, only, write))


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    long: Annotated[bool, typer.Option("--long", help="the long ones too")] = False,
    extras: Annotated[
        str, typer.Option(help="those skipped until ./xp setup worlds, wiki, peers, vllm")
    ] = "",
    coverage: Annotated[
        bool, typer.Option("--coverage", help="print what share of the lines tests ran; slower")
    ] = False,
) -> None:
    """Style, types and every test. Further words go to pytest."""
    _need_a_checkout("test")
    from actors.commands.selftest import run_all

    sys.exit(run_all(long, extras, coverage, context.args))


@app.command("setup")
def set_up(
    what: Annotated[str, typer.Argument(help="worlds, wiki, peers or vllm")] = "worlds",
) -> None:
    """What the demo does not need, by ./xp itself: worlds, wiki, peers or vllm."""
    _need_a_checkout("setup")
    raise ConfigError(f"setup {what} is done by ./xp", f"{ROOT}/xp setup {what}")


def _need_a_checkout(verb: str) -> None:
    """Raises ConfigError in an installed package, which has neither tests nor the set-up."""
    if IS_INSTALLED:
        raise ConfigError(
            f"xp {verb} works in a checkout only",
            "xp doctor names what worlds need: pip install 'xp-experience[worlds,more-worlds]' "
            "and Debian's packages",
        )


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has for xp, one line each, with the fix beside what is missing."""
    from actors.commands.doctor import examine

    findings = list(examine())
    for finding in findings:
        emit(vars(finding) if as_json else _in_words(finding))
    sys.exit(0 if all(f.ok or f.optional for f in findings) else 1)


def _in_words(finding: Finding) -> str:
    mark = "ok  " if finding.ok else "MISS"
    line = f"{mark} {finding.part:<10} {finding.found}"
    return f"{line}\n     fix: {finding.fix}" if finding.fix and not finding.ok else line
