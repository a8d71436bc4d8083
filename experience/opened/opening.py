"""Opening: finds the stores of runs by what a user calls them, here or in an object store."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from experience.errors import ConfigError
from experience.opened.run import Run
from experience.shards.selection import Store
from experience.shards.storage.locate import find_store

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open(path: str | Path, *more: str | Path, imagined: bool = False) -> Run:
    """Opens runs for reading: `open("runs/latest")`, or several as one.

    path: a run's directory, a store, or an address such as `s3://bucket/runs/x` (alone; read-only,
    its sealed rows). imagined: the rows of its world model instead of what was lived. A run that
    goes on may be opened: each reading call sees the rows that are committed then.

    Raises ShardError, which says what to name instead, where no experience is found.
    """
    addresses = [str(one) for one in (path, *more)]
    if any(_ADDRESS.match(address) for address in addresses):
        if more:
            raise ConfigError(
                "an object store is opened alone", "open each address by a call of its own"
            )
        return Run([_remote(addresses[0], imagined)])
    return Run(_named([find_store(one, imagined=imagined) for one in (path, *more)]))


def _remote(address: str, imagined: bool) -> Store:
    from experience.shards.storage.remote import find_remote

    disk, path = find_remote(address, imagined=imagined)
    return Store(address.rstrip("/").rpartition("/")[2], path, disk)


def _named(paths: list[Path]) -> list[Store]:
    """Each store under its run's name; under its path where two runs share a name."""
    folders = [path.resolve() for path in paths]
    names = [
        folder.parent.name if folder.name in ("shards", "imagined") else folder.name
        for folder in folders
    ]
    taken = Counter(names)
    return [
        Store(name if taken[name] == 1 else str(folder), folder)
        for name, folder in zip(names, folders, strict=True)
    ]
