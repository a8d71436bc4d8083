"""`python -m envs VERB`, which is `./xp env VERB`: list, make, check, measure, play worlds.

stdout is data, stderr is talk; exit codes stand in experience/command/ending.py.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

_ROOT = Path(__file__).resolve().parent.parent
if str(Path.cwd()) not in sys.path:
    # Last: a world of the user's own is found, and replaces no module of ours.
    sys.path.append(str(Path.cwd()))
_spec = find_spec("experience")
_found = Path(_spec.origin).resolve().parent if _spec and _spec.origin else None
# An installed `experience` holds the other rooms: see experience/command/house.py.
if _found not in (_ROOT / "experience", _ROOT.parent):
    sys.exit(
        f"error: package 'experience' is {_spec.origin if _spec else 'missing'}, "
        f"not the one below {_ROOT}\n  run ./xp from the checkout's root"
    )

from experience.command.ending import run_command  # noqa: E402  only after the check
from experience.command.house import IS_INSTALLED  # noqa: E402
from experience.command.output import data, emit, own_stdout, say  # noqa: E402
from experience.errors import ConfigError  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])


class _Verb(TyperCommand):
    """A command that owns stdout while it runs: only `emit` writes there."""

    def invoke(self, ctx: Any) -> Any:
        own_stdout()  # only now, because the help that typer prints earlier belongs on stdout
        return super().invoke(ctx)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Worlds: list, make, check, play, measure.",
)

Json = Annotated[bool, typer.Option("--json", help="one JSON record a line on stdout")]
Id = Annotated[
    str, typer.Argument(help="an environment id, e.g. envs:Reactor-v0 or my_world:MyWorld-v0")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="an argument of the world, name=value")
]
Episodes = Annotated[int, typer.Option(min=1, help="oracle and random episodes that are lived")]


def main() -> None:
    """Runs the command, and ends the process with its exit code."""
    run_command(lambda: app(prog_name="xp env"))


def _read_arguments(words: list[str] | None) -> dict[str, Any]:
    """The arguments of a world from words of the form name=value, each value read as YAML."""
    from experience.command.plain_yaml import read_value

    arguments = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not name.isidentifier() or not equals:
            raise ConfigError(
                f"--set {word}: not of the form name=value",
                "write for example --set world=CartPole-v1",
            )
        arguments[name] = read_value(value, f"--set {name}")
    return arguments


def _make(env_id: str, arguments: dict[str, Any]) -> Any:
    """The world without its wrappers; a world that is not text, as `envs:Text-v0` shows it."""
    from envs.make import make_as_text

    made_as, _, world = make_as_text(env_id, arguments)
    if made_as != env_id:
        say(f"{env_id} is shown as text by {made_as}")
    return world


@app.command("list", cls=_Verb)
def list_worlds(as_json: Json = False) -> None:
    """The bundled worlds; any other Gymnasium id works in a configuration too."""
    from envs import described

    for world in described():
        emit(world if as_json else f"{world['id']:<26} {world['summary']}")


@app.command(cls=_Verb)
def new(
    name: Annotated[str, typer.Argument(help="the file to be, e.g. my_world")],
    kind: Annotated[str, typer.Option(help="tools, code or gymnasium")] = "tools",
) -> None:
    """Writes a world in one file, ready to be checked and collected from."""
    from envs import template

    path, env_id = template.write(name, kind)
    emit(str(path))
    xp = "xp" if IS_INSTALLED else _from_here(_ROOT / "xp")
    config = "configs/new-world.yaml"  # found in this folder, else among ours
    if not IS_INSTALLED:
        config = _from_here(_ROOT / config).removeprefix("./")
    world = f'{{id: "{env_id}", groups: 4, demonstrations: {template.DEMONSTRATIONS[kind]}}}'
    say(
        f"next: {xp} env check {env_id}; {xp} env play {env_id}; "
        f"{xp} run -c {config} 'worlds=[{world}]'"
    )


def _from_here(path: Path) -> str:
    """A file of the checkout as a command line in this folder names it."""
    near = path.is_relative_to(Path.cwd())
    return shlex.quote(f"./{path.relative_to(Path.cwd())}" if near else str(path))


@app.command(cls=_Verb)
def check(
    env_id: Id,
    as_json: Json = False,
    arguments: Set = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="break the reward; the checks must notice")
    ] = False,
    episodes: Episodes = 12,
    only: Annotated[list[str] | None, typer.Option(help="only these checks")] = None,
) -> None:
    """Tries on the world itself what it must keep. Exit code 1 if a check fails."""
    from envs.check import check as run_checks

    given = _read_arguments(arguments)
    count = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    for result in run_checks(
        env_id, given, episodes=episodes, only=only or (), with_mutants=mutants
    ):
        count[result.outcome] += 1
        line = f"{result.outcome}  {result.id:<26} {result.seconds:>6.2f} s  {result.detail}"
        emit(vars(result) if as_json else line)
    if not as_json:
        emit(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped")
    if count["FAIL"]:
        sys.exit(1)


@app.command(cls=_Verb)
def bench(
    env_id: Id,
    as_json: Json = False,
    arguments: Set = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="how long to live random episodes")] = 3.0,
) -> None:
    """What a step and a reset of a world cost."""
    from envs.episode import measure
    from experience.command.failures import errors_of

    world = _make(env_id, _read_arguments(arguments))
    with errors_of(env_id, "while it was measured"):
        found = measure(world, seconds)
        world.close()
    lines = "\n".join(f"{name:<18} {value:.3f}" for name, value in found.items())
    emit({"id": env_id, **found} if as_json else lines)


@app.command(cls=_Verb)
def serve(
    env_id: Id,
    arguments: Set = None,
    seed: Annotated[int, typer.Option(help="of the first episode; each next one adds 1")] = 0,
    split: Annotated[str, typer.Option(help="of the tasks; the world's first one")] = "",
    episodes: Annotated[int, typer.Option(min=0, help="a client may begin; 0: any number")] = 0,
    rewards: Annotated[
        Path | None, typer.Option(help="a file for you alone: a line of JSON a turn")
    ] = None,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="seconds that the world may take to answer")
    ] = 120.0,
) -> None:
    """A world as an MCP server on stdin and stdout: its actions are the tools."""
    from envs.bridges.serving.over_stdio import Choices
    from envs.bridges.serving.over_stdio import serve as serve_world

    given = _read_arguments(arguments)
    choices = Choices(seed, split, episodes, rewards, deadline)
    serve_world(lambda: _make(env_id, given), data(), choices)


@app.command(cls=_Verb)
def card(env_id: Id, arguments: Set = None, episodes: Episodes = 12) -> None:
    """A world's data sheet, as Markdown: what it is, its actions, signals and checks."""
    from envs.check import check as run_checks
    from envs.check.card import data_sheet

    given = _read_arguments(arguments)
    results = list(run_checks(env_id, given, episodes=episodes))
    world = _make(env_id, given)
    emit(data_sheet(env_id, world, results))
    world.close()


@app.command(cls=_Verb)
def play(
    env_id: Id,
    arguments: Set = None,
    seed: int = 0,
    split: str = "train",
    page: Annotated[
        bool, typer.Option("--page", help="in a browser, instead of this terminal")
    ] = False,
    port: int = 8321,
) -> None:
    """A person acts: type actions; `:oracle` acts for you, `:back` undoes, `:quit` ends."""
    from envs.play.game import Game, in_terminal, on_a_page
    from experience.command.failures import errors_of

    world = _make(env_id, _read_arguments(arguments))
    splits = getattr(world, "splits", ("train", "heldout"))
    if split not in splits:
        raise ConfigError(
            f"--split {split}: {env_id} has {' and '.join(splits)}", f"write --split {splits[0]}"
        )
    with errors_of(env_id, "while it was played"):
        game = Game(world, seed, split)
        on_a_page(game, port) if page else in_terminal(game)
        world.close()


@app.command(cls=_Verb, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def replay() -> None:
    """Episodes from a run's shards, turn by turn."""
    raise ConfigError("python -m envs reads no runs", "type: ./xp env replay")


if __name__ == "__main__":
    main()
