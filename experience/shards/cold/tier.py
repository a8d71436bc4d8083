"""The cold tier: sealed shards compacted into Parquet (or Lance), and old rows let go. No row is ever edited.

    snapshots/<v>.json               immutable; each names every cold part, the shards that parts stand for, and which
                                     rows were let go; the highest version holds, and older ones go after a time
    cold/part-<v>-<n>.parquet        rows sorted by stream and t; zstd, with page checksums
A part is written, synced, read back and compared before a snapshot names it, and the shards go only after that: at
any instant each row is in a shard or in a part of the newest snapshot. One compaction at a time (a lock that a crash
frees). What a killed one left is not named by any snapshot, and the next one removes it.
Covers: a kill or a power cut at any instant; readers that follow meanwhile (they are given each row once).
Does not cover: Lance's files of stores that were compacted before they had a SHA-256 are checked by Lance alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.errors import MissingPartError, ShardError
from experience.shards.cold.retention import Gone, Span, merged, older_than, spans_of, without
from experience.shards.storage.amendment_files import drop_amendments
from experience.shards.storage.blobs import named_blobs, sweep
from experience.shards.storage.blocks import read_blocks
from experience.shards.storage.checked import Expected, open_checked
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.manifest import read_manifest
from experience.shards.storage.schema import FIELDS, check_schema, conform
from experience.shards.storage.unpacked import check_unpacked, rows_a_group
from experience.strict_json import dumps

Format = Literal["parquet", "lance"]
_FOLDER, _SNAPSHOTS = "cold", "snapshots"
_REPLACED, _PART = (
    re.compile(r"[^/\0]+/seg-\d+-\d+\.arrow"),
    re.compile(r"part-[0-9-]+\.(parquet|lance)"),
)
_TRIES = 20
_GROUP_ROWS = 8_000
_PART_BYTES = 256 << 20
_WORDS = [
    name for name, of, _ in FIELDS if pa.types.is_string(of)
]  # few different values: worth a dictionary


@dataclass(frozen=True)
class Part:
    """One cold file. `streams`: by writer and stream (hex), the first and last t that it holds."""

    file: str
    rows: int
    bytes: int
    sha256: str
    streams: Mapping[str, Mapping[str, tuple[int, int]]]

    def path(self, store: Path) -> Path:
        return store / _FOLDER / self.file

    def batches(
        self, store: Path, disk: Disk = REAL, *, checked: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """Its rows, by stream and t, with every column of today. Raises ShardError if a byte of it is wrong, and
        FileNotFoundError if it is gone."""
        path = self.path(store)
        try:
            for batch in self._read(store, disk, checked):
                check_schema(batch.schema, str(path))
                yield conform(batch)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise ShardError(
                f"{path} is damaged: {error}", "restore the file from a copy"
            ) from error

    def _read(self, store: Path, disk: Disk, checked: bool) -> Iterator[pa.RecordBatch]:
        if self.is_lance:
            self._check_lance(store, disk, checked)
            yield from _lance().dataset(str(self.path(store))).to_batches()
            return
        buffer = open_checked(self.expected(store), disk, checked=checked)
        check_unpacked(buffer, self.path(store))
        source = parquet.ParquetFile(pa.BufferReader(buffer), page_checksum_verification=True)
        yield from source.iter_batches(batch_size=_GROUP_ROWS)

    @property
    def is_lance(self) -> bool:
        return self.file.endswith(".lance")

    def expected(self, store: Path) -> Expected:
        return Expected(self.path(store), self.bytes, self.sha256)

    def _check_lance(self, store: Path, disk: Disk, checked: bool) -> None:
        """Parts of an older format have no SHA-256: those are checked by Lance alone."""
        path = self.path(store)
        if not disk.exists(path):
            raise FileNotFoundError(str(path))
        if checked and self.sha256 and tree_sha256(path) != self.sha256:
            raise ShardError(
                f"{path} is damaged: its files differ from the SHA-256 that was noted",
                "restore the folder from a copy",
            )


def tree_sha256(folder: Path) -> str:
    """One SHA-256 over the names and contents of all files below `folder`."""
    whole = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, data = file.relative_to(folder).as_posix(), file.read_bytes()
        whole.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """What of the store is cold. `replaced`: the shards ("writer/seg-…") that parts stand for; `let_go`: by stream
    (hex), how many of its first rows are gone."""

    version: int = 0
    parts: tuple[Part, ...] = ()
    replaced: frozenset[str] = frozenset()
    let_go: Mapping[str, int] = field(default_factory=dict)
    gone: Gone = field(default_factory=dict)
    published_ns: int = 0

    @cached_property
    def missing(self) -> dict[bytes, list[Span]]:
        """By stream, the rows that were let go, as runs of t. (Older snapshots tell of beginnings only.)"""
        found = _by_stream(self.gone)
        for stream, count in self.let_go.items():
            found[stream] = merged([*found.get(stream, ()), *([(0, count - 1)] if count else ())])
        return {bytes.fromhex(stream): spans for stream, spans in found.items()}

    def next_kept(self, stream: bytes, t: int) -> int:
        """The first t from `t` on that was not let go."""
        return next(
            (last + 1 for first, last in self.missing.get(stream, ()) if first <= t <= last), t
        )

    def last(self, writer: str) -> dict[bytes, int]:
        """The highest t of each of a writer's streams that is cold, or gone."""
        found: dict[bytes, int] = {}
        for part in self.parts:
            for stream, (_, last) in part.streams.get(writer, {}).items():
                key = bytes.fromhex(stream)
                found[key] = max(last, found.get(key, -1))
        for stream, spans in self.gone.get(writer, {}).items():
            key = bytes.fromhex(stream)
            found[key] = max(spans[-1][1], found.get(key, -1))
        return found


def newest_snapshot(store: Path, disk: Disk = REAL) -> int:
    """The version of the newest one; 0 if there is none."""
    return int(next(iter(reversed(_snapshots(store, disk))), "0").partition(".")[0])


def read_snapshot(store: Path, disk: Disk = REAL) -> Snapshot:
    """The newest one. Raises ShardError if it is damaged."""
    for _ in range(_TRIES):
        names = _snapshots(store, disk)
        if not names:
            return Snapshot()
        with contextlib.suppress(FileNotFoundError):  # a newer one came, and the older ones went
            return _parse_snapshot(store / _SNAPSHOTS / names[-1], disk)
    raise ShardError(f"{store / _SNAPSHOTS} changes faster than it can be read", "try again")


def _parse_snapshot(path: Path, disk: Disk) -> Snapshot:
    body, _, digest = disk.read(path).rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ShardError(f"{path} is damaged", "restore the file from a copy")
    try:
        content = json.loads(body)
        parts = tuple(Part(**part) for part in content["parts"])
        snapshot = Snapshot(
            content["version"],
            parts,
            frozenset(content["replaced"]),
            content["let_go"],
            content.get("gone", {}),
            content.get("published_ns", 0),
        )
        foreign: list[str | int] = [n for n in snapshot.replaced if not _REPLACED.fullmatch(n)]
        foreign += [part.file for part in parts if not _PART.fullmatch(part.file)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ShardError(
            f"{path} cannot be read: {error!r}", "the file was not written by xp"
        ) from error
    if foreign or path.name != f"{snapshot.version:06d}.json":
        raise ShardError(
            f"{path} names {(foreign or [snapshot.version])[0]!r}, which is no file of this store",
            "the file was not written by xp",
        )
    return snapshot


def _snapshots(store: Path, disk: Disk) -> list[str]:
    try:
        return [n for n in disk.names(store / _SNAPSHOTS) if n.endswith(".json")]
    except FileNotFoundError:
        return []


def _publish(store: Path, snapshot: Snapshot, disk: Disk) -> None:
    folder = store / _SNAPSHOTS
    content = {**asdict(snapshot), "replaced": sorted(snapshot.replaced)}
    body = dumps(content).encode()
    draft = folder / "draft"
    disk.write_file(draft, [body + b"\n" + hashlib.sha256(body).hexdigest().encode()])
    disk.rename(draft, folder / f"{snapshot.version:06d}.json")
    disk.sync_directory(folder)


Goes = Callable[[pa.Table, Snapshot], np.ndarray]
"""Which rows of a part, sorted by stream and t, are to go [rows]."""


@dataclass
class Compacted:
    """What a compaction did."""

    shards: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows_let_go: int = 0
    blobs_dropped: int = 0
    files_waiting: int = 0


GRACE_SECONDS = 300.0


def compact(
    store: Path,
    to: Format = "parquet",
    *,
    let_go_before_ns: int = 0,
    goes: Goes | None = None,
    grace_seconds: float = GRACE_SECONDS,
    disk: Disk = REAL,
) -> Compacted:
    """Moves every sealed shard into the cold tier, and lets go of rows that ended before `let_go_before_ns` (0: none),
    or of those that `goes` says.

    By age only a stream's beginning is let go, up to its first row that is not old. What amends a row that is let go
    goes with it, and blobs that no row names any more, unless a segment is still being written. Old
    snapshots and the parts that only they name stay for `grace_seconds`, for readers that have opened them; the next
    compaction removes them. Raises ShardError if another compaction runs, or a shard is damaged: then nothing has
    changed.
    """
    if let_go_before_ns and goes is None:
        goes = by_age(let_go_before_ns)
    for folder in (_FOLDER, _SNAPSHOTS):
        disk.make_directory(store / folder)
    with disk.lock(store / _SNAPSHOTS / "LOCK"):
        snapshot, done = read_snapshot(store, disk), Compacted()
        _remove_leftovers(store, snapshot, grace_seconds, disk)
        snapshot = _add_parts(store, snapshot, to, done, disk)
        if goes is not None:
            snapshot = _let_go(store, snapshot, to, goes, done, disk)
        done.files_waiting = _remove_leftovers(store, snapshot, grace_seconds, disk)
        if not any(
            name.endswith(".open") for d in disk.directories(store) for name in disk.names(d)
        ):
            named = (
                digest
                for part in snapshot.parts
                for b in part.batches(store, disk)
                for digest in named_blobs(b)
            )
            done.blobs_dropped, _ = sweep(store, named, disk)
        return done


def _add_parts(
    store: Path, snapshot: Snapshot, to: Format, done: Compacted, disk: Disk
) -> Snapshot:
    """Reads every sealed shard that is not cold yet; shards of equal signal catalogues share a part."""
    waiting: dict[bytes, list[tuple[Path, list[pa.RecordBatch]]]] = defaultdict(list)
    sizes: dict[bytes, int] = defaultdict(int)
    for shard, rows in _sealed(store, snapshot, disk):
        batches = list(read_blocks(shard, disk, rows))
        kind = batches[0].schema.metadata[b"signals"]
        waiting[kind].append((shard, batches))
        sizes[kind] += disk.size(shard)
        if sizes[kind] >= _PART_BYTES:
            snapshot = _add_part(store, snapshot, waiting.pop(kind), to, done, disk)
            sizes[kind] = 0
    for shards in waiting.values():
        snapshot = _add_part(store, snapshot, shards, to, done, disk)
    return snapshot


def _sealed(store: Path, snapshot: Snapshot, disk: Disk) -> Iterator[tuple[Path, int]]:
    """Each hot shard and its rows. Where one has a line but not its final name yet, the writer's next ones wait too."""
    for directory in disk.directories(store):
        for line in read_manifest(directory, disk):
            if f"{directory.name}/{line['file']}" in snapshot.replaced:
                continue
            path = directory / line["file"]
            if not disk.exists(path):
                if disk.exists(path.with_suffix(".open")):
                    break
                if not disk.exists(path):  # it was renamed between the two looks, or it is gone
                    raise ShardError(
                        f"{path} is missing: the manifest names it", "restore the file from a copy"
                    )
            yield path, line["rows"]


def _add_part(
    store: Path,
    snapshot: Snapshot,
    shards: Sequence[tuple[Path, list[pa.RecordBatch]]],
    to: Format,
    done: Compacted,
    disk: Disk,
) -> Snapshot:
    streams = {
        writer: _spans(
            [b for shard, batches in shards for b in batches if shard.parent.name == writer]
        )
        for writer in sorted({shard.parent.name for shard, _ in shards})
    }
    first = shards[0][1][0].schema
    table = pa.Table.from_batches(
        [b.replace_schema_metadata(first.metadata) for _, batches in shards for b in batches]
    )
    version = snapshot.version + 1
    part = _write(store, f"part-{version:06d}.{to}", table, streams, disk)
    done.shards += len(shards)
    done.rows += part.rows
    done.bytes_before += sum(disk.size(shard) for shard, _ in shards)
    done.bytes_after += part.bytes
    replaced = snapshot.replaced | {f"{shard.parent.name}/{shard.name}" for shard, _ in shards}
    new = replace(
        snapshot,
        version=version,
        parts=(*snapshot.parts, part),
        replaced=replaced,
        published_ns=time.time_ns(),
    )
    _publish(store, new, disk)
    return new


def _spans(batches: Sequence[pa.RecordBatch]) -> dict[str, tuple[int, int]]:
    """By stream, the first and last t."""
    table = pa.Table.from_batches(batches).select(["stream_id", "t"])
    found = table.group_by("stream_id").aggregate([("t", "min"), ("t", "max")]).to_pylist()
    return {row["stream_id"].hex(): (row["t_min"], row["t_max"]) for row in found}


def _write(
    store: Path,
    name: str,
    table: pa.Table,
    streams: Mapping[str, Mapping[str, tuple[int, int]]],
    disk: Disk,
) -> Part:
    """A part on disk that was read back and found equal to `table`, sorted."""
    table = table.take(
        pc.sort_indices(
            table.select(["stream_id", "t"]), [("stream_id", "ascending"), ("t", "ascending")]
        )
    ).combine_chunks()
    path = store / _FOLDER / name
    if path.suffix == ".lance":
        size = _write_lance(path, table, disk)
        digest = tree_sha256(path)
    else:
        sink = io.BytesIO()
        parquet.write_table(
            table,
            sink,
            version="2.6",
            compression="zstd",
            compression_level=3,
            row_group_size=rows_a_group(table, _GROUP_ROWS),
            data_page_size=64 << 10,
            write_page_index=True,
            write_page_checksum=True,
            use_dictionary=_WORDS,
            column_encoding={
                "action_logprobs.list.element": "BYTE_STREAM_SPLIT",
                "t": "DELTA_BINARY_PACKED",
            },
            sorting_columns=parquet.SortingColumn.from_ordering(
                table.schema, [("stream_id", "ascending"), ("t", "ascending")]
            ),
        )
        size, digest = sink.tell(), hashlib.sha256(sink.getbuffer()).hexdigest()
        disk.write_file(path, [sink.getvalue()])
    disk.sync_directory(path.parent)
    part = Part(name, table.num_rows, size, digest, streams)
    if not pa.Table.from_batches(part.batches(store, disk)).equals(table):
        raise ShardError(
            f"{path} does not read back as what was written",
            "keep the store as it is and report it",
        )
    return part


def _write_lance(path: Path, table: pa.Table, disk: Disk) -> int:
    _lance().write_dataset(table, str(path))
    size = 0
    for file in path.rglob("*"):  # Lance itself does not sync
        if file.is_file():
            size += file.stat().st_size
            with disk.appending(file) as descriptor:
                disk.sync(descriptor)
        else:
            disk.sync_directory(file)
    disk.sync_directory(path)
    return size


def _lance() -> Any:
    try:
        import lance
    except ImportError as error:
        raise MissingPartError(
            "a part of this store is in Lance's format, which is not installed",
            ".venv/bin/uv pip install -p .venv pylance",
        ) from error
    return lance


def _let_go(
    store: Path, snapshot: Snapshot, to: Format, goes: Goes, done: Compacted, disk: Disk
) -> Snapshot:
    """Parts that hold rows that go are written again without them; first go the amendments of these rows, so that what
    a crash leaves is found again by asking for the same."""
    masks = [goes(_sorted(part, store, disk), snapshot) for part in snapshot.parts]
    here = [(part, mask) for part, mask in zip(snapshot.parts, masks, strict=True) if mask.any()]
    if not here:
        return snapshot
    gone = {
        writer: {stream: list(spans) for stream, spans in of.items()}
        for writer, of in snapshot.gone.items()
    }
    for part, mask in here:
        spans = spans_of(_sorted(part, store, disk).filter(pa.array(mask)))
        for writer, of in part.streams.items():
            for stream in of.keys() & spans.keys():
                known = gone.setdefault(writer, {})
                known[stream] = merged([*known.get(stream, ()), *spans[stream]])
    drop_amendments(store, _by_stream(gone), disk)
    version, parts = snapshot.version + 1, []
    for number, (part, mask) in enumerate(zip(snapshot.parts, masks, strict=True)):
        if not mask.any():
            parts.append(part)
            continue
        done.rows_let_go += int(mask.sum())
        rest = without(_sorted(part, store, disk), mask)
        if rest.num_rows:
            left = spans_of(rest)
            streams = {
                w: {s: (left[s][0][0], left[s][-1][1]) for s in of if s in left}
                for w, of in part.streams.items()
            }
            parts.append(
                _write(
                    store,
                    f"part-{version:06d}-{number}.{part.file.rpartition('.')[2]}",
                    rest,
                    streams,
                    disk,
                )
            )
    begins = {
        stream: spans[0][1] + 1 for stream, spans in _by_stream(gone).items() if spans[0][0] == 0
    }
    new = replace(
        snapshot,
        version=version,
        parts=tuple(parts),
        gone=gone,
        let_go={**snapshot.let_go, **begins},
        published_ns=time.time_ns(),
    )
    _publish(store, new, disk)
    return new


def by_age(before_ns: int) -> Goes:
    """Rows that ended before `before_ns`. It is to be asked about all parts, in their order."""
    begins: dict[str, int] = {}

    def goes(table: pa.Table, snapshot: Snapshot) -> np.ndarray:
        for stream, count in snapshot.let_go.items():
            begins.setdefault(stream, count)
        return older_than(table, before_ns, begins)

    return goes


def _sorted(part: Part, store: Path, disk: Disk) -> pa.Table:
    return pa.Table.from_batches(part.batches(store, disk))


def _by_stream(gone: Gone) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = defaultdict(list)
    for of in gone.values():
        for stream, spans in of.items():
            found[stream] = merged([*found[stream], *spans])
    return found


def _remove_leftovers(store: Path, snapshot: Snapshot, grace_seconds: float, disk: Disk) -> int:
    """Shards that a part stands for; and snapshots that were replaced more than `grace_seconds` ago, with the cold
    files that no other snapshot names. Returns how many files wait for their time."""
    for name in snapshot.replaced:
        shard = store / name
        for leftover in (
            shard.with_suffix(".open"),
            shard.with_suffix(".commit"),
            shard,
            shard.with_suffix(".blocks"),
        ):
            if disk.exists(leftover):
                disk.remove(leftover)
    kept, waiting, replaced_at = {part.file for part in snapshot.parts}, 0, snapshot.published_ns
    for name in reversed(_snapshots(store, disk)):
        if name == f"{snapshot.version:06d}.json":
            continue
        old = _parse_snapshot(store / _SNAPSHOTS / name, disk)
        if time.time_ns() - replaced_at < grace_seconds * 1e9:
            only_there = {part.file for part in old.parts} - kept
            kept |= only_there
            waiting += 1 + len(only_there)
        else:
            disk.remove(store / _SNAPSHOTS / name)
        replaced_at = old.published_ns
    for name in disk.names(store / _FOLDER):
        if name not in kept:
            disk.remove_tree(store / _FOLDER / name)
    return waiting
