"""The class of a world, for what it says of itself without being made.

Importing a class runs its package's code. A run from elsewhere may name any package: only our own
worlds, and those of runs that this user made here, are imported.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.runs.directory import RunDirectory

_OURS = "envs:"


def world_class(env_id: str, directory: RunDirectory) -> type | None:
    """The class behind an environment id; None if it is not trusted, or cannot be imported."""
    if not (env_id.startswith(_OURS) or _is_trusted(directory)):
        return None
    return _imported(env_id)


def _is_trusted(directory: RunDirectory) -> bool:
    """Whether this user made the run here. An imported run has no configuration to be signed."""
    path = directory.path / "config.yaml"
    return path.is_file() and _is_ours(directory.path, path.stat().st_mtime_ns)


@lru_cache(256)
def _is_ours(run: Path, written_ns: int) -> bool:
    return RunDirectory(run).is_ours


@lru_cache(256)
def _imported(env_id: str) -> type | None:
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    package, _, name = env_id.rpartition(":")
    try:
        if package:
            importlib.import_module(package)  # registers its ids
        entry: Any = gymnasium.spec(name).entry_point
        made = load_env_creator(entry) if isinstance(entry, str) else entry
    except Exception:  # noqa: BLE001  a stranger's package may raise anything when imported
        return None
    return made if isinstance(made, type) else None
