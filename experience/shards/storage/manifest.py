"""The manifest: one line a sealed shard, with its rows and SHA-256, chained to the line before.

A line is JSON with its own CRC-32. It is written before its shard gets the final name, so a sealed
shard that no line names has lost its line. One rename replaces the file by a longer one, so that no
failure leaves half a line. A line that was dropped, changed or swapped, the last too, is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import TypedDict

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk
from experience.text.strict_json import dumps

NAME = "MANIFEST"
_SHARD = re.compile(r"seg-\d+-\d+\.arrow")


class Line(TypedDict):
    file: str
    rows: int
    bytes: int
    sha256: str
    previous: str


def read_manifest(directory: Path, disk: Disk = REAL) -> list[Line]:
    """The lines, none without a manifest. Raises ShardError for damage or a broken chain."""
    return [content for content, _ in _lines(directory, disk)]


def append_manifest(sealed: Path, rows: int, size: int, sha256: str, disk: Disk = REAL) -> None:
    """Adds `sealed`, a shard whose contents are on disk under a name that it may still change.

    A last line for the same shard, which a failure may have left, is written again. Raises
    ShardError if an earlier line describes the shard otherwise.
    """
    directory = sealed.parent
    lines = _lines(directory, disk)
    # The line may be there though its rename failed afterwards; sealing comes here again.
    if lines and lines[-1][0]["file"] == sealed.name:
        lines.pop()
    for earlier, _ in lines:
        if earlier["file"] == sealed.name:
            if (earlier["rows"], earlier["bytes"], earlier["sha256"]) == (rows, size, sha256):
                return
            raise ShardError(
                f"{directory / NAME}: {sealed.name} is named already, with other contents",
                "keep the run directory and report it",
            )
    line = _line(
        {
            "file": sealed.name,
            "rows": rows,
            "bytes": size,
            "sha256": sha256,
            "previous": _hash(lines[-1][1]) if lines else "",
        }
    )
    draft = directory / f"{NAME}.draft"
    disk.write_file(draft, [b"".join(raw for _, raw in lines) + line])
    disk.rename(draft, directory / NAME)
    disk.sync_directory(directory)


def _lines(directory: Path, disk: Disk) -> list[tuple[Line, bytes]]:
    try:
        whole = disk.read(directory / NAME)
    except FileNotFoundError:
        return []
    lines: list[tuple[Line, bytes]] = []
    for number, raw in enumerate(whole.splitlines(keepends=True), 1):
        content = _content(raw)
        if content is None or content["previous"] != (_hash(lines[-1][1]) if lines else ""):
            raise ShardError(
                f"{directory / NAME}:{number}: the chain is broken",
                "a line was lost or changed; restore the file from a copy",
            )
        lines.append((content, raw))
    return lines


def _line(content: Line) -> bytes:
    body = dumps(content)
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def _content(raw: bytes) -> Line | None:
    """The content of a line; None if it is damaged or names no shard of this directory."""
    crc, _, body = raw[:-1].partition(b" ")
    if not raw.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
        return None
    try:
        said = json.loads(body)
        content = Line(
            file=str(said["file"]),
            rows=int(said["rows"]),
            bytes=int(said["bytes"]),
            sha256=str(said["sha256"]),
            previous=str(said["previous"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return content if _SHARD.fullmatch(content["file"]) and content["rows"] > 0 else None


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
