"""What the formats share: the store's episodes, its signals, names, errors with their place."""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from experience.episode import Episode, EpisodeReader
from experience.errors import MissingPartError, RecordError, ShardError
from experience.shards.amend import follow_amended
from experience.shards.catalog import Catalog
from experience.shards.known import Known
from experience.signal import SignalKind
from experience.step import Step

Read = TypeVar("Read")
Placed = tuple[str, Step]
"""Where a step was found, for errors, and the step."""
MOST_BYTES = 64 << 20
"""Of one line or document of a stranger."""
NOT_READABLE = (
    RecordError,
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading a stranger's file may raise where it is not what it claims to be."""


@dataclass
class Exchanged:
    """What went out or came in. `notes`: what did not go out as it is, in a sentence each."""

    rows: int = 0
    episodes: int = 0
    left_out: int = 0
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rows:
    """A store's committed rows as they go out: amended, as queries show them, or `as_written`."""

    store: Path
    as_written: bool = False

    def steps(self) -> Iterator[Step]:
        blocks = (
            Catalog(self.store).follow() if self.as_written else follow_amended(self.store, None)
        )
        return chain.from_iterable(blocks)

    def catalogue(self) -> dict[str, SignalKind]:
        """Every signal that any shard or, unless `as_written`, any amendment declares."""
        return Known(self.store).signals(amended=not self.as_written)

    def episodes(self) -> Iterator[Episode]:
        """Every stream's episodes, in the order in which they ended."""
        reader = EpisodeReader()
        for step in self.steps():
            yield from reader.take(step)
        yield from reader.rest()

    def whole(self, done: Exchanged) -> Iterator[Episode]:
        """Episodes with a last observation that did not fail; the others are counted."""
        for episode in self.episodes():
            if episode.closing is None or episode.failed:
                done.left_out += 1
            else:
                yield episode


def stream_named(name: str) -> bytes:
    return uuid.uuid5(uuid.NAMESPACE_URL, name).bytes


def short_name(world: str, taken: Collection[str] = ()) -> str:
    """A name that files and Minari take: `envs:Reactor-v0` → `Reactor`; longer if it is taken."""
    short, whole_name = re.sub(r"-v\d+$", "", world.rpartition(":")[2]), world
    names = (
        re.sub(r"[^A-Za-z0-9_-]", "-", name)
        for name in (short, re.sub(r"-v(\d+)$", r"-version\1", whole_name))
    )
    more = (f"world-{number}" for number in count(2))
    return next(name for name in chain(names, more) if name and name not in taken)


def checked(where: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except NOT_READABLE as error:
        why = str(error).partition("\n")[0][:500]
        hint = f"{error.hint}; " if isinstance(error, RecordError) and error.hint else ""
        raise ShardError(
            f"{where}: {type(error).__name__}: {why}",
            f"{hint}nothing was imported; mend or remove it",
        ) from error


def whole_text(path: Path) -> str:
    """A file's text. Raises ShardError if it is too large to be what it claims, or is not UTF-8."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ShardError(
            f"{path}: {size} bytes", f"one document holds {MOST_BYTES >> 20} MiB at most"
        )
    return checked(str(path), lambda: path.read_bytes().decode())


def library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPartError(
            f"this format needs {name}: {error}", f".venv/bin/uv pip install -p .venv {package}"
        ) from error
