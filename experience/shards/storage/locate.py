"""Finds the folder that holds the shards, from whatever a user may name of a run."""

from __future__ import annotations

import re
from pathlib import Path

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk

_OF_A_WRITER = re.compile(r"seg-\d+-\d+\.(open|arrow|commit|blocks)|MANIFEST|epoch-\d+")
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")

EPISODES = "EPISODES"
"""The file beside a store's rows that is made from them: the saved index of episodes."""


def drop_derived(store: Path, disk: Disk = REAL) -> None:
    """Deletes what was made from rows: a removed row must not live on there."""
    if disk.exists(store / EPISODES):
        disk.remove(store / EPISODES)


def find_store(path: str | Path, *, imagined: bool = False) -> Path:
    """The store that `path` names: a run (`runs/latest`), its `shards` or `imagined`, or any store.

    Raises ShardError, which says what to name instead, for all other paths: a missing path, a file,
    one writer's directory, a folder of runs, a folder without experience, an address of an object
    store.
    """
    if _ELSEWHERE.match(str(path)):
        raise ShardError(
            f"{path} is no folder of this machine",
            "an object store is read through "
            "Catalog(Path(...), disk=RemoteDisk(filesystem, base)): see docs/reliability.md",
        )
    path = Path(path)
    if path.is_file():
        raise ShardError(f"{path} is a file", f"name the run's directory, e.g. {path.parent}")
    if not path.is_dir():
        raise ShardError(
            f"{path} is not there", _runs_below(path.parent) or "./xp ls lists the runs"
        )
    if (path / "run.json").exists() or (path / "shards").is_dir():
        store = path / ("imagined" if imagined else "shards")
        if not store.is_dir():
            raise ShardError(
                f"{path} holds no {store.name}",
                "it is no run's directory, or the run was not begun",
            )
        return store
    if any(_OF_A_WRITER.fullmatch(p.name) for p in path.iterdir()):
        raise ShardError(
            f"{path} is one writer's directory", f"name the folder above: {path.parent}"
        )
    if _is_store(path) or (
        path.name in ("shards", "imagined") and (path.parent / "run.json").exists()
    ):
        return path
    raise ShardError(
        f"{path} holds no experience",
        _runs_below(path) or "name a run's directory, e.g. runs/latest",
    )


def given_store(path: str | Path) -> Path:
    """Like `find_store`, for a store of this machine that may still be empty."""
    path = Path(path)
    if not path.is_dir():
        return find_store(path)
    # An empty folder is taken as it is: a run that has only just begun has no shard yet.
    return path / "shards" if (path / "run.json").exists() and (path / "shards").is_dir() else path


def _is_store(path: Path) -> bool:
    if (path / "snapshots").is_dir():
        return True
    return any(
        _OF_A_WRITER.fullmatch(file.name)
        for writer in path.iterdir()
        if writer.is_dir()
        for file in writer.iterdir()
    )


def _runs_below(folder: Path) -> str:
    runs = sorted(p.parent.name for p in folder.glob("*/run.json")) if folder.is_dir() else []
    return f"runs there: {', '.join(runs[-5:])}" if runs else ""
