"""Verification: what is wrong with a store, where, and what to do. Nothing is changed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.cold.snapshot import Snapshot, read_snapshot
from experience.shards.record.schema import conform
from experience.shards.storage.amendment_files import FOLDER, dangling
from experience.shards.storage.blobs import BlobReader, named_blobs
from experience.shards.storage.blocks import (
    COMMIT,
    BlockReader,
    Commit,
    ends_the_stream,
    keys,
    log_of,
    read_commits,
)
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import EPISODES
from experience.shards.storage.manifest import Line, read_manifest
from experience.shards.storage.sums import read_checked


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


def verify_run(run: Path, *, deep: bool = False) -> Verified:
    """Checks a run's directory: its shards, what was imagined, and its checkpoints."""
    result = Verified()
    for store in (run / "shards", run / "imagined"):
        found = verify(store, deep=deep)
        for name, value in vars(found).items():
            setattr(result, name, getattr(result, name) + value)
    for checkpoint in sorted((run / "checkpoints").glob("[!.]*")):
        with _noted(result.problems, str(checkpoint), "restore it from a copy, or remove it"):
            result.bytes += sum(map(len, read_checked(checkpoint).values()))
    return result


def verify(store: Path, *, deep: bool = False, disk: Disk = REAL) -> Verified:
    """The problems of every writer's directory below `store`, whatever its bytes are.

    Checked always: the manifests' chains, that every shard is there with its number of rows, commit
    logs, the CRC of every block before Arrow parses it, the SHA-256 of cold parts, schemas, and
    that each stream is gapless and holds nothing twice. `deep` also compares whole shards and blobs
    with their SHA-256, and every value with its type.
    """
    result = Verified()
    streams: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    named: set[bytes] = set()
    snapshot = Snapshot()
    with _noted(result.problems, str(store / "snapshots")):
        snapshot = read_snapshot(store, disk)
    # Without the snapshot nobody can tell a lost shard from one that went cold.
    if result.problems:
        return result
    # In this order: reading the rows fills `streams` and `named`, which the last three compare.
    looked = [
        (writer, _writer(writer, snapshot.replaced, deep, disk, result, streams, named))
        for writer in disk.directories(store)
    ]
    looked += [
        (part.path(store), _part(store, part, deep, disk, result, streams, named))
        for part in snapshot.parts
    ]
    looked += [
        (store, _blobs(store, named, deep, disk, result)),
        (store / FOLDER, _amendments(store, streams, disk)),
        (store, _streams(snapshot, streams)),
        (store / EPISODES, _saved_index(store, disk)),
    ]
    for where, problems in looked:
        with _noted(result.problems, str(where)):
            result.problems += problems
    return result


@contextmanager
def _noted(
    problems: list[Problem], where: str, remedy: str = "restore it from a copy"
) -> Iterator[None]:
    """An error of any kind becomes a problem: a damaged byte may lead any parser anywhere."""
    try:
        yield
    except ShardError as error:
        problems.append(Problem(where, str(error).partition("\n")[0], remedy))
    except Exception as error:  # noqa: BLE001
        said = f"it cannot be read: {type(error).__name__}: {error}"
        problems.append(Problem(where, said.partition("\n")[0], remedy))


def _saved_index(store: Path, disk: Disk) -> Iterator[Problem]:
    """It ends in the SHA-256 of what stands before it."""
    if not disk.exists(store / EPISODES):
        return
    data = disk.read(store / EPISODES)
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        what = "the saved index of episodes is damaged, and no reader believes it"
        yield Problem(str(store / EPISODES), what, "remove it: it is made again from the rows")


def _amendments(
    store: Path, streams: Mapping[bytes, list[tuple[int, int]]], disk: Disk
) -> Iterator[Problem]:
    """Each must be whole, and amend a step that is there."""
    for what in dangling(store, streams, disk):
        yield Problem(str(store / FOLDER), what, "restore the step from a copy")


def _streams(snapshot: Snapshot, streams: dict[bytes, list[tuple[int, int]]]) -> Iterator[Problem]:
    """Each stream must be gapless from where it begins, and hold nothing twice."""
    for stream, gone in snapshot.removed_spans.items():
        streams[stream] = [*streams.get(stream, ()), *gone]
    for stream, spans in streams.items():
        expected = 0
        for first, last in sorted(spans):
            if first != expected:
                kind = "rows are missing" if first > expected else "rows are doubled"
                yield Problem(
                    f"stream {stream.hex()}",
                    f"{kind} at t = {min(first, expected)}",
                    "restore the shard that held them from a copy",
                )
            expected = max(expected, last + 1)


def _blobs(
    store: Path, named: set[bytes], deep: bool, disk: Disk, result: Verified
) -> Iterator[Problem]:
    """Every blob that a row names must be there; `deep`: and be what its name says."""
    reader = BlobReader(store, disk)
    for digest in sorted(named):
        problems: list[Problem] = []
        with _noted(problems, str(store), "restore the pack that held it from a copy"):
            if deep:
                result.bytes += len(reader.read(digest))
            elif digest not in reader:
                raise ShardError(f"blob {digest.hex()} is missing")
        yield from problems
    result.blobs = len(named)


def _part(
    store: Path,
    part: Part,
    deep: bool,
    disk: Disk,
    result: Verified,
    streams: dict[bytes, list[tuple[int, int]]],
    named: set[bytes],
) -> Iterator[Problem]:
    path, rows = part.path(store), 0
    if not disk.exists(path):
        yield Problem(
            str(path), "the snapshot names it, but it is not there", "restore it from a copy"
        )
        return
    for batch in part.batches(store, disk):
        if deep:
            batch.validate(full=True)
        rows += batch.num_rows
        named |= named_blobs(batch)
        _note(batch, streams)
    if rows != part.rows:
        yield Problem(
            str(path),
            f"it holds {rows} rows, the snapshot says {part.rows}",
            "restore it from a copy",
        )
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


def _writer(
    directory: Path,
    replaced: frozenset[str],
    deep: bool,
    disk: Disk,
    result: Verified,
    streams: dict[bytes, list[tuple[int, int]]],
    named: set[bytes],
) -> Iterator[Problem]:
    lines: list[Line] = []
    problems: list[Problem] = []
    with _noted(problems, str(directory / "MANIFEST")):
        lines = read_manifest(directory, disk)
    yield from problems
    gone = {name.partition("/")[2] for name in replaced if name.startswith(f"{directory.name}/")}
    listed = {line["file"]: line for line in lines if line["file"] not in gone}
    names = disk.names(directory)
    for name in sorted(listed.keys() - set(names)):
        # The line comes before the sealed name: between the two a shard is still called `.open`.
        if name.replace(".arrow", ".open") not in names:
            yield Problem(
                str(directory / name),
                "the manifest names it, but it is not there",
                "restore it from a copy",
            )
    for name in names:
        path = directory / name
        sealed = path.with_suffix(".arrow").name
        if (
            path.suffix not in (".arrow", ".open")
            or sealed in gone
            or (path.suffix == ".open" and sealed in names)
        ):
            continue
        result.segments += 1
        problems = []
        with _noted(problems, str(path), "restore the file from a copy"):
            problems += _segment(path, listed.get(sealed), deep, disk, result, streams, named)
        yield from problems


def _segment(
    path: Path,
    line: Line | None,
    deep: bool,
    disk: Disk,
    result: Verified,
    streams: dict[bytes, list[tuple[int, int]]],
    named: set[bytes],
) -> Iterator[Problem]:
    log_path = log_of(path, disk)
    if not disk.exists(log_path) and disk.size(path):
        yield Problem(str(log_path), "the commit log is missing", "restore the file from a copy")
        return
    log = disk.read(log_path) if disk.exists(log_path) else b""
    commits: list[Commit] = []
    problems: list[Problem] = []
    with _noted(problems, str(log_path), "restore the file from a copy"):
        commits.extend(read_commits(log, where=str(log_path)))
    rows = commits[-1].last_seq + 1 if commits else 0
    if not problems and path.suffix == ".arrow" and len(commits) * COMMIT.size != len(log):
        yield Problem(
            str(log_path), f"record {len(commits)} is damaged", "restore the file from a copy"
        )
    if not problems and line is not None and rows != line["rows"]:
        yield Problem(
            str(log_path),
            f"it tells of {rows} rows, the manifest of {line['rows']}",
            "restore the file from a copy",
        )
    yield from problems
    if path.suffix == ".arrow":
        yield from _sealed(path, line, commits, deep, disk)
    reader = BlockReader(path, disk)
    for commit in commits:
        problems = []
        with _noted(problems, str(path), "restore the file from a copy"):
            batch = conform(reader.parse(reader.block(commit), commit).batch)
            if deep:
                batch.validate(full=True)
            result.rows += commit.rows
            result.bytes += commit.end - commit.start
            named |= named_blobs(batch)
            _note(batch, streams)
        yield from problems


def _sealed(
    path: Path, line: Line | None, commits: Sequence[Commit], deep: bool, disk: Disk
) -> Iterator[Problem]:
    """Compares the whole file with its line in the manifest.

    Without a line, an older format's writer may have been killed before it wrote one.
    """
    if line is None:
        whole = bool(commits) and ends_the_stream(path, commits[-1].end, disk)
        yield Problem(
            str(path),
            "a sealed shard is not in the manifest",
            "resume the run: it is added" if whole else "restore the manifest from a copy",
            whole,
        )
        return
    size = disk.size(path)
    if size != line["bytes"] or (
        deep and hashlib.sha256(disk.read(path)).hexdigest() != line["sha256"]
    ):
        yield Problem(
            str(path),
            f"its bytes differ from the manifest's SHA-256 ({size} bytes, {line['bytes']} "
            "expected)",
            "restore the file from a copy",
        )
