"""What planning did: imagined branches beside what was lived, and options with their records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.reading.listing import number
from actors.reading.viewer.shelf.columns import Columns, known
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import NotThere, OpenRun, Shelf
from actors.reading.viewer.told.runs import as_mapping, metrics_path, read_lines
from actors.runs.trust import read_bounded, read_json
from experience.episode import Episode
from experience.options.option import option_id
from experience.step import Step
from experience.text.strict_json import dumps

_PAGE = 30


def imagined(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """A page of imagined branches, newest first, each beside the turns that were really lived.

    `gate`: how well the model did on transitions it was never fitted to, at each version.
    """
    run = shelf.run(name)
    columns = run.imagined.columns()
    places = np.flatnonzero(columns.numbers["steps"] > 0)[::-1]
    page = question.whole("page", 0, 0, 1 << 30)
    shown = [int(place) for place in places[page * _PAGE : (page + 1) * _PAGE]]
    branches = [
        _branch(run, columns, place, episode)
        for place, episode in zip(shown, run.imagined.episodes(shown), strict=True)
    ]
    errors = [
        {"version": line.get("version"), **as_mapping(line["model_error"])}
        for line in read_lines(metrics_path(run.directory))
        if line.get("model_error")
    ]
    return {
        "total": len(places),
        "page": page,
        "pages": -(-len(places) // _PAGE),
        "branches": branches,
        "gate": errors[-400:],
    }


def _branch(run: OpenRun, columns: Columns, place: int, episode: Episode) -> dict[str, Any]:
    first = episode.first
    parent, real = first.parent, []
    link = None
    if parent is not None:
        found = _rows_from(run, parent, len(episode.rows))
        link, real = found if found is not None else (None, [])
    return {
        "key": columns.key(place),
        "env_id": first.env_id,
        "task_id": first.task_id,
        "model_version": first.model_version,
        "reward": known(columns.reward[place]),
        "from": link,
        "from_t": None if parent is None else parent[1],
        "imagined": [_turn(step) for step in episode.rows],
        "real": [_turn(step) for step in real],
    }


def _rows_from(
    run: OpenRun, parent: tuple[bytes, int], count: int
) -> tuple[str, list[Step]] | None:
    """(link to the real episode, its rows from the branching one on); None if they are gone."""
    columns = run.lived.columns()
    place = columns.of_row(*parent)
    if place is None:
        return None
    key = columns.key(place)
    try:
        _, episode = run.lived.episode(key)
    except NotThere:
        return None
    after = [step for step in episode.rows if step.t >= parent[1]]
    return key, after[:count]


def _turn(step: Step) -> dict[str, Any]:
    return {
        "t": step.t,
        "seen": step.obs_text,
        "action": None if step.decision is None else step.decision.text,
        "reward": step.reward,
        "signals": {s.name: s.value for s in step.signals},
        "uncertainty": step.uncertainty,
        "ending": step.ending,
    }


def options(shelf: Shelf, name: str) -> dict[str, Any]:
    """The options of the last checkpoint, each with its record and its uses in the store."""
    run = shelf.run(name)
    library = _library(run)
    columns = run.lived.columns()
    uses = columns.words["behaviour_id"]
    listed = library.get("options")
    records = as_mapping(library.get("records"))
    told = []
    for option in listed if isinstance(listed, list) else []:
        described = as_mapping(option)
        name_of = str(described.get("name", ""))
        told.append(
            {
                "name": name_of,
                "id": option_id(name_of),
                "kind": str(described.get("kind", "")),
                "described": dumps(described, indent=1, ensure_ascii=False),
                "record": _numbers(records.get(name_of)),
            }
        )
    return {
        "version": library.get("version"),
        "options": told,
        "acting": [[w, n] for w, n in uses.counted(np.ones(len(columns), bool)).items()],
        "skills": [
            {"version": line.get("version"), "skills": line.get("skills")}
            for line in read_lines(metrics_path(run.directory))
            if number(line.get("skills"))
        ],
    }


def _library(run: OpenRun) -> Mapping[str, Any]:
    """What options.json of the newest checkpoint that has one holds; empty if none has."""
    folder = run.directory.checkpoints.folder
    found = sorted(folder.glob("step-*/options.json")) if folder.is_dir() else []
    if not found:
        return {}
    return as_mapping(read_json(read_bounded(found[-1]), str(found[-1])))


def _numbers(found: Any) -> dict[str, Any]:
    """A record's plain values; lists are told by their length."""
    told: dict[str, Any] = {}
    for key, value in as_mapping(found).items():
        told[str(key)] = f"{len(value)} entries" if isinstance(value, list | dict) else value
    return told
