"""The runs that a viewer may show: each is found by its name, and nothing else can be reached."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from actors.config.schema import Config
from actors.reading.listing import runs
from actors.reading.survey import known_config
from actors.reading.viewer.shelf.columns import Columns
from actors.runs.directory import RunDirectory
from actors.runs.finding import is_run_name
from experience.episode import Episode
from experience.errors import ConfigError
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.storage.blobs import BlobReader

_EPISODES_KEPT = 8
"""Whole episodes kept in memory, so that walking through one reads it once."""
_MOST_STEPS_KEPT = 20_000
_FRESH_SECONDS = 0.2
"""How long an index counts as new: one page asks several questions at once."""


class NotThere(ConfigError):
    """What was asked for is not there."""


@lru_cache(256)
def _config(path: Path, written_ns: int) -> Config | None:
    return known_config(RunDirectory(path))


def config_of(directory: RunDirectory) -> Config | None:
    """The run's configuration, checked once for each time that it was written."""
    path = directory.path / "config.yaml"
    return _config(directory.path, path.stat().st_mtime_ns) if path.is_file() else None


def give_back() -> None:
    """Gives freed memory back to the system, where the C library can (glibc): tables are large."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class OpenRun:
    """One run: its directory, the index of its episodes, its pictures. Used by many threads."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.name = directory.name
        self._lock = threading.RLock()
        self._lived = OpenStore(directory.shards)
        self._imagined = OpenStore(directory.path / "imagined")

    @property
    def lived(self) -> OpenStore:
        return self._lived

    @property
    def imagined(self) -> OpenStore:
        return self._imagined

    @cached_property
    def pictures(self) -> BlobReader:
        return BlobReader(self.directory.shards)

    def picture(self, digest: bytes) -> bytes:
        """The bytes of a blob. Raises NotThere if the store has none of that hash."""
        with self._lock:
            if digest not in self.pictures:
                raise NotThere(f"{self.name} holds no picture {digest.hex()}")
            return self.pictures.read(digest)


class OpenStore:
    """The episodes of one store, by number and by key. Invariant: one thread refreshes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._index: EpisodeIndex | None = None
        self._columns = Columns.empty()
        self._looked = 0.0
        self._kept: OrderedDict[tuple[str, int], Episode] = OrderedDict()

    @property
    def is_there(self) -> bool:
        return self.path.is_dir() and any(self.path.iterdir())

    def columns(self) -> Columns:
        """The episodes as they are committed now."""
        with self._lock:
            if not self.is_there or time.monotonic() - self._looked < _FRESH_SECONDS:
                return self._columns
            changed = True
            if self._index is None:
                self._index = EpisodeIndex.open(self.path)
            else:
                changed = self._index.refresh() > 0
            if changed:
                self._columns = Columns.of(self._index.table())
                # Also of rows that are not new: feedback and late signals change what was read.
                self._kept.clear()
                give_back()
            self._looked = time.monotonic()
            return self._columns

    def episode(self, key: str) -> tuple[int, Episode]:
        """(place in `columns`, the whole episode). Raises NotThere for a key that no episode has."""
        with self._lock:
            columns = self.columns()
            number = columns.place(key)
            if number is None or self._index is None:
                raise NotThere(f"no episode {key!r}", "the list of episodes has their links")
            kept = key, int(columns.numbers["steps"][number])
            if kept not in self._kept:
                self._keep(kept, self._index.read(number))
            self._kept.move_to_end(kept)
            return number, self._kept[kept]

    def episodes(self, numbers: list[int]) -> list[Episode]:
        """Some episodes by their places, read in one go and not kept."""
        with self._lock:
            return self._index.read_many(numbers) if self._index is not None else []

    def _keep(self, key: tuple[str, int], episode: Episode) -> None:
        self._kept[key] = episode
        while len(self._kept) > _EPISODES_KEPT or self._kept_steps() > _MOST_STEPS_KEPT:
            if len(self._kept) == 1:
                return
            self._kept.popitem(last=False)

    def _kept_steps(self) -> int:
        return sum(len(episode.steps) for episode in self._kept.values())


class Shelf:
    """The runs of one folder, or those that a user named."""

    def __init__(self, folder: Path, named: Mapping[str, RunDirectory] | None = None) -> None:
        self._folder, self._named = folder, dict(named or {})
        self._open: dict[str, OpenRun] = {}
        self._lock = threading.Lock()
        self.told: dict[str, Any] = {}
        """What `told.runs` remembers of each run, until a file of it changes."""

    def directories(self) -> list[RunDirectory]:
        """All runs, newest first."""
        return list(self._named.values()) or list(runs(self._folder))[::-1]

    def run(self, name: str) -> OpenRun:
        """The run of that exact name. Raises NotThere for every other name."""
        with self._lock:
            if name not in self._open:
                self._open[name] = OpenRun(self._find(name))
            return self._open[name]

    def _find(self, name: str) -> RunDirectory:
        if self._named:
            if name in self._named:
                return self._named[name]
        # A name of letters, digits, '-', '_' and '.': it is a folder here, and leads nowhere else.
        elif is_run_name(name) and (self._folder / name / "run.json").is_file():
            path = self._folder / name
            if not path.is_symlink():
                return RunDirectory.find(str(path))
        raise NotThere(f"no run {name!r} is shown here", "the list of runs has their links")
