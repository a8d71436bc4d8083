"""Worlds by their ids: how one is made and closed, and what is wrong with one that cannot be, before a run begins.

They are reached by name: this room imports none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import gymnasium

from actors import CALLED_FROM
from actors.config.reader import Problems
from actors.config.schema import Config
from actors.output import say
from experience.errors import EnvironmentFailure, XpError
from experience.reward import check_weights
from experience.text.near import nearest, nearest_id
from experience.world import WorldCard

_CLOSE_SECONDS = 5.0
_LEAST_SECONDS = 60.0
"""What a world has to be made at the start at least: the first one of its kind imports its libraries too."""
_SILENT_SECONDS = 10.0
_Seen = TypeVar("_Seen")


def make_world(env_id: str, arguments: Mapping[str, Any]) -> Any:
    """A world made with copies of its arguments: what one does with a list of its own, no other sees.

    Raises ConfigError for what does not exist, or is not text; what a world raises becomes an EnvironmentFailure.
    """
    return import_module("envs.make").make_for_agents(env_id, arguments)


def look_at(
    env_id: str, arguments: Mapping[str, Any], timeout_seconds: float, look: Callable[[Any], _Seen]
) -> _Seen:
    """What `look` reads from a world that is made for it and then closed, all on one thread.

    It has `timeout_seconds`, or `_LEAST_SECONDS` if that is more. Raises EnvironmentFailure for a world that hangs: its
    thread is left behind, and does not hold up the end of the process. Raises what `make_world` and `look` raise.
    """
    found: Future[_Seen] = Future()

    def make_and_look() -> None:
        try:
            world = make_world(env_id, arguments)
            try:
                found.set_result(look(world))
            finally:
                close_worlds([world])
        except BaseException as error:  # noqa: BLE001  a stranger's code may raise anything: the caller gets it
            found.set_exception(error)

    thread = threading.Thread(target=make_and_look, daemon=True)
    thread.start()
    _await(found, env_id, max(timeout_seconds, _LEAST_SECONDS))
    thread.join()  # closing has a deadline of its own
    return found.result()


def _await(found: Future[Any], env_id: str, seconds: float) -> None:
    """Waits for `found`, and says so while it does. Raises EnvironmentFailure after `seconds`."""
    started = time.monotonic()
    while not found.done():
        passed = time.monotonic() - started
        if passed >= seconds:
            raise EnvironmentFailure(
                f"{env_id} could not be made and looked at within {seconds:g} s",
                "mend its constructor, or raise collecting.step_timeout_seconds for a slow world",
            )
        wait([found], min(_SILENT_SECONDS, seconds - passed))
        if not found.done():
            say(
                f"still waiting for {env_id} to be made: {time.monotonic() - started:.0f} s of {seconds:g}"
            )


def entry_point(env_id: str) -> str:
    """Where the world's class is. Raises ConfigError for an id that nobody registers."""
    return str(import_module("envs.make").spec_of(env_id).entry_point)


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts `place` before the message of an error that is raised within."""
    try:
        yield
    except XpError as error:
        raise type(error)(
            f"{place}: {str(error).removesuffix(error.hint).rstrip()}", error.hint
        ) from error


def close_worlds(worlds: Sequence[Any]) -> list[str]:
    """Closes them side by side; what went wrong, by the type of the error. One that does not come back in time is left:
    whatever it waits for, the run has an end."""
    wrong: list[str] = []

    def close(world: Any) -> None:
        try:
            world.close()
        except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
            wrong.append(type(error).__name__)

    closing = [threading.Thread(target=close, args=(world,), daemon=True) for world in worlds]
    for thread in closing:
        thread.start()
    deadline = time.monotonic() + _CLOSE_SECONDS
    for thread in closing:
        thread.join(max(deadline - time.monotonic(), 0))
    return wrong + ["TimeoutError" for thread in closing if thread.is_alive()]


def check_ids(config: Config, *, bundled_only: bool = False) -> None:
    """Raises ConfigError naming every world that is not registered, with who set it and a name that is near.

    Imports the packages that the ids name; with `bundled_only` none but our own, and says nothing of the others.
    """
    problems = Problems()
    for number, world in enumerate(config.worlds):
        foreign = not world.id.startswith("envs:") and (
            ":" in world.id or world.id in gymnasium.registry
        )
        if not (bundled_only and foreign) and (wrong := _unknown(world.id)):
            problems.add(world.place("id"), f"worlds[{number}].id: {wrong[0]}", wrong[1])
    if problems.found:
        raise problems.error()


def check_worlds(config: Config) -> None:
    """Makes each world once, and lets go of it.

    Raises ConfigError for an unknown id, arguments that a world does not take, and weights of signals that it does not
    have; MissingPartError where it needs what is not installed; XpError where it cannot be made for another reason, or
    not in time.
    """
    check_ids(config)
    for number, world in enumerate(config.worlds):
        with placed(f"{world.place('arguments' if world.arguments else 'id')}: worlds[{number}]"):
            known = look_at(
                world.id,
                world.arguments,
                config.collecting.step_timeout_seconds,
                lambda made: WorldCard.of(made.unwrapped).signals,
            )
        check_weights(
            f"{world.place('rewards')}: worlds[{number}].rewards ({world.id})",
            world.rewards or {},
            known,
        )


def _unknown(env_id: str) -> tuple[str, str] | None:
    """(what is wrong, what to do) with the id of a world; None if it is registered."""
    package, _, name = env_id.rpartition(":")
    try:
        if package:
            import_module(package)  # which registers its ids, as gymnasium.make does
        gymnasium.spec(name)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            return f"{env_id}: no module {error.name!r} is found", _near(env_id) or (
                f"a world of your own is a file in {CALLED_FROM}, or an installed package, and is called FILE:Name-v0"
            )
        return f"{env_id}: {package} needs {error.name!r}, which is not installed", (
            "./xp setup worlds"
            if package.partition(".")[0] == "envs"
            else f"install it: pip install {error.name}"
        )
    except gymnasium.error.Error:
        return f"{env_id} is not a known environment", _near(env_id) or _registered_by(package)
    except Exception as error:  # noqa: BLE001  a stranger's module may raise anything
        return f"{env_id}: {package} cannot be imported: {type(error).__name__}: {error}", (
            f"python -c 'import {package}' shows where"
        )
    return None


def _near(env_id: str) -> str:
    """A suggestion of a registered id, empty if none is near."""
    package, _, name = env_id.rpartition(":")
    known = [] if package else [world for world in gymnasium.registry if world != env_id]
    known += [f"envs:{world}" for world in import_module("envs").WORLDS]
    files = [path.stem for path in Path(CALLED_FROM).glob("*.py")]
    if file := nearest(package, files):
        known.append(f"{file}:{name}")
    known += [f"{package}:{world}" for world in _ids_of(package)]
    near = nearest_id(env_id, known)
    return f"did you mean {near!r}? ./xp env list shows the bundled ones" if near else ""


def _ids_of(package: str) -> list[str]:
    """What a package of others, once imported, has registered."""
    return import_module("envs.make").ids_of(package) if package not in ("", "envs") else []


def _registered_by(package: str) -> str:
    ids = ", ".join(f"{package}:{world}" for world in _ids_of(package))
    return (
        f"{package} registers {ids}"
        if ids
        else "see ./xp env list; a package's id is written package:Name-v0"
    )
