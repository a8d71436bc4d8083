"""Blobs: screenshots and other large observations, each stored once under its SHA-256.

The bytes are those that the world gave. A writer's packs lie beside its segments, one file after
another: `pack-<epoch>-<n>.blobs`, entries of
    mark (8 bytes) | size u64 | SHA-256 (32 bytes) | CRC-32 of all that | the bytes
A row is committed only after the blobs that it names are on disk, so that no row names a blob of a
torn tail. Content is compared with its name whenever it is read; where an entry's head is damaged,
reading goes on at the next mark.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk
from experience.step import Blob

MARK = b"\x89xpblob\n"
ENTRY = struct.Struct("<8sQ32sI")
MOST_BYTES = 64 << 20
_PACK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Where a blob's bytes are: [start, start + size) of a pack."""

    pack: Path
    start: int
    size: int


class Packer:
    """Keeps blobs for one writer. Invariant: what `flush` returned for is on disk."""

    def __init__(
        self, directory: Path, epoch: int, disk: Disk = REAL, *, durable: bool = True
    ) -> None:
        self._directory, self._epoch, self._disk, self._durable = directory, epoch, disk, durable
        self._known = {
            digest for pack in packs(directory, disk) for digest, _ in entries(pack, disk)
        }
        self._pending: dict[bytes, bytes] = {}
        self._pack, self._size, self._number = -1, 0, 0

    def put(
        self, data: bytes, media: str, width: int = 0, height: int = 0, *, role: str = ""
    ) -> Blob:
        """Queues the blob for writing with the next commit, once, and returns its reference."""
        if len(data) > MOST_BYTES:
            raise ShardError(
                f"a blob of {len(data)} bytes", f"keep blobs under {MOST_BYTES >> 20} MiB"
            )
        digest = hashlib.sha256(data).digest()
        # By content: a screen that does not change costs its bytes once, however long it is seen.
        if digest not in self._known:
            self._pending[digest] = data
        return Blob(digest, media, len(data), width, height, role)

    @property
    def pending(self) -> bool:
        """Whether there are blobs that are not on disk yet."""
        return bool(self._pending)

    def flush(self) -> None:
        """Writes the queued blobs durably.

        Raises OSError if the disk failed: then none of them counts, and the next try is in a new
        pack.
        """
        if not self._pending:
            return
        try:
            if self._pack < 0:
                self._begin_pack()
            for digest, data in self._pending.items():
                self._disk.write(self._pack, _head(digest, len(data)) + data)
                self._size += ENTRY.size + len(data)
            if self._durable:
                self._disk.sync(self._pack)
        except OSError:
            # After a failed sync the kernel may drop what it had not written: a new pack is begun.
            self._end_pack()
            raise
        self._known |= self._pending.keys()
        self._pending.clear()
        if self._size >= _PACK_BYTES:
            self._end_pack()

    def close(self) -> None:
        if self._pack >= 0:
            self._end_pack()

    def _begin_pack(self) -> None:
        self._number += 1
        self._pack = self._disk.create(
            self._directory / f"pack-{self._epoch:06d}-{self._number:06d}.blobs"
        )
        self._size = 0
        self._disk.sync_directory(self._directory)

    def _end_pack(self) -> None:
        pack, self._pack = self._pack, -1
        if pack >= 0:
            self._disk.close(pack)


class BlobReader:
    """Finds blobs in every writer's packs below one directory, while they grow."""

    def __init__(self, store: Path, disk: Disk = REAL) -> None:
        self._store, self._disk = store, disk
        self._locations: dict[bytes, BlobLocation] = {}
        self._ends: dict[Path, int] = {}

    def __contains__(self, digest: bytes) -> bool:
        if digest not in self._locations:
            self.refresh()
        return digest in self._locations

    def read(self, digest: bytes) -> bytes:
        """A blob's bytes. Raises ShardError if it is missing, or is not what its name says."""
        if digest not in self:
            raise ShardError(
                f"{self._store}: blob {digest.hex()} is missing",
                "restore the pack that held it from a copy",
            )
        location = self._locations[digest]
        data = self._disk.read(location.pack, location.start, location.start + location.size)
        if hashlib.sha256(data).digest() != digest:
            raise ShardError(
                f"{location.pack}: blob {digest.hex()} at byte {location.start} is damaged",
                "restore the pack from a copy; the other blobs are readable",
            )
        return data

    def refresh(self) -> None:
        for directory in self._disk.directories(self._store):
            for pack in packs(directory, self._disk):
                for digest, location in entries(pack, self._disk, self._ends.get(pack, 0)):
                    self._locations.setdefault(digest, location)
                    self._ends[pack] = location.start + location.size


def media_and_size(data: bytes) -> tuple[str, int, int]:
    """(media type, width, height) by an image's first bytes; the size is 0 unless it is PNG."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return "image/png", *struct.unpack_from(">II", data, 16)
    known = {b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
    return (
        next(
            (media for head, media in known.items() if data.startswith(head)),
            "application/octet-stream",
        ),
        0,
        0,
    )


def packs(directory: Path, disk: Disk = REAL) -> list[Path]:
    return [directory / name for name in disk.names(directory) if name.endswith(".blobs")]


def entries(pack: Path, disk: Disk = REAL, start: int = 0) -> Iterator[tuple[bytes, BlobLocation]]:
    """The whole entries of a pack from byte `start` on; a torn tail is passed over."""
    end = disk.size(pack)
    while start + ENTRY.size <= end:
        head = disk.read(pack, start, start + ENTRY.size)
        _, size, digest, _ = ENTRY.unpack(head)
        if head != _head(digest, size):
            start = _next_mark(pack, start + 1, end, disk)
            continue
        start += ENTRY.size
        if start + size > end:
            return
        yield digest, BlobLocation(pack, start, size)
        start += size


def _head(digest: bytes, size: int) -> bytes:
    checked = ENTRY.pack(MARK, size, digest, 0)[:-4]
    return checked + zlib.crc32(checked).to_bytes(4, "little")


def _next_mark(pack: Path, start: int, end: int, disk: Disk) -> int:
    while start < end:
        # Windows overlap by a mark, which may lie across their border.
        window = disk.read(pack, start, start + (1 << 20) + len(MARK))
        found = window.find(MARK)
        if found >= 0:
            return start + found
        start += 1 << 20
    return end


def named_blobs(batch: pa.RecordBatch) -> set[bytes]:
    """The hashes that a batch's rows name."""
    column = batch.column("obs_blobs")
    return (
        set()
        if column.null_count == len(column)
        else set(column.flatten().field("hash").to_pylist())
    )


def sweep(store: Path, named: Iterable[bytes], disk: Disk = REAL) -> tuple[int, int]:
    """Drops blobs that no row names, and all but one copy of each; (blobs, bytes) dropped.

    Only for a store that nobody writes to. A pack is replaced by a shorter one in one rename, or
    removed.
    """
    wanted, dropped, freed = set(named), 0, 0
    for directory in disk.directories(store):
        for pack in packs(directory, disk):
            found = list(entries(pack, disk))
            kept = {digest: location for digest, location in found if digest in wanted}
            wanted -= kept.keys()
            if len(kept) == len(found):
                continue
            dropped += len(found) - len(kept)
            freed += sum(p.size for _, p in found) - sum(p.size for p in kept.values())
            if kept:
                draft = pack.with_suffix(".blobs-draft")
                disk.write_file(
                    draft,
                    (
                        _head(digest, p.size) + disk.read(pack, p.start, p.start + p.size)
                        for digest, p in kept.items()
                    ),
                )
                disk.rename(draft, pack)
            else:
                disk.remove(pack)
            disk.sync_directory(directory)
    return dropped, freed
