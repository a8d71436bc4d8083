"""The manifest: one line a sealed shard, with its SHA-256, chained to the line before.

A line is JSON with its own CRC-32. A last line that is not whole counts as not there, and the shard is added again; a
line that was dropped, changed or swapped before that breaks the chain.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

from experience.errors import ShardError
from experience.shards.blocks import read_commits
from experience.shards.disk import REAL, Disk

NAME = "MANIFEST"


def read_manifest(directory: Path, disk: Disk = REAL) -> list[dict[str, Any]]:
    """The lines' contents: file, rows, bytes, sha256, previous. Raises ShardError where the chain is broken."""
    return [content for content, _ in _lines(directory, disk)]


def append_manifest(sealed: Path, disk: Disk = REAL, sha256: str | None = None) -> None:
    """Adds `sealed`, an immutable shard that is on disk; its `sha256` is read off it unless the writer, who knows what
    it wrote, tells. The manifest is replaced by a longer one, so that no failure
    leaves half a line; a last line for the same shard, which a failure may have left in doubt, is written again."""
    directory = sealed.parent
    lines = _lines(directory, disk)
    if lines and lines[-1][0]["file"] == sealed.name:
        lines.pop()
    commits = list(read_commits(disk.read(sealed.with_suffix(".commit"))))
    line = _line({"file": sealed.name, "rows": commits[-1].last_seq + 1, "bytes": disk.size(sealed),
                  "sha256": sha256 or _hash(disk.read(sealed)), "previous": _hash(lines[-1][1]) if lines else ""})
    draft = directory / f"{NAME}.draft"
    disk.write_file(draft, [b"".join(raw for _, raw in lines) + line])
    disk.rename(draft, directory / NAME)
    disk.sync_directory(directory)


def _lines(directory: Path, disk: Disk) -> list[tuple[dict[str, Any], bytes]]:
    try:
        whole = disk.read(directory / NAME)
    except FileNotFoundError:
        return []
    lines: list[tuple[dict[str, Any], bytes]] = []
    pieces = whole.splitlines(keepends=True)
    for number, raw in enumerate(pieces, 1):
        content = _content(raw)
        if content is None and number == len(pieces):
            break
        if content is None or content["previous"] != (_hash(lines[-1][1]) if lines else ""):
            raise ShardError(f"{directory / NAME}:{number}: the chain is broken",
                             "a line was lost or changed; restore the file from a copy")
        lines.append((content, raw))
    return lines


def _line(content: dict[str, Any]) -> bytes:
    body = json.dumps(content)
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def _content(raw: bytes) -> dict[str, Any] | None:
    """What a line says; None unless it is whole and its CRC is right."""
    crc, _, body = raw[:-1].partition(b" ")
    if not raw.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
        return None
    content: dict[str, Any] = json.loads(body)
    return content


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
