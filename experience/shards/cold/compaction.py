"""Compaction: sealed shards become cold parts, and rows past their time are removed.

    snapshots/<v>.json               immutable, see snapshot; the highest version holds
    cold/part-<v>-<n>.parquet        rows sorted by stream and t, see parts
No row is ever edited. A part is written, synced, read back and compared before a snapshot names it,
and the shards are deleted only after that: at any instant each row is in a shard or in a part of
the newest snapshot. One compaction runs at a time (a lock that a crash frees). Files that a killed
compaction left are named by no snapshot, and the next compaction deletes them.
Covers: a kill or a power cut at any instant; readers that follow meanwhile (they are given each row
once).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.cold import parts as cold_parts
from experience.shards.cold import snapshot as snapshots
from experience.shards.cold.parts import Format, write_part
from experience.shards.cold.removal import RemovalRule, expired_before, remove_rows
from experience.shards.cold.snapshot import Snapshot, publish_snapshot, read_snapshot
from experience.shards.storage.blobs import named_blobs, sweep
from experience.shards.storage.blocks import read_blocks
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import drop_derived
from experience.shards.storage.manifest import read_manifest

_PART_BYTES = 256 << 20
# Longer than a pass of a follower, which may have listed the old files already.
GRACE_SECONDS = 300.0
Shard = tuple[Path, list[pa.RecordBatch]]


@dataclass
class Compacted:
    """What a compaction did."""

    shards: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows_removed: int = 0
    blobs_dropped: int = 0
    files_waiting: int = 0


def compact(
    store: Path,
    to: Format = "parquet",
    *,
    expire_before_ns: int = 0,
    removes: RemovalRule | None = None,
    grace_seconds: float = GRACE_SECONDS,
    disk: Disk = REAL,
) -> Compacted:
    """Moves every sealed shard into the cold tier, and removes rows past their time.

    Rows are removed if they ended before `expire_before_ns` (0: none), or if `removes` picks them.
    By age only a stream's beginning is removed, up to its first row that is not old. The amendments
    of removed rows are removed with them, and blobs that no row names any more, unless a segment is
    still being written. Old snapshots, and the parts that only these name, stay for `grace_seconds`
    for readers that have opened them; the next compaction deletes them.

    Raises ShardError if another compaction runs, or a shard is damaged: then nothing has changed.
    """
    if expire_before_ns and removes is None:
        removes = expired_before(expire_before_ns)
    for folder in (cold_parts.FOLDER, snapshots.FOLDER):
        disk.make_directory(store / folder)
    with disk.lock(store / snapshots.FOLDER / "LOCK"):
        snapshot, done = read_snapshot(store, disk), Compacted()
        _delete_leftovers(store, snapshot, grace_seconds, disk)
        snapshot = _add_shards(store, snapshot, to, done, disk)
        if removes is not None:
            drop_derived(store, disk)
            snapshot, done.rows_removed = remove_rows(store, snapshot, removes, disk)
        done.files_waiting = _delete_leftovers(store, snapshot, grace_seconds, disk)
        # The open segment's rows may name blobs that nobody else names.
        if not _is_being_written(store, disk):
            done.blobs_dropped, _ = sweep(store, _named_blobs(store, snapshot, disk), disk)
        return done


def _is_being_written(store: Path, disk: Disk) -> bool:
    names = (name for directory in disk.directories(store) for name in disk.names(directory))
    return any(name.endswith(".open") for name in names)


def _named_blobs(store: Path, snapshot: Snapshot, disk: Disk) -> Iterator[bytes]:
    for part in snapshot.parts:
        for batch in part.batches(store, disk):
            yield from named_blobs(batch)


def _add_shards(
    store: Path, snapshot: Snapshot, to: Format, done: Compacted, disk: Disk
) -> Snapshot:
    """Adds every sealed shard that is not cold yet; shards of equal signal catalogues share a part.

    A signal's code is a position in the catalogue, so that rows of two catalogues cannot share one.
    """
    waiting: dict[bytes, list[Shard]] = defaultdict(list)
    sizes: dict[bytes, int] = defaultdict(int)
    for path, rows in _sealed(store, snapshot, disk):
        batches = list(read_blocks(path, disk, rows))
        catalogue = batches[0].schema.metadata[b"signals"]
        waiting[catalogue].append((path, batches))
        sizes[catalogue] += disk.size(path)
        if sizes[catalogue] >= _PART_BYTES:
            snapshot = _add_part(store, snapshot, waiting.pop(catalogue), to, done, disk)
            sizes[catalogue] = 0
    for shards in waiting.values():
        snapshot = _add_part(store, snapshot, shards, to, done, disk)
    return snapshot


def _sealed(store: Path, snapshot: Snapshot, disk: Disk) -> Iterator[tuple[Path, int]]:
    """Each hot shard and its number of rows.

    If a shard has its line but not its final name yet, the writer's next shards wait with it.
    """
    for directory in disk.directories(store):
        for line in read_manifest(directory, disk):
            if f"{directory.name}/{line['file']}" in snapshot.replaced:
                continue
            path = directory / line["file"]
            if not disk.exists(path):
                if disk.exists(path.with_suffix(".open")):
                    break
                # Looked at twice: the shard may have been renamed between the two looks.
                if not disk.exists(path):
                    raise ShardError(
                        f"{path} is missing: the manifest names it", "restore the file from a copy"
                    )
            yield path, line["rows"]


def _add_part(
    store: Path,
    snapshot: Snapshot,
    shards: Sequence[Shard],
    to: Format,
    done: Compacted,
    disk: Disk,
) -> Snapshot:
    """Writes the rows of `shards` as one part, and publishes the snapshot that names it."""
    of_writer: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    for path, batches in shards:
        of_writer[path.parent.name] += batches
    streams = {writer: _spans(of_writer[writer]) for writer in sorted(of_writer)}
    metadata = shards[0][1][0].schema.metadata
    table = pa.Table.from_batches(
        [b.replace_schema_metadata(metadata) for _, batches in shards for b in batches]
    )
    version = snapshot.version + 1
    part = write_part(store, f"part-{version:06d}.{to}", table, streams, disk)
    done.shards += len(shards)
    done.rows += part.rows
    done.bytes_before += sum(disk.size(path) for path, _ in shards)
    done.bytes_after += part.bytes
    new = replace(
        snapshot,
        version=version,
        parts=(*snapshot.parts, part),
        replaced=snapshot.replaced | {f"{path.parent.name}/{path.name}" for path, _ in shards},
        published_ns=time.time_ns(),
    )
    publish_snapshot(store, new, disk)
    return new


def _spans(batches: Sequence[pa.RecordBatch]) -> dict[str, tuple[int, int]]:
    """By stream, the first and last t."""
    table = pa.Table.from_batches(batches).select(["stream_id", "t"])
    found = table.group_by("stream_id").aggregate([("t", "min"), ("t", "max")]).to_pylist()
    return {row["stream_id"].hex(): (row["t_min"], row["t_max"]) for row in found}


def _delete_leftovers(store: Path, snapshot: Snapshot, grace_seconds: float, disk: Disk) -> int:
    """Deletes what the newest snapshot makes needless; returns how many files wait for their time.

    These are shards that a part stands for, snapshots that were replaced more than `grace_seconds`
    ago, and cold files that no snapshot left names.
    """
    # No grace for shards: whoever follows them goes on in the part, and looks again by itself.
    _delete_replaced_shards(store, snapshot, disk)
    kept = {part.file for part in snapshot.parts}
    waiting, replaced_at = 0, snapshot.published_ns
    for name in reversed(snapshots.snapshot_names(store, disk)):
        if name == snapshots.file_name(snapshot.version):
            continue
        path = store / snapshots.FOLDER / name
        old = snapshots.parse_snapshot(path, disk)
        if time.time_ns() - replaced_at < grace_seconds * 1e9:
            only_there = {part.file for part in old.parts} - kept
            kept |= only_there
            waiting += 1 + len(only_there)
        else:
            disk.remove(path)
        replaced_at = old.published_ns
    for name in disk.names(store / cold_parts.FOLDER):
        if name not in kept:
            disk.remove_tree(store / cold_parts.FOLDER / name)
    return waiting


def _delete_replaced_shards(store: Path, snapshot: Snapshot, disk: Disk) -> None:
    for name in snapshot.replaced:
        for ending in (".open", ".commit", ".arrow", ".blocks"):
            leftover = (store / name).with_suffix(ending)
            if disk.exists(leftover):
                disk.remove(leftover)
