"""Writes files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experience.shards.storage.disk import REAL


def replace_file(path: Path, data: bytes) -> None:
    """Writes `data` durably in place of `path`. A reader sees the old file or the new one."""
    draft = path.with_name(path.name + ".draft")
    REAL.write_file(draft, [data])
    os.replace(draft, path)


def replace_link(path: Path, target: str) -> None:
    """Makes `path` a link to `target`, in place of an older link."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(2)}")
    draft.symlink_to(target)
    os.replace(draft, path)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to write into. It becomes `path` at the end, and is removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    draft.mkdir()
    try:
        yield draft
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
