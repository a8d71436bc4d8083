"""The store of a run: what lies on disk, how much, and whether every byte is what was written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from actors.reading.listing import number
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import OpenRun, Shelf
from experience.shards.storage.amendment_files import amendments
from experience.shards.verify import verify_run

_MOST_PROBLEMS = 200
_MOST_AMENDMENTS = 200
_one_at_a_time = threading.Lock()
"""Verifying reads a whole store; two at once would only halve each other."""


def storage(shelf: Shelf, name: str) -> dict[str, Any]:
    """Files and bytes by kind and by writer, and what was amended."""
    run = shelf.run(name)
    record = run.directory.record
    columns = run.lived.columns()
    return {
        "acknowledged": number(record.get("acked_steps")),
        "episodes": len(columns),
        "steps": int(columns.numbers["steps"].sum()),
        "status": str(record.get("status", "unknown")),
        "parts": [
            _part(run.directory.path / folder, folder)
            for folder in ("shards", "imagined", "checkpoints", "metrics", "logs")
        ],
        "writers": [_part(path, path.name) for path in _folders(run.directory.shards)],
        "amendments": _amendments(run),
    }


def _folders(store: Path) -> list[Path]:
    return sorted(p for p in store.iterdir() if p.is_dir()) if store.is_dir() else []


def _part(folder: Path, name: str) -> dict[str, Any]:
    files = total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            stat = path.lstat()
        except OSError:  # renamed meanwhile
            continue
        if path.is_file() and not path.is_symlink():
            files, total = files + 1, total + stat.st_size
    return {"name": name, "files": files, "bytes": total}


def _amendments(run: OpenRun) -> dict[str, Any]:
    """What was said later of rows that were sealed: the newest first."""
    rows = amendments(run.directory.shards).to_pylist()
    said = [row for row in rows if not row["reward_version"]]
    return {
        "signals": len(said),
        "rewards": len(rows) - len(said),
        "newest": [
            {
                "stream": row["stream_id"].hex(),
                "t": row["t"],
                "name": row["name"],
                "value": row["value"],
                "unit": row["unit"],
                "source": row["source"],
                "evidence": row["evidence"],
                "t_ns": row["t_ns"],
            }
            for row in said[-_MOST_AMENDMENTS:][::-1]
        ],
    }


def verified(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """Checks the run as `./xp verify` does; `deep=1` as with --deep. Changes nothing."""
    run = shelf.run(name)
    with _one_at_a_time:
        found = verify_run(run.directory.path, deep=bool(question.text("deep")))
    return {
        "segments": found.segments,
        "rows": found.rows,
        "bytes": found.bytes,
        "blobs": found.blobs,
        "deep": bool(question.text("deep")),
        "problems": [vars(problem) for problem in found.problems[:_MOST_PROBLEMS]],
        "all_problems": len(found.problems),
    }
