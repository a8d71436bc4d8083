"""A world made by its id, or an error with the next step and, if the world raised, its frames.

For `python -m envs` and the checks; a run makes its worlds itself (actors/worlds.py), with the same
errors (experience/command/failures.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Text

from experience.command.failures import check_arguments, errors_of
from experience.errors import ConfigError, EnvironmentFailure, MissingPartError
from experience.text.near import nearest, nearest_id

_AS_TEXT = "envs:Text-v0"
_NEXT = "see ./xp env list; a world of your own in FILE.py of this folder is FILE:Name-v0"


def make(env_id: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """The environment as Gymnasium makes it, of copies of its arguments.

    Raises ConfigError for an id or an argument that does not exist, MissingPartError for a package
    that is not installed, EnvironmentFailure for a world that raises.
    """
    found = spec_of(env_id)
    try:
        check_arguments(env_id, _creator(env_id, found), arguments or {})
        with errors_of(env_id, "when it was made"):
            return gymnasium.make(env_id, **deepcopy(dict(arguments or {})))
    except gymnasium.error.DependencyNotInstalled as missing:
        raise MissingPartError(
            f"{env_id} cannot be made: {missing}", "install that package into .venv"
        ) from missing
    except gymnasium.error.Error as error:
        raise ConfigError(f"{env_id} cannot be made: {error}", _NEXT) from error


def make_as_text(
    env_id: str, arguments: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any], Any]:
    """(id, arguments, world without wrappers); a world that is not text comes as `envs:Text-v0`."""
    world, given = make(env_id, arguments), dict(arguments or {})
    if not is_text(world):
        world.close()
        env_id, given = _AS_TEXT, {"world": env_id, **given}
        world = make(env_id, given)
    return env_id, given, world.unwrapped


def _creator(env_id: str, spec: EnvSpec) -> Any:
    with errors_of(env_id, "when it was imported"):
        return (
            load_env_creator(spec.entry_point)
            if isinstance(spec.entry_point, str)
            else spec.entry_point
        )


def is_text(world: Any) -> bool:
    return all(
        isinstance(getattr(world, name, None), Text)
        for name in ("observation_space", "action_space")
    )


def spec_of(env_id: str) -> EnvSpec:
    """What is registered under the id. Raises ConfigError with the ids that are near."""
    module, _, name = env_id.rpartition(":")
    if module:
        _import(env_id, module)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ConfigError(f"{env_id} is not registered: {error}", _near(module, name)) from error


def _import(env_id: str, module: str) -> None:
    try:
        with errors_of(env_id, f"when {module} was imported"):
            importlib.import_module(module)
    except EnvironmentFailure as failure:
        missing = failure.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{module}.".startswith(f"{missing.name}."):
            files = [path.stem for path in Path.cwd().glob("*.py")]
            close = nearest(module, files)
            raise ConfigError(
                f"{env_id}: there is no module {module}, neither in {Path.cwd()} nor installed",
                f"did you mean {close}:…?" if close else _NEXT,
            ) from missing
        raise


def _near(module: str, name: str) -> str:
    """What to write instead of an unknown `name`."""
    if not module:
        importlib.import_module("envs")  # whose names may have been meant
        if (Path.cwd() / f"{name}.py").exists():
            return f"write {name}:NAME-v0, where NAME-v0 is what {name}.py registers"
    own = ids_of(module) if module else list(gymnasium.registry)
    if not own:
        return (
            f"{module} registers no environment: "
            f'end it with gymnasium.register(id="{name}", entry_point=...)'
        )
    if near := nearest_id(
        f"{module}:{name}" if module else name, [_written(module, known) for known in own]
    ):
        return f"did you mean {near!r}?"
    return (
        f"{module} registers {', '.join(own[:6])}{', …' if len(own) > 6 else ''}"
        if module
        else _NEXT
    )


def _written(module: str, known: str) -> str:
    """A registered name as one writes it, with its package where that is ours."""
    package = module or ("envs" if _is_of(gymnasium.registry[known], "envs") else "")
    return f"{package}:{known}" if package else known


def ids_of(module: str) -> list[str]:
    """The ids that a module, once imported, has registered."""
    return [known for known, spec in gymnasium.registry.items() if _is_of(spec, module)]


def _is_of(spec: EnvSpec, module: str) -> bool:
    entry = spec.entry_point
    where = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{where}.".startswith(f"{module}.")
