"""What the code of a world raises, as an error that keeps the world's own traceback."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experience.errors import ConfigError, EnvironmentFailure, XpError
from experience.text.near import did_you_mean

_NOT_THE_WORLDS = (
    "actors",
    "contextlib",
    "envs.check",
    "envs.episode",
    "envs.make",
    "experience.command",
    "gymnasium",
    "importlib",
)
"""Modules whose frames lead to a world's error and say nothing about it."""


@contextmanager
def errors_of(env_id: str, when: str) -> Iterator[None]:
    """Turns what a world raises in the block into an EnvironmentFailure with the world's traceback.

    Our own errors and Gymnasium's pass unchanged: they say already what to do.
    """
    try:
        yield
    except XpError:
        raise
    except Exception as error:
        if _is_of_gymnasium(error):
            raise
        raise EnvironmentFailure(
            f"{env_id} raised {type(error).__name__} {when}: {error}\n{own_traceback(error)}",
            f"mend the world; ./xp env check {env_id} tries it",
        ) from error


def _is_of_gymnasium(error: Exception) -> bool:
    # By name: this package does not import Gymnasium.
    return any(kind.__module__ == "gymnasium.error" for kind in type(error).__mro__)


def own_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, from the first frame of the world's own code on."""
    if isinstance(error, TypeError) and error.__context__ and "environment creator" in str(error):
        error = error.__context__  # Gymnasium raised it again, without its frames
    if isinstance(error, SyntaxError):  # its place is in the error itself
        return "".join(traceback.format_exception_only(error)).rstrip()
    whole = frames = error.__traceback__
    while frames is not None and _leads_to_the_world(frames.tb_frame.f_globals):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames or whole, chain=False)
    return "".join(lines).rstrip()


def _leads_to_the_world(module: Mapping[str, Any]) -> bool:
    name = f"{module.get('__name__', '')}."
    return name.startswith(tuple(f"{other}." for other in _NOT_THE_WORLDS))


def check_arguments(env_id: str, creator: Any, arguments: Mapping[str, Any]) -> None:
    """Raises ConfigError for an argument that the world's constructor `creator` does not take."""
    try:
        taken = inspect.signature(creator).parameters if callable(creator) else {}
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for name in arguments:
        if name not in taken:
            known = ", ".join(taken) or "no arguments"
            raise ConfigError(
                f"{env_id} takes no argument {name}",
                did_you_mean(name, taken) or f"it takes {known}",
            )
