"""Sealing: a segment becomes an immutable shard, by its writer or by the next after a crash.

Three ways, in each of which the manifest's line comes before the sealed name:
    rewrite     the rows as few large blocks, compressed by lz4; read back and compared before the
                line. Needs room for a copy. Its commit log is `.blocks`. The columns stay of one
                type in all shards: other readers (Polars) refuse files of strings and dictionaries.
    in place    the footer behind the blocks as they are: for a full disk, or large blocks
    copy        as in place, but another incarnation's file is left alone: it may still be writing
Covers: a kill or a power cut at any instant; a call that fails. Until the sealed name is there, the
open segment holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.cold.snapshot import newest_snapshot, read_snapshot
from experience.shards.record.schema import conform
from experience.shards.storage.blocks import (
    COMMIT,
    BlockReader,
    Commit,
    ends_the_stream,
    keys,
    read_blocks,
    read_commits,
)
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.manifest import append_manifest, read_manifest

BLOCK_ROWS = 1024
"""Rows of a rewritten block, unless they are large. Damage costs a block, not the whole shard."""
_BLOCK_BYTES = 4 << 20
_SMALL_SHARE = 4  # blocks that hold less than this share of BLOCK_ROWS are worth rewriting


class Encoder:
    """An Arrow file in the making: gives the bytes of each part as it comes."""

    def __init__(self, of: pa.Schema, compression: str | None = None) -> None:
        self._pending: list[bytes] = []
        self._file = pa.BufferedOutputStream(pa.PythonFile(_Sink(self._pending), mode="w"), 1 << 20)
        self._writer = pa.ipc.new_file(
            self._file, of, options=pa.ipc.IpcWriteOptions(compression=compression)
        )

    def block(self, batch: pa.RecordBatch) -> bytes:
        self._writer.write_batch(batch)
        return self._take()

    def footer(self) -> bytes:
        self._writer.close()
        return self._take()

    def _take(self) -> bytes:
        self._file.flush()
        block = b"".join(self._pending)
        self._pending.clear()
        return block


class _Sink:
    """A file, as Arrow wants one, that is a list of what was written."""

    closed = False

    def __init__(self, parts: list[bytes]) -> None:
        self._parts, self._size = parts, 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None: ...
    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def recover(directory: Path, disk: Disk = REAL) -> dict[bytes, int]:
    """Seals what earlier incarnations left open, keeping exactly the acknowledged rows.

    Returns the last acknowledged t per stream, over all shards of this writer, hot and cold.
    Raises ShardError if an acknowledged block is damaged: that is never repaired silently.
    """
    names = disk.names(directory)
    for name in names:
        path = directory / name
        if path.suffix in (".draft", ".log-draft") or (
            path.suffix == ".blocks" and path.with_suffix(".arrow").name not in names
        ):
            disk.remove(path)
            disk.sync_directory(directory)
    for name in names:
        path = directory / name
        if path.suffix == ".open" and path.with_suffix(".arrow").name in names:
            disk.remove(path)  # killed after its copy was sealed
        elif (
            path.suffix == ".commit"
            and path.with_suffix(".blocks").name in names
            and (path.with_suffix(".arrow").name in names)
        ):
            disk.remove(path)  # killed after its blocks were rewritten
        elif path.suffix == ".open":
            seal_copy(path, disk)
    lines = {line["file"]: line for line in read_manifest(directory, disk)}
    shards = [directory / name for name in disk.names(directory) if name.endswith(".arrow")]
    snapshot = read_snapshot(directory.parent, disk)
    last = snapshot.last(directory.name)
    lost = [
        name
        for name in lines
        if directory / name not in shards and f"{directory.name}/{name}" not in snapshot.replaced
    ]
    if lost and newest_snapshot(directory.parent, disk) == snapshot.version:
        raise ShardError(
            f"{directory / lost[0]} is missing: the manifest names it",
            "restore the file from a copy",
        )
    for path in shards:
        if f"{directory.name}/{path.name}" in snapshot.replaced:
            continue
        line = lines.get(path.name)
        try:
            for batch in read_blocks(path, disk, line["rows"] if line else None):
                for stream, t in keys(batch):
                    last[stream] = max(t, last.get(stream, -1))
        except FileNotFoundError:
            if newest_snapshot(directory.parent, disk) == snapshot.version:
                raise
            return recover(directory, disk)  # the shard went cold meanwhile
        if line is None:
            _add_to_manifest(path, disk)
    return last


def is_worth_rewriting(rows: int, blocks: int, block_rows: int = BLOCK_ROWS) -> bool:
    return blocks > 1 and rows < blocks * (block_rows // _SMALL_SHARE)


def rewrite(
    path: Path,
    disk: Disk,
    still_mine: Callable[[], None] = lambda: None,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Seals the acknowledged rows of segment `path` as large blocks.

    `still_mine` raises if a newer incarnation has taken them over.

    Raises OSError if the disk failed or is full, ShardError if a block is damaged or the copy does
    not read back as the rows that were written: the segment is then as it was, but for drafts (see
    `remove_drafts`).
    """
    small = list(BlockReader(path, disk).read())
    rows = list(_joined([conform(b.batch) for b in small], block_rows))
    encoder, commits = Encoder(rows[0].schema, compression="lz4"), list[Commit]()
    whole, end, last = hashlib.sha256(), 0, -1

    def parts() -> Iterator[bytes]:
        nonlocal end, last
        for batch in rows:
            data = encoder.block(batch)
            commits.append(
                Commit.of(data, end, last + batch.num_rows, batch.num_rows, small[-1].commit.t_ns)
            )
            end, last = commits[-1].end, commits[-1].last_seq
            yield data
        footer = encoder.footer()
        end += len(footer)
        yield footer

    draft, log = path.with_suffix(".draft"), path.with_suffix(".blocks")
    disk.write_file(draft, _hashing(parts(), whole))
    disk.write_file(log, [b"".join(commit.pack() for commit in commits)])
    disk.sync_directory(path.parent)
    back = [conform(b.batch) for b in BlockReader(draft, disk, log).read(last + 1)]
    if len(back) != len(rows) or not all(_same(a, b) for a, b in zip(back, rows, strict=True)):
        raise ShardError(
            f"{draft} does not read back as the rows of {path}",
            "keep the run directory and report it",
        )
    still_mine()
    publish(path, draft, last + 1, end, whole.hexdigest(), disk)
    for leftover in (path, path.with_suffix(".commit")):
        disk.remove(leftover)


def remove_drafts(path: Path, disk: Disk) -> None:
    """What a rewriting that failed left: before the segment is sealed otherwise, since a `.blocks`
    log beside a sealed shard is taken for its own."""
    found = [p for p in (path.with_suffix(".draft"), path.with_suffix(".blocks")) if disk.exists(p)]
    for draft in found:
        disk.remove(draft)
    if found:
        disk.sync_directory(path.parent)


def _joined(batches: Sequence[pa.RecordBatch], block_rows: int) -> Iterator[pa.RecordBatch]:
    """Successive batches joined to ones of at most `block_rows` rows and some 4 MiB."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and (rows + batch.num_rows > block_rows or size + batch.nbytes > _BLOCK_BYTES):
            yield pa.concat_batches(group)
            group, rows, size = [], 0, 0
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if group:
        yield pa.concat_batches(group)


def _same(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Equal, where NaN equals NaN."""
    return bool(a.equals(b)) or repr(a.to_pylist()) == repr(b.to_pylist())


def seal_copy(path: Path, disk: Disk) -> None:
    """Seals what another incarnation left open, as a copy.

    Should that incarnation still be writing, it writes to the old files.
    """
    log = path.with_suffix(".commit")
    commits = list(read_commits(disk.read(log), where=str(log))) if disk.exists(log) else []
    if not commits:  # nothing was ever acknowledged
        disk.remove(path)
        if disk.exists(log):
            disk.remove(log)
        return
    if is_worth_rewriting(commits[-1].last_seq + 1, len(commits)):
        rewrite(path, disk)
        return
    footer = _footer(path, disk)
    disk.write_file(path.with_suffix(".log-draft"), [b"".join(c.pack() for c in commits)])
    parts = chain((disk.read(path, c.start, c.end) for c in commits), [footer])
    draft, whole = path.with_suffix(".draft"), hashlib.sha256()
    disk.write_file(draft, _hashing(parts, whole))
    disk.rename(path.with_suffix(".log-draft"), log)
    disk.sync_directory(path.parent)
    publish(
        path,
        draft,
        commits[-1].last_seq + 1,
        commits[-1].end + len(footer),
        whole.hexdigest(),
        disk,
    )
    disk.remove(path)


def _hashing(parts: Iterable[bytes], whole: hashlib._Hash) -> Iterator[bytes]:
    """`parts` as they are, each added to `whole` on its way."""
    for part in parts:
        whole.update(part)
        yield part


def seal_in_place(path: Path, disk: Disk) -> None:
    """Seals our own segment at its last commit; it needs room for the footer alone."""
    log, sealed = path.with_suffix(".commit"), path.with_suffix(".arrow")
    if disk.exists(sealed):  # the failure came after the rename
        disk.sync_directory(path.parent)
        for leftover in (path, log):
            if disk.exists(path.with_suffix(".blocks")) and disk.exists(leftover):
                disk.remove(leftover)
        return
    commits = list(read_commits(disk.read(log), where=str(log)))
    if not commits:
        for leftover in (path, log):
            if disk.exists(leftover):
                disk.remove(leftover)
        return
    remove_drafts(path, disk)
    footer = _footer(path, disk)
    with disk.appending(path) as descriptor:
        disk.truncate(descriptor, commits[-1].end)
        disk.write(descriptor, footer)
        disk.sync(descriptor)
    whole = hashlib.sha256(disk.read(path)).hexdigest()
    publish(path, path, commits[-1].last_seq + 1, commits[-1].end + len(footer), whole, disk)


def _add_to_manifest(path: Path, disk: Disk) -> None:
    """A shard of an older format, whose line was written after its name: killed in between, it has
    none yet."""
    commits = list(read_commits(disk.read(path.with_suffix(".commit")), where=str(path)))
    if not commits or not ends_the_stream(path, commits[-1].end, disk):
        raise ShardError(
            f"{path}: its commit log and the manifest lack rows that it holds",
            "restore the manifest from a copy",
        )
    append_manifest(
        path,
        commits[-1].last_seq + 1,
        disk.size(path),
        hashlib.sha256(disk.read(path)).hexdigest(),
        disk,
    )


def truncate_log(path: Path, commits: int, disk: Disk) -> None:
    """Takes back a record that may be there although its commit failed."""
    with disk.appending(path.with_suffix(".commit")) as log:
        disk.truncate(log, commits * COMMIT.size)
        disk.sync(log)


def _footer(path: Path, disk: Disk) -> bytes:
    """What the writer would have put behind the committed blocks: the same batches give the same
    bytes, then it."""
    encoder = None
    for block in BlockReader(path, disk).read():
        encoder = encoder or Encoder(block.batch.schema)
        if encoder.block(block.batch) != block.data:
            raise ShardError(
                f"{path}: sealing would change acknowledged bytes", "keep the file and report it"
            )
    assert encoder is not None
    return encoder.footer()


def publish(path: Path, contents: Path, rows: int, size: int, sha256: str, disk: Disk) -> Path:
    """Gives `contents`, which is on disk, the sealed name of segment `path`."""
    sealed = path.with_suffix(".arrow")
    append_manifest(
        sealed, rows, size, sha256, disk
    )  # first: a sealed shard without a line is one whose line is lost
    disk.rename(
        contents, sealed
    )  # a reader sees a whole shard or an open segment, never half of one
    disk.sync_directory(path.parent)
    return sealed
