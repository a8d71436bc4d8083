"""Forgetting: a stream, or all rows about one subject, is removed from disk with its dependants.

The dependants of a row are its amendments, the pictures that no other row shows, and the imagined
streams that branch from it, with the streams that branch from these. All are looked for first
(`look`), and then removed by a compaction of each store, the imagined one first: if a crash comes
between, the same call finds the rest.
Does not cover: what was learned from the rows (weights, options), copies elsewhere (exports, a
mirror), and what the disk itself keeps of a file that was removed.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.cold.removal import RemovalRule
from experience.shards.cold.snapshot import Snapshot, read_snapshot
from experience.shards.journal import Journal
from experience.shards.storage.amendment_files import Spans, amendments, holds
from experience.shards.storage.blobs import named_blobs
from experience.shards.storage.disk import REAL

Key = tuple[bytes, int]


@dataclass
class Found:
    """What is removed: rows by store, streams that lose rows, amendments, pictures."""

    rows: dict[str, int] = field(default_factory=dict)
    streams: set[bytes] = field(default_factory=set)
    amendments: int = 0
    blobs: int = 0
    keys: dict[str, set[Key]] = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def look(run: Path, *, streams: Collection[bytes] = (), subject: str | None = None) -> Found:
    """The rows of `streams`, or about `subject`, and their dependants, in both stores of `run`."""
    found, parents = Found(), set[Key]()
    for name, store in _stores(run):
        keys = _rows(store, set(streams), subject, parents)
        parents |= keys
        found.keys[name], found.rows[name] = keys, len(keys)
        found.streams |= {stream for stream, _ in keys}
        table = amendments(store)
        found.amendments += sum(
            key in keys
            for key in zip(
                table.column("stream_id").to_pylist(), table.column("t").to_pylist(), strict=True
            )
        )
        found.blobs += _only_there(store, keys)
    return found


def forget(
    run: Path, *, streams: Collection[bytes] = (), subject: str | None = None, seal: bool = False
) -> Found:
    """Removes what `look` finds from disk, and returns it.

    `seal` first closes segments that a killed writer left open. Raises ShardError if there is
    nothing to forget, or a segment is open: then nothing has changed.
    """
    for _, store in _stores(run):
        _close_open_segments(store, seal)
    found = look(run, streams=streams, subject=subject)
    if not found.total:
        raise ShardError(
            f"{run} holds no such row",
            "nothing was changed; look for it: ./xp query RUN "
            "'select distinct subject, hex(stream_id) from steps'",
        )
    # The imagined store first: branches are found by their real rows, while these are there.
    for name, store in reversed(_stores(run)):
        if found.keys[name]:
            # No grace: whoever asked to be forgotten is gone when this call returns.
            compact(store, removes=_these(found.keys[name]), grace_seconds=0)
    return found


def drop_orphans(run: Path) -> int:
    """Takes out the imagined streams that branch from rows that were removed; how many rows."""
    store = run / "imagined"
    if not store.is_dir():
        return 0
    keys = _rows(store, set(), None, _Removed(read_snapshot(run / "shards").removed_spans))
    if keys:
        compact(store, removes=_these(keys), grace_seconds=0)
    return len(keys)


@dataclass(frozen=True)
class _Removed:
    """Rows that were removed, as a collection of their keys."""

    spans: Spans

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, tuple)
        return holds(self.spans, *key)


def _stores(run: Path) -> list[tuple[str, Path]]:
    return [(name, run / name) for name in ("shards", "imagined") if (run / name).is_dir()]


def _rows(
    store: Path, streams: set[bytes], subject: str | None, parents: Container[Key]
) -> set[Key]:
    """The rows of `streams` or about `subject`, and whole streams that branch from any of these.

    `parents`: rows of another store, from which streams may branch too.
    """
    keys, branches = set[Key](), list[tuple[bytes, Key]]()
    all_keys: dict[bytes, set[Key]] = {}
    for batch in Catalog(store).batches():
        columns = [
            batch.column(name).to_pylist()
            for name in ("stream_id", "t", "parent_stream", "parent_t")
        ]
        about = (
            batch.column("subject").to_pylist()
            if "subject" in batch.schema.names
            else [None] * batch.num_rows
        )
        for stream, t, parent, parent_t, whom in zip(*columns, about, strict=True):
            if parent is not None:
                branches.append((stream, (parent, parent_t)))
                all_keys.setdefault(stream, set()).add((stream, t))
            if stream in streams or (subject is not None and whom == subject):
                keys.add((stream, t))
    # Until nothing is added: branches of branches fall too, in whatever order they were read.
    grown = True
    while grown:
        grown = False
        for stream, parent in branches:
            if (parent in keys or parent in parents) and not all_keys[stream] <= keys:
                keys |= all_keys[stream]
                grown = True
    return keys


def _only_there(store: Path, keys: set[Key]) -> int:
    """How many pictures only these rows show."""
    shown, elsewhere = set[bytes](), set[bytes]()
    for batch in Catalog(store).batches():
        mask = np.array([key in keys for key in _keys(batch)], bool)
        shown |= named_blobs(batch.filter(pa.array(mask)))
        elsewhere |= named_blobs(batch.filter(pa.array(~mask)))
    return len(shown - elsewhere)


def _keys(table: pa.RecordBatch | pa.Table) -> Iterator[Key]:
    return zip(table.column("stream_id").to_pylist(), table.column("t").to_pylist(), strict=True)


def _these(keys: set[Key]) -> RemovalRule:
    def rule(table: pa.Table, _: Snapshot) -> np.ndarray:
        return np.array([key in keys for key in _keys(table)], bool)

    return rule


def _close_open_segments(store: Path, seal: bool) -> None:
    """Raises ShardError for a segment that is open, unless it may be sealed.

    Its writer, should it still live, is then fenced, and ends.
    """
    for writer in REAL.directories(store):
        if not any(name.endswith(".open") for name in REAL.names(writer)):
            continue
        if not seal:
            raise ShardError(
                f"{writer} is still being written to, or its writer was killed",
                "end the run first; if it was killed: add --seal",
            )
        Journal(writer, {}).close()
