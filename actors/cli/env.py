"""`./xp env …`: make, check, measure, play and describe worlds. They are reached by name: this room imports none."""

from __future__ import annotations

import importlib
import shlex
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from actors import ROOT
from actors.cli.verbs import Verbs
from actors.output import data, emit
from experience.errors import ConfigError

app = Verbs(
    no_args_is_help=True, help="Worlds: list, make, check, play, measure.", rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="one JSON record a line on stdout")]
Id = Annotated[
    str, typer.Argument(help="an environment id, e.g. envs:Reactor-v0 or my_world:MyWorld-v0")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="an argument of the world, name=value")
]


def _arguments(words: list[str] | None) -> dict[str, Any]:
    from actors.config.reader import read_value

    for word in words or []:
        if not word.partition("=")[0].isidentifier() or "=" not in word:
            raise ConfigError(
                f"--set {word}: not of the form name=value",
                "write for example --set world=CartPole-v1",
            )
    return {
        name: read_value(value, f"--set {name}")
        for name, _, value in (w.partition("=") for w in words or [])
    }


def _make(env_id: str, arguments: dict[str, Any]) -> Any:
    """The world without its wrappers; one whose observations or actions are not text, as `envs:Text-v0` shows it."""
    made_as, _, world = importlib.import_module("envs.make").make_as_text(env_id, arguments)
    if made_as != env_id:
        print(f"{env_id} is shown as text by {made_as}", file=sys.stderr)
    return world


def _errors_of(env_id: str, when: str) -> AbstractContextManager[None]:
    """What the world raises within is told as an error that keeps the world's own traceback."""
    errors: AbstractContextManager[None] = importlib.import_module("envs.make").errors_of(
        env_id, when
    )
    return errors


@app.command("list")
def list_worlds(as_json: Json = False) -> None:
    """The bundled worlds; any other Gymnasium id works in a configuration too."""
    for world in importlib.import_module("envs").described():
        emit(world if as_json else f"{world['id']:<26} {world['summary']}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="the file to be, e.g. my_world")],
    kind: Annotated[str, typer.Option(help="tools, code or gymnasium")] = "tools",
) -> None:
    """Writes a world in one file, ready to be checked and collected from."""
    if not name.isidentifier() or not name.isascii():
        raise ConfigError(
            f"{name}: not a name of a module", "use letters, digits and '_', e.g. my_world"
        )
    template = importlib.import_module("envs.template")
    text, env_id = template.source(name, kind)
    path = Path(f"{name}.py")
    if path.exists():
        raise ConfigError(f"{path} exists already", "choose another name")
    taken = find_spec(name)
    if (
        taken is not None
    ):  # a file of that name would never be found, or stand in for something else
        where = taken.origin or ", ".join(taken.submodule_search_locations or ())
        raise ConfigError(
            f"{name}: a module of that name exists: {where}", "choose another name, e.g. my_" + name
        )
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()} cannot be written: {error.strerror}",
            "call ./xp from a folder that you may write to",
        ) from error
    emit(str(path))
    xp, config = (
        _from_here(ROOT / "xp"),
        _from_here(ROOT / "configs/new-world.yaml").removeprefix("./"),
    )
    print(
        f"next: {xp} env check {env_id}; {xp} env play {env_id}; {xp} run -c {config} "
        f"'worlds=[{{id: \"{env_id}\", groups: 4, demonstrations: {template.DEMONSTRATIONS[kind]}}}]'",
        file=sys.stderr,
    )


def _from_here(path: Path) -> str:
    """A file of the checkout as a command line in this folder names it."""
    near = path.is_relative_to(Path.cwd())
    return shlex.quote(f"./{path.relative_to(Path.cwd())}" if near else str(path))


@app.command()
def check(
    env_id: Id,
    as_json: Json = False,
    arguments: Set = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="break the reward; the checks must notice")
    ] = False,
    episodes: Annotated[
        int, typer.Option(min=1, help="oracle and random episodes that are lived")
    ] = 12,
    only: Annotated[list[str] | None, typer.Option(help="only these checks")] = None,
) -> None:
    """Tries on the world itself what it must keep. Exit code 1 if a check fails."""
    results = importlib.import_module("envs.check").check(
        env_id, _arguments(arguments), episodes=episodes, only=only or (), with_mutants=mutants
    )
    count = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    for result in results:
        count[result.outcome] += 1
        emit(
            vars(result)
            if as_json
            else f"{result.outcome}  {result.id:<26} {result.seconds:>6.2f} s  {result.detail}"
        )
    if not as_json:
        emit(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped")
    if count["FAIL"]:
        sys.exit(1)


@app.command()
def bench(
    env_id: Id,
    as_json: Json = False,
    arguments: Set = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="how long to live random episodes")] = 3.0,
) -> None:
    """What a step and a reset of a world cost."""
    world = _make(env_id, _arguments(arguments))
    with _errors_of(env_id, "while it was measured"):
        found = importlib.import_module("envs.episode").measure(world, seconds)
        world.close()
    emit(
        {"id": env_id, **found}
        if as_json
        else "\n".join(f"{k:<18} {v:.3f}" for k, v in found.items())
    )


@app.command()
def serve(env_id: Id, arguments: Set = None) -> None:
    """A world as an MCP server on stdin and stdout: its actions are the tools."""
    importlib.import_module("envs.bridges.mcp_server").serve(
        _make(env_id, _arguments(arguments)), data()
    )


@app.command()
def card(
    env_id: Id,
    arguments: Set = None,
    episodes: Annotated[
        int, typer.Option(min=1, help="oracle and random episodes that are lived")
    ] = 12,
) -> None:
    """A world's data sheet, as Markdown: what it is, what can be done in it, what is measured, what was checked."""
    checks = list(
        importlib.import_module("envs.check").check(
            env_id, _arguments(arguments), episodes=episodes
        )
    )
    world = _make(env_id, _arguments(arguments))
    from actors.reading.card import data_sheet

    emit(data_sheet(env_id, world, checks))
    world.close()


@app.command()
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
    """A person acts: type actions; `:oracle` acts for you, `:back` undoes where the world can, `:quit` ends."""
    from actors.reading.play import Game, in_terminal, on_a_page

    world = _make(env_id, _arguments(arguments))
    from experience.world import WorldCard

    splits = WorldCard.of(world).splits
    if split not in splits:
        raise ConfigError(
            f"--split {split}: {env_id} has {' and '.join(splits)}", f"write --split {splits[0]}"
        )
    with _errors_of(env_id, "while it was played"):
        game = Game(world, seed, split)
        on_a_page(game, port) if page else in_terminal(game)
        world.close()


@app.command()
def replay(
    name: Annotated[
        str, typer.Argument(help="a run's name or its beginning, a path, or latest")
    ] = "latest",
    world: Annotated[str | None, typer.Option(help="only this environment id")] = None,
    split: Annotated[str | None, typer.Option(help="only train or heldout")] = None,
    version: Annotated[
        int | None, typer.Option(help="only episodes begun by this policy version")
    ] = None,
    best: Annotated[int, typer.Option(min=0, help="the N of highest return")] = 0,
    worst: Annotated[int, typer.Option(min=0, help="the N of lowest return")] = 0,
    episode: Annotated[
        int, typer.Option(help="which one, in the order of their ends; -1 is the last")
    ] = -1,
    again: Annotated[
        bool, typer.Option("--again", help="live it again; rewards must be equal")
    ] = False,
    trusted: Annotated[
        bool, typer.Option("--i-trust-this-code", help="--again, of a run that is not yours")
    ] = False,
    as_json: Json = False,
) -> None:
    """Episodes from a run's shards, turn by turn. With --again, in the run's world with its arguments and rewards, exit
    code 1 if the world answers differently."""
    from actors.reading.play import as_record, choose, described, relive
    from actors.reading.survey import survey, whole_episodes
    from actors.runs.directory import RunDirectory

    directory = RunDirectory.find(name)
    chosen = choose(
        survey(directory.shards).episodes,
        world=world,
        split=split,
        version=version,
        best=best,
        worst=worst,
        episode=episode,
    )
    different = False
    for lived, found in zip(chosen, whole_episodes(directory.shards, chosen), strict=True):
        if not as_json:
            emit(
                f"=== {lived.env_id}  {lived.split}  seed {lived.seed}  task {lived.task}  version {lived.version}  "
                f"{lived.turns} turns  return {'unknown' if lived.total is None else f'{lived.total:g}'}  "
                f"{lived.ending}"
            )
        for step in found.rows:
            emit(as_record(step) if as_json else described(step))
        if again:
            made, rewards = _as_it_was(directory, lived.env_id, trusted)
            said = relive(found.rows, made, rewards)
            made.close()
            print(f"lived again: {said or 'the same rewards and observations'}", file=sys.stderr)
            different |= bool(said)
    if different:
        sys.exit(1)


def _as_it_was(directory: Any, env_id: str, trusted: bool) -> tuple[Any, Any]:
    """The run's world with its arguments, and the rewards of the run, all by its configuration."""
    from actors.collecting.described import describe_worlds
    from actors.commands.doctor import require
    from actors.commands.launch import check_origin
    from experience.reward import RewardModel

    config = directory.config()
    check_origin(config, directory, trusted)
    require(config, trusted)
    arguments = {w.id: w.arguments for w in config.worlds}
    if env_id not in arguments:
        raise ConfigError(
            f"{directory.path / 'config.yaml'} has no world {env_id}", "choose another by --world"
        )
    return _make(env_id, arguments[env_id]), RewardModel(describe_worlds(config).weights)
