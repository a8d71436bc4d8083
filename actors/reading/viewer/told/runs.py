"""Runs as data: a row of the list, and what a run's own page tells."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.reading.listing import number, seconds_of, status_of
from actors.reading.survey import learns
from actors.reading.viewer.shelf.shelf import Shelf, config_of
from actors.runs.directory import RunDirectory
from actors.runs.trust import read_bounded
from experience.errors import XpError

_SPARK_POINTS = 48


def list_runs(shelf: Shelf) -> dict[str, Any]:
    """A row for each run, newest first; a run that cannot be read says why."""
    rows = []
    for directory in shelf.directories():
        try:
            rows.append(row(shelf, directory))
        except XpError as error:
            rows.append({"name": directory.name, "status": "unreadable", "why": str(error)})
    return {"runs": rows}


def row(shelf: Shelf, directory: RunDirectory) -> dict[str, Any]:
    """Remembered until a file of the run changes; only the status of a live one is asked anew."""
    signs = (_sign(directory.path / "run.json"), _sign(metrics_path(directory)))
    remembered = shelf.told.get(directory.name)
    if remembered is not None and remembered[0] == signs and not directory.is_held:
        row: dict[str, Any] = remembered[1]
        return row
    record = directory.record
    status = status_of(directory, record)
    lines = read_lines(metrics_path(directory))
    last: Mapping[str, Any] = lines[-1] if lines else {}
    config = config_of(directory)
    row = {
        "name": directory.name,
        "status": status,
        "why": str(record.get("why") or ""),
        "started": number(record.get("started")),
        "seconds": round(seconds_of(directory), 1),
        "attempts": int(number(record.get("attempts")) or 1),
        "version": max(as_whole(record.get("version")), as_whole(last.get("version"))),
        "learns": learns(config),
        "worlds": [w.id for w in config.worlds] if config else sorted(last.get("returns") or ()),
        "engine": config.policy.engine if config else "",
        "steps": as_counts(record.get("steps")) or as_counts(last.get("steps")),
        "episodes": as_whole(record.get("episodes")) or as_whole(last.get("episodes")),
        "tier": config.sandbox.min_tier if config else "",
        "curves": _sparks(lines),
        "last": _last_returns(lines),
    }
    shelf.told[directory.name] = (signs, row)
    return row


def metrics_path(directory: RunDirectory) -> Path:
    return directory.path / "metrics" / "metrics.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a line that is half written or damaged is left out."""
    if not path.is_file():
        return []
    records = []
    for line in read_bounded(path).splitlines():
        try:
            record = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _sign(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def as_whole(value: Any) -> int:
    return int(number(value) or 0)


def as_counts(found: Any) -> dict[str, int]:
    if not isinstance(found, Mapping):
        return {}
    return {str(k): int(n) for k, n in found.items() if number(n) is not None}


def _sparks(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Per world its returns over time, held-out ones where there are two, else training ones."""
    evaluated = {
        world: [point["mean"] for point in points] for world, points in held_out(lines).items()
    }
    training: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for world, mean in as_mapping(line.get("training")).items():
            if number(mean) is not None:
                training[world].append(float(mean))
    found = {}
    for world in {**evaluated, **training}:
        series = evaluated.get(world, [])
        found[world] = thin(series if len(series) > 1 else training.get(world, []), _SPARK_POINTS)
    return {world: series for world, series in found.items() if series}


def _last_returns(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {world: points[-1] for world, points in held_out(lines).items() if points}


def as_mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def thin(points: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    picked = np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))
    return [points[i] for i in picked]


def held_out(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """World -> its held-out mean at each evaluated version, as the last line of metrics says."""
    for line in reversed(lines):
        if found := as_mapping(line.get("returns")):
            break
    else:
        return {}
    curves = {}
    for world, by_version in found.items():
        points = [
            {"version": int(version), **as_mean(mean)}
            for version, mean in as_mapping(by_version).items()
            if version.isdigit() and as_mean(mean)
        ]
        curves[world] = sorted(points, key=lambda point: point["version"])
    return curves


def as_mean(found: Any) -> dict[str, Any]:
    """A mean of a record as {mean, half, n}; empty if nothing was measured."""
    mean = as_mapping(found)
    if number(mean.get("mean")) is None or not number(mean.get("n")):
        return {}
    return {"mean": float(mean["mean"]), "half": number(mean.get("half")), "n": int(mean["n"])}
