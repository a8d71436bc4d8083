"""Worlds by their ids: making and closing a world, and checks of all ids before a run begins.

A world is reached through Gymnasium's registry, after the package that its id names was imported:
this room imports no world. Beside its ids, such a package may offer what `package_of` lists.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Text

from actors import CALLED_FROM
from actors.config.schema import Config
from experience.command.failures import check_arguments, errors_of
from experience.command.output import say
from experience.command.plain_yaml import Problems
from experience.errors import ConfigError, EnvironmentFailure, MissingPartError, XpError
from experience.reward import check_weights
from experience.text.near import nearest, nearest_id
from experience.text.strict_json import dumps
from experience.world import WorldCard

_AS_TEXT = "envs:Text-v0"
"""The world that shows any other world as text."""
_BUNDLED = Config.model_fields["worlds"].get_default()[0].id.partition(":")[0]
"""The package of the default world, whose ids are suggested for a mistyped one."""
_CLOSE_SECONDS = 5.0
_LEAST_SECONDS = 60.0
"""What a world has to be made at the start at least: the first one of its kind imports its
libraries too."""
_SILENT_SECONDS = 10.0
_Seen = TypeVar("_Seen")


def make_world(env_id: str, arguments: Mapping[str, Any]) -> Any:
    """A world whose observations and actions are text, made with copies of its arguments.

    Copies, so that no world sees what another world does with a list that both were given.
    Raises ConfigError for an id or an argument that does not exist and for a world that is not
    text, MissingPartError for a package that is not installed, EnvironmentFailure for a world
    that raises.
    """
    try:
        check_arguments(env_id, _creator(env_id), arguments)
        with errors_of(env_id, "when it was made"):
            world = gymnasium.make(env_id, **deepcopy(dict(arguments)))
    except gymnasium.error.DependencyNotInstalled as missing:
        raise MissingPartError(
            f"{env_id} cannot be made: {missing}", "install that package into .venv"
        ) from missing
    except gymnasium.error.Error as error:
        raise ConfigError(f"{env_id} cannot be made: {error}", "see ./xp env list") from error
    if isinstance(world.observation_space, Text) and isinstance(world.action_space, Text):
        return world
    world.close()
    inside = dumps({"world": env_id, **arguments})
    raise ConfigError(
        f"{env_id} shows {_short(world.observation_space)} and takes "
        f"{_short(world.action_space)}, and agents read and write text",
        f'write instead: {{id: "{_AS_TEXT}", arguments: {inside}}}',
    )


def look_at(
    env_id: str, arguments: Mapping[str, Any], timeout_seconds: float, look: Callable[[Any], _Seen]
) -> _Seen:
    """What `look` reads from a world that is made for it and then closed, all on one thread.

    It has `timeout_seconds`, or `_LEAST_SECONDS` if that is more. Raises EnvironmentFailure for a
    world that hangs: its thread is left behind, and does not hold up the end of the process. Raises
    what `make_world` and `look` raise.
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
                f"still waiting for {env_id} to be made: {time.monotonic() - started:.0f} s of "
                f"{seconds:g}"
            )


def _creator(env_id: str) -> Any:
    """The world's class, or the function that makes it. Raises ConfigError for an unknown id."""
    if wrong := _unknown(env_id):
        raise ConfigError(*wrong)
    entry = gymnasium.spec(env_id.rpartition(":")[2]).entry_point
    with errors_of(env_id, "when it was imported"):
        return load_env_creator(entry) if isinstance(entry, str) else entry


def _short(space: Any) -> str:
    text = str(space)
    return text if len(text) <= 60 else f"{type(space).__name__}{space.shape or ''}"


def package_of(env_id: str = "") -> Any:
    """The package that an id names, imported; without an id, the package of the bundled worlds.

    A package of worlds may offer, beside the ids that it registers:
        STRANGERS   names of worlds that are what their server, package or folder is
        PARTS       part of a machine -> whether it is optional
        probe       part -> what was found; raises MissingPartError or IsolationError
        parts_of    name of a world -> the parts that it needs
    """
    return import_module(env_id.partition(":")[0] or _BUNDLED)


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
    """Closes all worlds in parallel; returns the types of the errors.

    A world that does not return in time is left behind, so that the run ends whatever it waits for.
    """
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
    """Raises ConfigError naming every world that is not registered, who set it, and a near name.

    Imports the packages that the ids name; with `bundled_only` only ours, without a check of the
    other ids.
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
    """Makes each world once, and closes it.

    Raises ConfigError for an unknown id, for arguments that a world does not take, and for weights
    of signals that it does not have; MissingPartError if something is not installed; XpError if the
    world cannot be made for another reason, or not in time.
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
            import_module(package)  # registers its ids, as gymnasium.make does
        gymnasium.spec(name)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            return f"{env_id}: no module {error.name!r} is found", _near(env_id) or (
                f"a world of your own is a file in {CALLED_FROM}, or an installed package, "
                "and is called FILE:Name-v0"
            )
        return f"{env_id}: {package} needs {error.name!r}, which is not installed", (
            "./xp setup worlds"
            if package.partition(".")[0] == _BUNDLED
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
    package_of()  # registers the bundled ids
    known += [f"{_BUNDLED}:{world}" for world in _ids_of(_BUNDLED)]
    files = [path.stem for path in Path(CALLED_FROM).glob("*.py")]
    if file := nearest(package, files):
        known.append(f"{file}:{name}")
    known += [f"{package}:{world}" for world in _ids_of(package)]
    near = nearest_id(env_id, known)
    return f"did you mean {near!r}? ./xp env list shows the bundled ones" if near else ""


def _ids_of(package: str) -> list[str]:
    """The ids that an imported package has registered."""
    if not package:
        return []
    return [name for name, spec in gymnasium.registry.items() if _is_of(spec.entry_point, package)]


def _is_of(entry: Any, package: str) -> bool:
    where = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{where}.".startswith(f"{package}.")


def _registered_by(package: str) -> str:
    if package == _BUNDLED:  # too many to be listed here
        return "see ./xp env list"
    ids = ", ".join(f"{package}:{world}" for world in _ids_of(package))
    return (
        f"{package} registers {ids}"
        if ids
        else "see ./xp env list; a package's id is written package:Name-v0"
    )
