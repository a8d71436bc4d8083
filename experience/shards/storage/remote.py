"""Sends sealed shards to an object store (S3, GCS, HDFS …), and follows and verifies them there.

A sealed shard never changes, so it is sent once. Manifests and snapshots are sent after the files
that they name, so that a reader there sees whole shards only. Rows of an open segment stay local
until it is sealed.
Writing there is refused: whole runs stay on a disk and are mirrored.
Not covered are the object store's own durability and deletions by others. Rows that were removed or
forgotten here stay there, unless `mirror` prunes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.fs as fs

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk

_SEALED = (
    ".commit",
    ".blocks",
    ".blobs",
    ".arrow",
    ".parquet",
    ".amendments",
)  # in this order, then what names them
_NAMES = ("MANIFEST", ".json")


class RemoteDisk(Disk):
    """Reads below `base` of a filesystem as `Catalog`, `BlobReader`, `verify` read a directory."""

    manifest_comes_later = True

    def __init__(self, filesystem: fs.FileSystem, base: str) -> None:
        self._files = fs.SubTreeFileSystem(base, filesystem)

    def read(self, path: Path, start: int = 0, end: int | None = None) -> bytes:
        with self._files.open_input_file(_name(path)) as file:
            size = file.size()
            stop = size if end is None else min(end, size)
            data: bytes = file.read_at(max(stop - start, 0), start)
        return data

    def mapped(self, path: Path) -> pa.Buffer:
        return pa.py_buffer(self.read(path))

    def identity(self, path: Path) -> None:
        """Unknown: every reader holds what it reads against its SHA-256."""

    def size(self, path: Path) -> int:
        info = self._files.get_file_info(_name(path))
        if info.type != fs.FileType.File:
            raise FileNotFoundError(str(path))
        return int(info.size)

    def exists(self, path: Path) -> bool:
        return bool(self._files.get_file_info(_name(path)).type != fs.FileType.NotFound)

    def names(self, directory: Path) -> list[str]:
        return sorted(info.base_name for info in self._list(directory))

    def directories(self, directory: Path) -> list[Path]:
        return sorted(
            directory / info.base_name
            for info in self._list(directory)
            if info.type == fs.FileType.Directory
        )

    def _list(self, directory: Path) -> list[fs.FileInfo]:
        return list(
            self._files.get_file_info(fs.FileSelector(_name(directory), allow_not_found=True))
        )

    def send(self, path: Path, data: bytes) -> None:
        """An object is there whole or not at all."""
        self._files.create_dir(_name(path.parent))
        with self._files.open_output_stream(_name(path)) as out:
            out.write(data)

    def unsend(self, path: Path) -> None:
        self._files.delete_file(_name(path))

    # The calls of writers are refused: inherited, they would write to the disk of this machine.

    def make_directory(self, path: Path) -> None:
        self._refuse(path)

    def create(self, path: Path) -> int:
        self._refuse(path)

    def reopen(self, path: Path) -> int:
        self._refuse(path)

    def rename(self, old: Path, new: Path) -> None:
        self._refuse(new)

    def remove(self, path: Path) -> None:
        self._refuse(path)

    def remove_tree(self, path: Path) -> None:
        self._refuse(path)

    def sync_directory(self, path: Path) -> None:
        self._refuse(path)

    def free_bytes(self, directory: Path) -> int:
        self._refuse(directory)

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        self._refuse(path)
        yield

    def _refuse(self, path: Path) -> NoReturn:
        raise ShardError(
            f"{path}: an object store is read here, not written to",
            "write to a disk of this machine, "
            "and send what is sealed: experience.shards.storage.remote.mirror",
        )


def find_remote(address: str, *, imagined: bool = False) -> tuple[RemoteDisk, Path]:
    """The disk of an address such as `s3://bucket/runs/x`, and the path of its store on that disk.

    The address names a run, its `shards` or a store, as on a disk of this machine. Credentials,
    region and endpoint are those of the environment. Raises ShardError where nothing is found.
    """
    try:
        filesystem, base = fs.FileSystem.from_uri(address)
        disk = RemoteDisk(filesystem, base)
        folder = Path("imagined" if imagined else "shards")
        here = disk.names(Path())
        if folder.name in here:
            return disk, folder
        if here and "run.json" not in here:
            return disk, Path()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(
            f"{address}: {str(error).splitlines()[0]}",
            "is the address right, and may this machine read it? AWS_ENDPOINT_URL, AWS_REGION and "
            "AWS_ACCESS_KEY_ID are read from the environment",
        ) from error
    raise ShardError(
        f"{address} holds no {folder.name}", "name a run that `mirror` sent, or its store"
    )


def mirror(
    store: Path, remote: RemoteDisk, there: Path = Path(), disk: Disk = REAL, *, prune: bool = False
) -> int:
    """Sends sealed files that are missing below `there`. Returns the bytes sent. Safe to repeat.

    prune: then removes there what is no longer here: went cold, was removed, or was forgotten.
    """
    sent = 0
    for directory in disk.directories(store):
        present = set(remote.names(there / directory.name))
        names = disk.names(directory)
        sealed = [
            name
            for suffix in _SEALED
            for name in names
            if name.endswith(suffix)
            and (suffix != ".commit" or name.replace(".commit", ".arrow") in names)
        ]
        # A pack of blobs grows while its segment is open, so that it is weighed again each time.
        for name in [
            *(n for n in sealed if n not in present or n.endswith(".blobs")),
            *(n for n in names if n.endswith(_NAMES)),
        ]:
            data = disk.read(directory / name)
            if name in present and remote.size(there / directory.name / name) == len(data):
                continue
            remote.send(there / directory.name / name, data)
            sent += len(data)
    if prune:
        _prune(store, remote, there, disk)
    return sent


def _prune(store: Path, remote: RemoteDisk, there: Path, disk: Disk) -> None:
    for directory in remote.directories(there):
        here = store / directory.name
        names = set(disk.names(here)) if here in disk.directories(store) else set()
        for name in remote.names(directory):
            if name not in names and name.endswith((*_SEALED, *_NAMES)):
                remote.unsend(directory / name)


def _name(path: Path) -> str:
    return "" if path == Path() else path.as_posix()
