"""Verification: what is wrong with a store, where, and what can be done about it. Nothing is changed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.amend import FOLDER, amendments
from experience.shards.blobs import BlobReader, named_blobs
from experience.shards.blocks import COMMIT, BlockReader, keys, read_commits
from experience.shards.cold import Part, read_snapshot
from experience.shards.disk import REAL, Disk
from experience.shards.manifest import read_manifest


@dataclass(frozen=True)
class Problem:
    """`repairable`: opening the journal again (./xp resume) mends it without losing a row."""

    where: str
    what: str
    remedy: str
    repairable: bool = False


@dataclass
class Verified:
    """What was looked at, and what is wrong with it."""

    segments: int = 0
    rows: int = 0
    bytes: int = 0
    blobs: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify(store: Path, *, deep: bool = False, disk: Disk = REAL) -> Verified:
    """Checks every writer's directory below `store`.

    Always: the manifests' chains, that every shard is there with its number of rows, commit logs, the CRC of every
    block before Arrow parses it, schemas, and that each stream is gapless and holds nothing twice. `deep` also holds
    whole shards against their SHA-256, and every value against its type.
    """
    result = Verified()
    streams: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    named: set[bytes] = set()
    try:
        snapshot = read_snapshot(store, disk)
    except ShardError as error:
        return Verified(problems=[Problem(str(store / "snapshots"), str(error).partition("\n")[0],
                                          "restore it from a copy")])
    for writer in disk.directories(store):
        result.problems += _writer(writer, snapshot.replaced, deep, disk, result, streams, named)
    for part in snapshot.parts:
        result.problems += _part(store, part, deep, disk, result, streams, named)
    result.problems += _blobs(store, named, deep, disk, result)
    try:
        amendments(store, disk)
    except ShardError as error:
        result.problems.append(Problem(str(store / FOLDER), str(error).partition("\n")[0], "restore it from a copy"))
    for stream, spans in streams.items():
        expected = snapshot.let_go.get(stream.hex(), 0)
        for first, last in sorted(spans):
            if first != expected:
                kind = "rows are missing" if first > expected else "rows are doubled"
                result.problems.append(Problem(f"stream {stream.hex()}", f"{kind} at t = {min(first, expected)}",
                                               "restore the shard that held them from a copy"))
            expected = max(expected, last + 1)
    return result


def _blobs(store: Path, named: set[bytes], deep: bool, disk: Disk, result: Verified) -> Iterator[Problem]:
    """Every blob that a row names must be there; `deep`: and be what its name says."""
    reader = BlobReader(store, disk)
    for digest in sorted(named):
        try:
            if deep:
                result.bytes += len(reader.read(digest))
            elif digest not in reader:
                raise ShardError(f"blob {digest.hex()} is missing")
        except (ShardError, OSError) as error:
            yield Problem(str(store), str(error).partition("\n")[0], "restore the pack that held it from a copy")
    result.blobs = len(named)


def _part(store: Path, part: Part, deep: bool, disk: Disk, result: Verified,
          streams: dict[bytes, list[tuple[int, int]]], named: set[bytes]) -> Iterator[Problem]:
    path, rows = part.path(store), 0
    if not disk.exists(path):
        yield Problem(str(path), "the snapshot names it, but it is not there", "restore it from a copy")
        return
    if deep and part.sha256 and hashlib.sha256(disk.read(path)).hexdigest() != part.sha256:
        yield Problem(str(path), "its bytes differ from the snapshot's SHA-256", "restore the file from a copy")
    try:
        for batch in part.batches(store, disk):
            if deep:
                batch.validate(full=True)
            rows += batch.num_rows
            named |= named_blobs(batch)
            _note(batch, streams)
    except (ShardError, ValueError, OSError) as error:
        yield Problem(str(path), str(error).partition("\n")[0], "restore the file from a copy")
        return
    if rows != part.rows:
        yield Problem(str(path), f"it holds {rows} rows, the snapshot says {part.rows}", "restore it from a copy")
    result.segments += 1
    result.rows += rows
    result.bytes += part.bytes


def _note(batch: pa.RecordBatch, streams: dict[bytes, list[tuple[int, int]]]) -> None:
    for stream, t in keys(batch):
        spans = streams[stream]
        if spans and spans[-1][1] == t - 1:
            spans[-1] = (spans[-1][0], t)
        else:
            spans.append((t, t))


def _writer(directory: Path, replaced: frozenset[str], deep: bool, disk: Disk, result: Verified,
            streams: dict[bytes, list[tuple[int, int]]], named: set[bytes]) -> Iterator[Problem]:
    try:
        listed = {line["file"]: line for line in read_manifest(directory, disk)
                  if f"{directory.name}/{line['file']}" not in replaced}
    except ShardError as error:
        yield Problem(str(directory / "MANIFEST"), str(error), "restore it from a copy")
        listed = {}
    names = disk.names(directory)
    for name in sorted(listed.keys() - set(names)):
        yield Problem(str(directory / name), "the manifest names it, but it is not there", "restore it from a copy")
    for name in names:
        path = directory / name
        if path.suffix not in (".arrow", ".open") or f"{directory.name}/{name}" in replaced:
            continue
        result.segments += 1
        line = listed.get(name)
        if path.suffix == ".arrow" and line is None:
            yield Problem(str(path), "a sealed shard is not in the manifest", "resume the run: it is added", True)
        if line is not None and deep:
            whole = disk.read(path)
            if len(whole) != line["bytes"] or hashlib.sha256(whole).hexdigest() != line["sha256"]:
                yield Problem(str(path), f"its bytes differ from the manifest's SHA-256 ({len(whole)} bytes, "
                              f"{line['bytes']} expected)", "restore the file from a copy")
        yield from _segment(path, line["rows"] if line else None, deep, disk, result, streams, named)


def _segment(path: Path, rows: int | None, deep: bool, disk: Disk, result: Verified,
             streams: dict[bytes, list[tuple[int, int]]], named: set[bytes]) -> Iterator[Problem]:
    log_path = path.with_suffix(".commit")
    log = disk.read(log_path) if disk.exists(log_path) else b""
    commits = list(read_commits(log))
    if path.suffix == ".arrow" and len(commits) * COMMIT.size != len(log):
        yield Problem(str(log_path), f"record {len(commits)} is damaged", "restore the file from a copy")
    if path.suffix == ".arrow" and rows is not None and (commits[-1].last_seq + 1 if commits else 0) != rows:
        yield Problem(str(log_path), f"it tells of {commits[-1].last_seq + 1 if commits else 0} rows, the manifest "
                      f"of {rows}", "restore the file from a copy")
    reader = BlockReader(path, disk)
    for commit in commits:
        try:
            batch = reader.parse(reader.block(commit), commit)
            if deep:
                batch.validate(full=True)
        except (ShardError, ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
            yield Problem(str(path), str(error).partition("\n")[0], "restore the file from a copy")
            continue
        result.rows += commit.rows
        result.bytes += commit.end - commit.start
        named |= named_blobs(batch)
        _note(batch, streams)
