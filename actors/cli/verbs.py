"""What all families of verbs share: option types, loading a configuration, owning stdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from actors import ROOT
from experience.command.output import own_stdout

if TYPE_CHECKING:
    from actors.config.schema import Config

F = TypeVar("F", bound=Callable[..., Any])

Files = Annotated[
    list[Path] | None, typer.Option("-c", "--config", help="a YAML file; later ones win")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, e.g. workers=4 (a .yaml file also works)")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON record a line on stdout")]
Trusted = Annotated[
    bool, typer.Option("--i-trust-this-code", help="sandbox.min_tier: none is meant")
]
RunName = Annotated[
    str, typer.Argument(help="a run's name, the beginning of one, a path, or latest")
]


class Verb(TyperCommand):
    """A command that owns stdout while it runs: only `emit` writes there."""

    def invoke(self, ctx: Any) -> Any:
        own_stdout()  # only now, because the help that typer prints earlier belongs on stdout
        return super().invoke(ctx)


class Verbs(typer.Typer):
    """A group whose commands own stdout."""

    # Typer lists each keyword of its own `command`; passing them on needs no list of ours.
    def command(  # type: ignore[override]
        self, name: str | None = None, **how: Any
    ) -> Callable[[F], F]:
        return super().command(name, **{"cls": Verb, **how})


def load_config(files: list[Path] | None, words: list[str] | None) -> tuple[Config, dict[str, str]]:
    """The checked configuration, and which file or override set each key.

    `words` are the command's arguments: overrides, and YAML files named without `-c`.
    Raises ConfigError naming every problem.
    """
    from actors.config.schema import load

    words = words or []
    named = [Path(w) for w in words if "=" not in w and w.endswith((".yaml", ".yml"))]
    found = [_here_or_ours(file) for file in [*(files or []), *named]]
    return load(found, [w for w in words if Path(w) not in named])


def load_run_config(
    policy: str, words: list[str] | None, trusted: bool
) -> tuple[Config, dict[str, str]]:
    """The configuration of the run that `policy` names, with overrides; likewise.

    Raises IsolationError for a run from elsewhere that names code or servers to be used.
    """
    from actors.commands.launch import check_origin
    from actors.runs.policies import run_of

    run, _ = run_of(policy)
    config, origins = load_config([run.path / "config.yaml"], words)
    check_origin(config, run, trusted)
    return config, origins


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML."""
    from actors.config.schema import dump

    return dump(config)


def _here_or_ours(file: Path) -> Path:
    """`file`, or the checkout's file of that name where this folder has none.

    So configs/local.yaml means the same from every folder.
    """
    ours = ROOT / file
    return ours if not file.exists() and ours.is_file() else file
