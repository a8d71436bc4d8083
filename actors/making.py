"""Making a world by its id: through Gymnasium's registry, after the package of the id was imported.

This room imports no world, and nothing heavy: the template that hosts are forked from loads it.
Beside its ids, a package of worlds may offer what `package_of` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Text

from actors import CALLED_FROM
from experience.command.failures import check_arguments, errors_of
from experience.errors import ConfigError, MissingPartError
from experience.reward import RewardFunction
from experience.text.near import nearest, nearest_id
from experience.text.strict_json import dumps

AS_TEXT = "envs:Text-v0"
"""The world that shows any other world as text."""
BUNDLED = AS_TEXT.partition(":")[0]
"""The package of the bundled worlds, whose ids are suggested for a mistyped one."""


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
        f'write instead: {{id: "{AS_TEXT}", arguments: {inside}}}',
    )


def _creator(env_id: str) -> Any:
    """The world's class, or the function that makes it. Raises ConfigError for an unknown id."""
    if wrong := unknown(env_id):
        raise ConfigError(*wrong)
    entry = gymnasium.spec(env_id.rpartition(":")[2]).entry_point
    with errors_of(env_id, "when it was imported"):
        return load_env_creator(entry) if isinstance(entry, str) else entry


def reward_function(env_id: str, source: str) -> RewardFunction:
    """The reward function of a world's class, whose instance said that its source is `source`.

    Raises ConfigError if the class that is found here has none, or another one.
    """
    creator = _creator(env_id)
    found = RewardFunction.of(creator) if isinstance(creator, type) else None
    if found is None:
        raise ConfigError(
            f"{env_id} has a reward_function, and its registered entry point has none",
            "register the class that has it: entry_point=MyWorld, not a function that makes it",
        )
    if found.source != source:
        raise ConfigError(
            f"{env_id}: its reward_function is not the one that was read before",
            "was the file changed meanwhile? start again",
        )
    return found


def module_of(env_id: str) -> str:
    """The module of a registered world's code; empty if the id names none yet."""
    name = env_id.rpartition(":")[2]
    entry = gymnasium.registry[name].entry_point if name in gymnasium.registry else None
    if isinstance(entry, str):
        return entry.partition(":")[0]
    return env_id.partition(":")[0] if ":" in env_id else ""


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
    return import_module(env_id.partition(":")[0] or BUNDLED)


def unknown(env_id: str) -> tuple[str, str] | None:
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
            if package.partition(".")[0] == BUNDLED
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
    known += [f"{BUNDLED}:{world}" for world in _ids_of(BUNDLED)]
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
    if package == BUNDLED:  # too many to be listed here
        return "see ./xp env list"
    ids = ", ".join(f"{package}:{world}" for world in _ids_of(package))
    return (
        f"{package} registers {ids}"
        if ids
        else "see ./xp env list; a package's id is written package:Name-v0"
    )
