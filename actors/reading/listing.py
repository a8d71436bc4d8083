"""`xp ls` and `xp show`: what the runs of a folder are, whatever ended them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.config.section import absolute
from actors.reading.survey import Survey, first_version, known_config, learns, survey
from actors.runs.directory import RunDirectory
from experience.command.output import emit
from experience.errors import ShardError
from experience.evaluation.statistics import Mean


def list_runs(folder: str, as_json: bool) -> Iterator[str]:
    """Prints a row for each run; yields what is wrong with each run that cannot be read."""
    for directory in runs(absolute(folder)):
        try:
            row = summary(directory)
        except ShardError as error:
            yield f"{directory.name}: {error}"
            continue
        if as_json:
            emit(row)
        else:
            version = f"v{row['version']}" if row["learns"] else ""
            emit(
                f"{row['run']:<42} {row['status']:<11} {version:<5} "
                f"{sum(row['steps'].values()):>7} steps  "
                f"{row['seconds']:>6.0f} s"
                + (f"  {row['attempts']} attempts" if row["attempts"] > 1 else "")
            )


def show_run(directory: RunDirectory, as_json: bool) -> None:
    """Prints a run: its record, counts and returns from its shards, and its failures."""
    row = summary(directory)
    config = known_config(directory)
    found = survey(directory.shards)
    counted = directory.count()
    record = directory.record
    if as_json:
        emit(
            record
            | row
            | {
                "counted": counted,
                "held_out": _as_data(found, row["learns"]),
                "failures": [vars(f) for f in found.failures],
            }
        )
        return
    version = f"  version {row['version']}" if row["learns"] else "  a policy that does not learn"
    attempts = f", {row['attempts']} attempts" if row["attempts"] > 1 else ""
    emit(f"{row['run']}  {row['status']}{version}  {row['seconds']:.0f} s{attempts}")
    if record.get("why") and row["status"] != "succeeded":
        emit(f"  why: {record['why']}")
    for again in resumptions(record):
        emit(f"  resumed {when(again['at'])} from version {again['version'] or 0}")
    emit("  on disk: " + ", ".join(f"{n} {kind}" for kind, n in counted.items()))
    for world, cells in held_out_cells(found, row["learns"], first_version(config)).items():
        emit(f"  {world:<24} " + "  ".join(f"{name} {value}" for name, value in cells.items()))
    for failure in found.failures:
        emit(f"  failed: {failure.count} × {failure.env_id}, first: {failure.first}")
        if failure.traceback:
            emit("    " + failure.traceback.strip().replace("\n", "\n    "))
    emit(f"  shards: {directory.shards}")


def held_out_cells(found: Survey, learning: bool, first: str) -> dict[str, dict[str, str]]:
    """Per world and column: a return with its interval and number of tasks, to be compared."""
    if not learning:
        return {
            world: {"random": _with_n(random), "policy": _with_n(policy)}
            for world, (random, policy) in found.of_one_policy().items()
        }
    cells = {}
    for world, returns in found.held_out().items():
        row = {"random": _with_n(returns.random)}
        for version, mean in returns.versions.items():
            if version in (0, max(returns.versions)):
                row[first if version == 0 else f"last (v{version})"] = _with_n(mean)
        if returns.gain.n:
            row["gain, task by task"] = _with_n(returns.gain)
        cells[world] = row
    return cells


def _with_n(mean: Mean) -> str:
    return f"{mean}, n = {mean.n}" if mean.n else "–"


def _as_data(found: Survey, learning: bool) -> dict[str, Any]:
    if not learning:
        return {
            world: {"random": vars(random), "policy": vars(policy)}
            for world, (random, policy) in found.of_one_policy().items()
        }
    return {
        world: {
            "random": vars(r.random),
            "gain": vars(r.gain) if r.gain.n else None,
            "versions": {str(v): vars(m) for v, m in r.versions.items()},
        }
        for world, r in found.held_out().items()
    }


def when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def resumptions(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Each resumption: `at` (seconds since the epoch), `version` (None if without a checkpoint)."""
    resumed = record.get("resumed")
    listed = resumed if isinstance(resumed, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    return [
        {"at": at, "version": number(e.get("version"))}
        for e in entries
        if (at := number(e.get("at"))) is not None
    ]


def status_of(directory: RunDirectory, record: dict[str, Any]) -> str:
    """The present status: a run that is `running` on record but has no process was interrupted."""
    status = str(record.get("status", "unknown"))
    if status == "running" and directory.is_held is False:
        return "interrupted"
    return status


def seconds_of(directory: RunDirectory) -> float:
    """Seconds of all attempts together. A killed attempt ends at the last sign of life it left."""
    record = directory.record
    spent = number(record.get("seconds")) or 0.0
    if record.get("status") != "running":
        return spent
    resumed = resumptions(record)
    begun = resumed[-1]["at"] if resumed else number(record.get("started"))
    until = time.time() if directory.is_held else _last_sign(directory)
    return spent if begun is None else spent + max(until - begun, 0.0)


def _last_sign(directory: RunDirectory) -> float:
    folders = (directory.path / "metrics", directory.checkpoints.folder, directory.shards)
    paths = [
        p for folder in folders if folder.is_dir() for p in (*folder.iterdir(), *folder.glob("*/*"))
    ]
    return max((p.lstat().st_mtime for p in paths), default=0.0)


def version_of(directory: RunDirectory, record: dict[str, Any], status: str) -> int:
    """The last policy version of the run; of a run that was cut off, by metrics and checkpoints."""
    if status in ("succeeded", "imported"):
        return int(number(record.get("version")) or 0)
    last = next(iter(deque(directory.metrics(), maxlen=1)), {})
    resumed = resumptions(record)
    # Metrics from before the resume may tell of versions that went with the crash.
    if resumed and (number(last.get("t")) or 0) < resumed[-1]["at"]:
        return int(resumed[-1]["version"] or 0)
    return max(int(number(last.get("version")) or 0), directory.checkpoints.newest_version() or 0)


def summary(directory: RunDirectory) -> dict[str, Any]:
    """One row of `ls`. Raises ShardError if the record or the rows are damaged."""
    record = directory.record
    status = status_of(directory, record)
    steps = record.get("steps")
    # Only a run that ended well has counted its rows; of the others the shards are asked.
    if status not in ("succeeded", "imported") or not isinstance(steps, dict):
        counted = directory.count()
        steps = {k: n for k, n in counted.items() if n and k not in ("rows", "imagined_rows")}
    return {
        "run": directory.name,
        "status": status,
        "seconds": round(seconds_of(directory), 1),
        "version": version_of(directory, record, status),
        "attempts": int(number(record.get("attempts")) or 1),
        "learns": learns(known_config(directory)),
        "steps": {k: n for k, n in steps.items() if number(n) is not None},
    }


def runs(folder: Path) -> Iterator[RunDirectory]:
    """The runs below `folder`, newest last."""
    for record in sorted(folder.glob("*/run.json"), key=lambda p: p.lstat().st_mtime):
        # `latest` is a link to one of the others.
        if not record.parent.is_symlink():
            yield RunDirectory(record.parent)


def number(value: Any) -> int | float | None:
    """A number of a record that anybody may have written, or None."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return value if known else None
