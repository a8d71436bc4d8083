"""Deleting from a run directory: rows with what hangs on them, or all of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.runs.directory import RunDirectory
from experience.errors import ConfigError
from experience.shards.forget import Found, forget, look


def forget_rows(
    directory: RunDirectory, streams: Sequence[str], subject: str | None, yes: bool, seal: bool
) -> dict[str, Any]:
    """What went, or without `yes` would go. The report quotes episodes, so it goes too."""
    ids = [_stream(text) for text in streams]
    if not yes:
        return _said(directory, look(directory.path, streams=ids, subject=subject))
    found = forget(directory.path, streams=ids, subject=subject, seal=seal)
    (directory.path / "report.html").unlink(missing_ok=True)
    directory.write_record(forgotten=directory.record.get("forgotten", 0) + found.total)
    return _said(directory, found)


def _said(directory: RunDirectory, found: Found) -> dict[str, Any]:
    learned = any(directory.checkpoints.folder.glob("[!.]*"))
    return {
        "run": directory.name,
        "rows": found.rows,
        "streams": len(found.streams),
        "amendments": found.amendments,
        "blobs": found.blobs,
        "report": "report.html quotes episodes, and goes with them",
        "stays": "what was learned from them (checkpoints)" if learned else "nothing",
    }


def forget_run(directory: RunDirectory, yes: bool, seal: bool) -> dict[str, Any]:
    """Deletes the run's directory; `latest` then points to the newest that is left."""
    path = directory.path.resolve()
    if directory.record.get("status") == "running" and not seal:
        raise ConfigError(
            f"{directory.name} is running, or was killed",
            "end it first; if it was killed: add --seal",
        )
    files = [p for p in path.rglob("*") if p.is_file()]
    report = {
        "run": directory.name,
        "files": len(files),
        "bytes": sum(p.lstat().st_size for p in files),
    }
    if yes:
        going = path.with_name(f".forgotten-{path.name}")
        os.rename(path, going)  # at once: what is left of it after a crash is no run
        shutil.rmtree(going)
        _point_latest(path)
    return report


def _point_latest(gone: Path) -> None:
    latest = gone.parent / "latest"
    if not latest.is_symlink() or latest.exists():
        return
    left = [p.parent for p in gone.parent.glob("*/run.json") if not p.parent.is_symlink()]
    draft = gone.parent / f".latest-{os.getpid()}"
    latest.unlink()
    if left:
        draft.symlink_to(max(left, key=lambda run: (run / "run.json").stat().st_mtime).name)
        os.replace(draft, latest)


def _stream(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 16:
        raise ConfigError(
            f"--stream {text!r} is no stream's id",
            "32 hexadecimal digits, as "
            "./xp query RUN 'select distinct hex(stream_id) from steps' prints them",
        )
    return found
