"""Snapshots: immutable lists of the cold parts, of which the highest version holds.

`snapshots/<version>.json` names every cold part, the shards that parts stand for, and the rows that
retention removed. It ends with the SHA-256 of its content, and gets its name by one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.cold.retention import RemovedRows, Span, merged
from experience.shards.storage.disk import REAL, Disk
from experience.text.strict_json import dumps

FOLDER = "snapshots"
_SHARD_NAME = re.compile(r"[^/\0]+/seg-\d+-\d+\.arrow")
_PART_NAME = re.compile(r"part-[0-9-]+\.(parquet|lance)")
_TRIES = 20


@dataclass(frozen=True)
class Snapshot:
    """Which rows of a store are cold, and which were removed.

    `replaced`: the shards ("writer/seg-…") that parts stand for.
    `removed`: by writer and stream (hex), the runs of t that retention removed.
    `removed_beginnings`: by stream (hex), how many of its first rows are removed. Older snapshots
    tell of these only.
    """

    version: int = 0
    parts: tuple[Part, ...] = ()
    replaced: frozenset[str] = frozenset()
    removed_beginnings: Mapping[str, int] = field(default_factory=dict)
    removed: RemovedRows = field(default_factory=dict)
    published_ns: int = 0

    @cached_property
    def removed_spans(self) -> dict[bytes, list[Span]]:
        """By stream, the removed rows as runs of t."""
        found = by_stream(self.removed)
        for stream, count in self.removed_beginnings.items():
            beginning = [(0, count - 1)] if count else []
            found[stream] = merged([*found.get(stream, ()), *beginning])
        return {bytes.fromhex(stream): spans for stream, spans in found.items()}

    def next_kept(self, stream: bytes, t: int) -> int:
        """The first t from `t` on that was not removed."""
        for first, last in self.removed_spans.get(stream, ()):
            if first <= t <= last:
                return last + 1
        return t

    def last(self, writer: str) -> dict[bytes, int]:
        """The highest t of each of a writer's streams that is cold, or removed."""
        found: dict[bytes, int] = {}
        for part in self.parts:
            for stream, (_, last) in part.streams.get(writer, {}).items():
                key = bytes.fromhex(stream)
                found[key] = max(last, found.get(key, -1))
        for stream, spans in self.removed.get(writer, {}).items():
            key = bytes.fromhex(stream)
            found[key] = max(spans[-1][1], found.get(key, -1))
        return found


def by_stream(removed: RemovedRows) -> dict[str, list[Span]]:
    """The removed rows of all writers together, by stream (hex)."""
    found: dict[str, list[Span]] = defaultdict(list)
    for streams in removed.values():
        for stream, spans in streams.items():
            found[stream] = merged([*found[stream], *spans])
    return found


def newest_snapshot(store: Path, disk: Disk = REAL) -> int:
    """The version of the newest snapshot; 0 if there is none."""
    names = snapshot_names(store, disk)
    return int(names[-1].partition(".")[0]) if names else 0


def read_snapshot(store: Path, disk: Disk = REAL) -> Snapshot:
    """The newest snapshot. Raises ShardError if it is damaged."""
    for _ in range(_TRIES):
        names = snapshot_names(store, disk)
        if not names:
            return Snapshot()
        # A compaction may publish a newer snapshot and remove this one before it is read.
        with contextlib.suppress(FileNotFoundError):
            return parse_snapshot(store / FOLDER / names[-1], disk)
    raise ShardError(f"{store / FOLDER} changes faster than it can be read", "try again")


def snapshot_names(store: Path, disk: Disk = REAL) -> list[str]:
    """File names of all snapshots, oldest first."""
    try:
        return [n for n in disk.names(store / FOLDER) if n.endswith(".json")]
    except FileNotFoundError:
        return []


def file_name(version: int) -> str:
    return f"{version:06d}.json"


def parse_snapshot(path: Path, disk: Disk) -> Snapshot:
    """The snapshot in one file. Raises ShardError if it is damaged or names foreign files."""
    body, _, digest = disk.read(path).rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ShardError(f"{path} is damaged", "restore the file from a copy")
    try:
        snapshot = _from_json(json.loads(body))
        foreign = [name for name in snapshot.replaced if not _SHARD_NAME.fullmatch(name)]
        foreign += [part.file for part in snapshot.parts if not _PART_NAME.fullmatch(part.file)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ShardError(
            f"{path} cannot be read: {error!r}", "the file was not written by xp"
        ) from error
    if path.name != file_name(snapshot.version):
        foreign.append(str(snapshot.version))
    if foreign:
        # The names become paths that are read and deleted: none may lead out of the store.
        raise ShardError(
            f"{path} names {foreign[0]!r}, which is no file of this store",
            "the file was not written by xp",
        )
    return snapshot


def publish_snapshot(store: Path, snapshot: Snapshot, disk: Disk) -> None:
    """Writes `snapshot` durably. The rename comes last: a reader sees all of it or none."""
    folder = store / FOLDER
    body = dumps(_as_json(snapshot)).encode()
    draft = folder / "draft"
    disk.write_file(draft, [body + b"\n" + hashlib.sha256(body).hexdigest().encode()])
    disk.rename(draft, folder / file_name(snapshot.version))
    disk.sync_directory(folder)


# All stores on disk have the keys `let_go` and `gone`, whatever the fields are called here.


def _as_json(snapshot: Snapshot) -> dict[str, object]:
    return {
        "version": snapshot.version,
        "parts": [asdict(part) for part in snapshot.parts],
        "replaced": sorted(snapshot.replaced),
        "let_go": dict(snapshot.removed_beginnings),
        "gone": snapshot.removed,
        "published_ns": snapshot.published_ns,
    }


def _from_json(content: Any) -> Snapshot:
    return Snapshot(
        content["version"],
        tuple(Part(**part) for part in content["parts"]),
        frozenset(content["replaced"]),
        content["let_go"],
        content.get("gone", {}),
        content.get("published_ns", 0),
    )
