"""Worlds by their ids: how one is made, for a run. They are reached by name: this room imports none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from experience.errors import XpError


def make_world(env_id: str, arguments: Mapping[str, Any]) -> Any:
    """A world made with copies of its arguments: what one does with a list of its own, no other sees.

    Raises ConfigError for what does not exist, or is not text; what a world raises becomes an EnvironmentFailure.
    """
    return import_module("envs.make").make_for_agents(env_id, arguments)


def entry_point(env_id: str) -> str:
    """Where the world's class is. Raises ConfigError for an id that nobody registers."""
    return str(import_module("envs.make").spec_of(env_id).entry_point)


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts `place` before the message of an error that is raised within."""
    try:
        yield
    except XpError as error:
        raise type(error)(f"{place}: {str(error).removesuffix(error.hint).rstrip()}", error.hint) from error
