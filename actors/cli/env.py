"""`xp env replay`, the one verb about worlds that reads runs; the others are in envs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.verbs import Json, Verbs
from experience.command.output import emit, say
from experience.errors import ConfigError

if TYPE_CHECKING:
    from actors.reading.survey import Lived
    from actors.runs.directory import RunDirectory

app = Verbs(
    no_args_is_help=True,
    help="Worlds: all verbs but replay are those of python -m envs.",
    rich_markup_mode=None,
)


@app.callback()
def env() -> None:
    """Worlds: list, make, check, play, measure."""


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
    """Episodes from a run's shards, turn by turn.

    With --again, each episode is replayed in the run's world with its arguments and rewards; exit
    code 1 if the world answers differently.
    """
    from actors.reading.replayed import as_record, choose, described, relive
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
            emit(_title(lived))
        for step in found.rows:
            emit(as_record(step) if as_json else described(step))
        if again:
            # A world of its own for each episode: what one left behind must not help the next.
            made, rewards = _as_it_was(directory, lived.env_id, trusted)
            difference = relive(found.rows, made, rewards)
            made.close()
            say(f"lived again: {difference or 'the same rewards and observations'}")
            different |= bool(difference)
    if different:
        sys.exit(1)


def _title(lived: Lived) -> str:
    total = "unknown" if lived.total is None else f"{lived.total:g}"
    return (
        f"=== {lived.env_id}  {lived.split}  seed {lived.seed}  task {lived.task}  "
        f"version {lived.version}  {lived.turns} turns  return {total}  {lived.ending}"
    )


def _as_it_was(directory: RunDirectory, env_id: str, trusted: bool) -> tuple[Any, Any]:
    """(world, rewards) as the run's configuration describes them."""
    from actors.collecting.hosts.described import describe_worlds
    from actors.commands.doctor import require
    from actors.commands.launch import check_origin
    from actors.making import make_world

    config = directory.config()
    check_origin(config, directory, trusted)
    require(config, trusted)
    arguments = {w.id: w.arguments for w in config.worlds}
    if env_id not in arguments:
        raise ConfigError(
            f"{directory.path / 'config.yaml'} has no world {env_id}", "choose another by --world"
        )
    world = make_world(env_id, arguments[env_id]).unwrapped
    return world, describe_worlds(config).rewards
