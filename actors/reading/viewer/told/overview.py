"""A run's own page as data: curves with intervals, phases, streams, sources, failures, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from actors.reading.figures import in_one_time
from actors.reading.listing import number, resumptions
from actors.reading.survey import first_version
from actors.reading.viewer.shelf.columns import Columns
from actors.reading.viewer.shelf.shelf import OpenRun, Shelf, config_of
from actors.reading.viewer.told.runs import (
    as_counts,
    as_mapping,
    as_mean,
    as_whole,
    held_out,
    metrics_path,
    read_lines,
    row,
    thin,
)
from actors.runs.directory import RunDirectory
from actors.runs.trust import read_bounded
from experience.errors import ShardError
from experience.evaluation.statistics import mean_with_interval
from experience.step import Step

_MOST_POINTS = 400
"""Of a history: more would not be seen on a screen."""
_RANDOM = "random"
_MOST_FAILURES = 20


def overview(shelf: Shelf, name: str) -> dict[str, Any]:
    """Everything of a run's own page but its episodes."""
    run = shelf.run(name)
    directory = run.directory
    record = directory.record
    config = config_of(directory)
    lines = read_lines(metrics_path(directory))
    told = row(shelf, directory)
    problem = ""
    columns = Columns.empty()
    try:
        columns = run.lived.columns()
    except ShardError as error:
        problem = str(error)
    return {
        **told,
        "damage": problem,
        "resumed": resumptions(record),
        "argv": record.get("argv", []),
        "seed": record.get("seed"),
        "revision": record.get("revision"),
        "python": record.get("python"),
        "machine": record.get("machine"),
        "first_version": first_version(config) if told["learns"] else "",
        "lived": len(columns),
        "held_out": held_out(lines) or _from_episodes(columns, "heldout"),
        "random": _named_means(lines, "random"),
        "gain": _named_means(lines, "gain"),
        "training": _from_episodes(columns, "train"),
        "history": _history(lines),
        "phases": _phases(directory, lines),
        "streams": _streams(columns),
        "sources": _sources(columns, lines),
        "endings": _endings(columns),
        "failures": _failures(run, columns),
        "warnings": _warnings(directory),
        "config": _config_text(directory),
    }


def _named_means(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    for line in reversed(lines):
        found = {world: as_mean(mean) for world, mean in as_mapping(line.get(name)).items()}
        if any(found.values()):
            return {world: mean for world, mean in found.items() if mean}
    return {}


def _from_episodes(columns: Columns, split: str) -> dict[str, list[dict[str, Any]]]:
    """World -> mean return of real episodes at the version that began them, by the policy."""
    real = columns.words["source"].are("real") & columns.words["split"].are(split)
    good = real & ~columns.failed & ~np.isnan(columns.reward)
    good &= ~columns.words["behaviour_id"].are(_RANDOM)
    versions = columns.numbers["first_version"]
    found = {}
    for world in columns.words["env_id"].words:
        chosen = good & columns.words["env_id"].are(world) & (versions >= 0)
        points = []
        for version in np.unique(versions[chosen]):
            mean = mean_with_interval(columns.reward[chosen & (versions == version)].tolist())
            points.append(
                {"version": int(version), "mean": mean.mean, "half": mean.half, "n": mean.n}
            )
        if points:
            found[world] = thin(points, _MOST_POINTS)
    return found


_HISTORY = ("version", "seconds", "lag", "model_error", "skills", "skipped_updates", "dropped")


def _history(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What changes over a run, on one time axis."""
    told = []
    for line in in_one_time(lines):
        kept: dict[str, Any] = {name: line.get(name) for name in _HISTORY}
        kept["steps"] = as_counts(line.get("steps"))
        kept["metrics"] = {
            str(k): v for k, v in as_mapping(line.get("metrics")).items() if number(v) is not None
        }
        told.append(kept)
    return thin(told, _MOST_POINTS)


def _phases(directory: RunDirectory, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The phases of a run as it noted them: {phase, from, to, counts}, seconds since the epoch."""
    noted = read_lines(directory.path / "metrics" / "phases.jsonl")
    phases: list[dict[str, Any]] = []
    for line in noted:
        at = number(line.get("t"))
        if at is None:
            continue
        name = str(line.get("phase", ""))
        if phases:
            phases[-1]["to"] = at
        if not phases or phases[-1]["phase"] != name:
            phases.append({"phase": name, "from": at, "to": None})
        phases[-1]["counts"] = as_mapping(line.get("counts"))
    last = number(lines[-1].get("t")) if lines else None
    if phases and directory.is_held is False:
        phases[-1]["to"] = max(filter(None, (last, phases[-1]["to"], phases[-1]["from"])))
    for phase in phases:
        if phase["to"] is not None:
            phase["counts"] = {}  # as they were when it began: of a phase that is over, too few
    return phases


def _streams(columns: Columns) -> list[dict[str, Any]]:
    """Per stream: episodes, and the share of its time in which none of them was under way."""
    begun, ended = columns.numbers["started_ns"], columns.numbers["ended_ns"]
    told = []
    for stream in dict.fromkeys(columns.streams.tolist()):
        own = (columns.streams == stream) & (begun > 0) & (ended >= begun)
        if not own.any():
            continue
        span = int(ended[own].max() - begun[own].min())
        busy = int((ended[own] - begun[own]).sum())
        told.append(
            {
                "stream": stream.hex(),
                "episodes": int(own.sum()),
                "from_ns": int(begun[own].min()),
                "to_ns": int(ended[own].max()),
                "idle": max(0.0, 1 - busy / span) if span else None,
            }
        )
    return told


def _sources(columns: Columns, lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Steps by source: the store's own, and of imagined ones what the metrics counted."""
    steps = columns.numbers["steps"]
    words = columns.words["source"]
    found = {word: int(steps[words.are(word)].sum()) for word in words.words}
    for line in reversed(lines):
        counts = as_counts(line.get("steps"))
        return {**counts, **found}
    return found


def _endings(columns: Columns) -> dict[str, dict[str, int]]:
    """World -> ending -> episodes; "under way" stands for those that have none yet."""
    found = {}
    for world in columns.words["env_id"].words:
        own = columns.words["env_id"].are(world)
        found[world] = columns.words["ending"].counted(own)
        if open_ones := int((own & (columns.words["ending"].codes < 0)).sum()):
            found[world]["under way"] = open_ones
    return found


def _failures(run: OpenRun, columns: Columns) -> list[dict[str, Any]]:
    """Kinds of failures with count, the first message and traceback, and links to episodes."""
    told: dict[tuple[str, str], dict[str, Any]] = {}
    failed = columns.failed & ~columns.words["ending"].are("cancelled")
    places = [int(place) for place in np.flatnonzero(failed)]
    for failure in run.directory.failures():
        what = str(failure.get("what", ""))
        key = str(failure.get("world", "")), what.partition(":")[0]
        told[key] = {
            "world": key[0],
            "kind": key[1],
            "count": as_whole(failure.get("count")),
            "first": what,
            "traceback": str(failure.get("traceback", "")),
            "episodes": [],
        }
    # The rows of the first failures say what happened, where no record of the run does yet.
    for episode, place in zip(run.lived.episodes(places[:_MOST_FAILURES]), places, strict=False):
        said = _error_of(episode.closing)
        key = str(columns.words["env_id"][place]), said.partition(":")[0]
        entry = told.setdefault(
            key,
            {
                "world": key[0],
                "kind": key[1],
                "count": 0,
                "first": said,
                "traceback": "",
                "episodes": [],
                "counted": True,
            },
        )
        entry["count"] += bool(entry.get("counted"))
        entry["episodes"].append(columns.key(place))
        if episode.closing is not None and not entry["traceback"]:
            entry["traceback"] = str(episode.closing.info.get("traceback", ""))
    return list(told.values())


def _error_of(closing: Step | None) -> str:
    if closing is None:
        return "cut off"
    return str(closing.info.get("error", closing.ending))


def _warnings(directory: RunDirectory) -> list[dict[str, str]]:
    noted = read_lines(directory.path / "metrics" / "phases.jsonl")
    return [
        {"monitor": str(line["monitor"]), "finding": str(line.get("finding", ""))}
        for line in noted
        if "monitor" in line
    ]


def _config_text(directory: RunDirectory) -> str:
    path = directory.path / "config.yaml"
    return read_bounded(path).decode(errors="replace") if path.is_file() else ""
