"""Makes a world by its id. An error names the next step, and the frames of a world that raised.

`python -m envs` and the checks use this file. A run makes its worlds in actors/making.py, with the
same errors (experience/command/failures.py).
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

from envs.several.seated import from_one_seat
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
    """(id, arguments, world without wrappers); a world that is not text comes as `envs:Text-v0`,
    and one with several agents as it is seen from one seat."""
    world = make(env_id, arguments)
    given = dict(arguments or {})
    if not is_text(world):
        world.close()
        given = {"world": env_id, **given}
        env_id = _AS_TEXT
        world = make(env_id, given)
    # Without Gymnasium's wrappers: they hide attributes such as `tools` and `oracle_action`.
    return env_id, given, from_one_seat(world.unwrapped)


def _creator(env_id: str, spec: EnvSpec) -> Any:
    with errors_of(env_id, "when it was imported"):
        entry = spec.entry_point
        return load_env_creator(entry) if isinstance(entry, str) else entry


def is_text(world: Any) -> bool:
    return all(
        isinstance(getattr(world, name, None), Text)
        for name in ("observation_space", "action_space")
    )


def spec_of(env_id: str) -> EnvSpec:
    """The specification registered under the id. Raises ConfigError that names the nearest id."""
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
        # A module that the world's module imports may be missing too: that is the world's failure.
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
        importlib.import_module("envs")  # registers our names: one of them may have been meant
        if (Path.cwd() / f"{name}.py").exists():
            return f"write {name}:NAME-v0, where NAME-v0 is what {name}.py registers"
    own = ids_of(module) if module else list(gymnasium.registry)
    if not own:
        return (
            f"{module} registers no environment: "
            f'end it with gymnasium.register(id="{name}", entry_point=...)'
        )
    written = f"{module}:{name}" if module else name
    if near := nearest_id(written, [_full_id(module, known) for known in own]):
        return f"did you mean {near!r}?"
    if not module:
        return _NEXT
    more = ", …" if len(own) > 6 else ""
    return f"{module} registers {', '.join(own[:6])}{more}"


def _full_id(module: str, known: str) -> str:
    """The registered name with its package, if the package is `module` or ours."""
    package = module or ("envs" if _is_of(gymnasium.registry[known], "envs") else "")
    return f"{package}:{known}" if package else known


def ids_of(module: str) -> list[str]:
    """The ids that a module, once imported, has registered."""
    return [known for known, spec in gymnasium.registry.items() if _is_of(spec, module)]


def _is_of(spec: EnvSpec, module: str) -> bool:
    entry = spec.entry_point  # "package.module:Class", or the class itself
    where = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{where}.".startswith(f"{module}.")
