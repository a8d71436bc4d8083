"""SHA256SUMS: the SHA-256 of each file of a folder (a checkpoint), in the format of sha256sum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from experience.errors import ShardError

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")


def sums(files: Mapping[str, bytes]) -> bytes:
    """The contents of SHA256SUMS for `files`."""
    return "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()
    ).encode()


def read_checked(folder: Path) -> dict[str, bytes]:
    """Every file of `folder` by name, less SHA256SUMS itself.

    Raises ShardError if a byte is wrong, a file is missing, or SHA256SUMS does not name a file.
    """
    listed = _listed(folder)
    there = {path.name for path in folder.iterdir()} - {NAME}
    for name in sorted(listed.keys() ^ there):
        raise ShardError(
            f"{folder / name} is {'missing' if name in listed else 'not in ' + NAME}",
            f"restore {folder} from a copy, or remove it to use the one before it",
        )
    files = {name: (folder / name).read_bytes() for name in listed}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != listed[name]:
            raise ShardError(
                f"{folder / name} does not match {NAME}",
                f"restore {folder} from a copy, or remove it to use the one before it",
            )
    return files


def _listed(folder: Path) -> dict[str, str]:
    try:
        text = (folder / NAME).read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(
            f"{folder / NAME} cannot be read: {error}", f"restore {folder} from a copy"
        ) from error
    lines = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    names = [line[2] for line in lines if line is not None]
    if not text.endswith("\n") or None in lines or len(set(names)) != len(names):
        raise ShardError(f"{folder / NAME} is damaged", f"restore {folder} from a copy")
    return {line[2]: line[1] for line in lines if line is not None}
