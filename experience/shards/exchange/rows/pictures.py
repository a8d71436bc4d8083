"""Pictures beside an export: files in `images/`, named by their SHA-256; and back from there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from experience.errors import RecordError
from experience.shards.storage.blobs import MOST_BYTES, BlobReader
from experience.step import Blob

FOLDER = "images"
_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}


class Pictures:
    """Copies pictures from a store's packs into `images/` below `out`, each once."""

    def __init__(self, store: Path, out: Path) -> None:
        self._reader, self._out = BlobReader(store), out
        self._saved: set[bytes] = set()

    def save(self, blob: Blob) -> str:
        """The picture's path below `out`. Raises ShardError if its bytes are missing or damaged."""
        path = name(blob)
        if blob.hash not in self._saved:
            (self._out / FOLDER).mkdir(exist_ok=True)
            (self._out / path).write_bytes(self._reader.read(blob.hash))
            self._saved.add(blob.hash)
        return path

    def read(self, blob: Blob) -> bytes:
        return self._reader.read(blob.hash)


def name(blob: Blob) -> str:
    return f"{FOLDER}/{blob.hash.hex()}{_ENDINGS.get(blob.media, '.bin')}"


def find(folder: Path, blob: Blob) -> bytes:
    """A picture's bytes, exported to `folder`. Raises RecordError if they are missing or wrong."""
    path = folder / name(blob)
    if not path.is_file():
        raise RecordError(f"its picture {name(blob)} is missing", f"put it into {folder / FOLDER}")
    if path.stat().st_size > MOST_BYTES:
        raise RecordError(
            f"{name(blob)} has {path.stat().st_size} bytes",
            f"a picture has {MOST_BYTES >> 20} MiB at most",
        )
    data = path.read_bytes()
    if hashlib.sha256(data).digest() != blob.hash:
        raise RecordError(f"{name(blob)} is not the picture that its name says", "export it again")
    return data
