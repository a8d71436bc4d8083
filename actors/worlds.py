"""Checks of a run's worlds before the run begins: their ids, their arguments, their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium

from actors.collecting.hosts.look import look_at
from actors.config.schema import Config
from actors.making import unknown
from experience.command.plain_yaml import Problems
from experience.errors import XpError
from experience.preferences.naming import is_given
from experience.reward import check_weights


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts `place` before the message of an error that is raised within."""
    try:
        yield
    except XpError as error:
        raise type(error)(
            f"{place}: {str(error).removesuffix(error.hint).rstrip()}", error.hint
        ) from error


def check_ids(config: Config, *, bundled_only: bool = False) -> None:
    """Raises ConfigError naming every world that is not registered, who set it, and a near name.

    Imports the packages that the ids name; with `bundled_only` only ours, without a check of the
    other ids.
    """
    problems = Problems()
    for number, world in enumerate(config.worlds):
        foreign = not world.id.startswith("envs:") and (
            ":" in world.id or world.id in gymnasium.registry
        )
        if not (bundled_only and foreign) and (wrong := unknown(world.id)):
            problems.add(world.place("id"), f"worlds[{number}].id: {wrong[0]}", wrong[1])
    if problems.found:
        raise problems.error()


def check_worlds(config: Config) -> None:
    """Makes each world once, and closes it.

    Raises ConfigError for an unknown id, for arguments that a world does not take, and for weights
    of signals that it does not have; MissingPartError if something is not installed; XpError if the
    world cannot be made for another reason, or not in time.
    """
    check_ids(config)
    for number, world in enumerate(config.worlds):
        with placed(f"{world.place('arguments' if world.arguments else 'id')}: worlds[{number}]"):
            known = look_at(world, config.collecting.step_timeout_seconds).card.signals
        check_weights(
            f"{world.place('rewards')}: worlds[{number}].rewards ({world.id})",
            {name: w for name, w in (world.rewards or {}).items() if not is_given(name)},
            known,
        )
