"""Policy diff: the same tasks, done by two versions; which got better, and which worse."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.reading.viewer.shelf.columns import Columns, known
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import Shelf
from experience.evaluation.statistics import mean_with_interval

_MOST_TASKS = 500


def compare(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """Per task that both versions did: the mean return of each, and the difference.

    `a`, `b`: versions; by default the first and the last that lived held-out episodes (`split`
    chooses another split). Sorted by the difference, what got worse first.
    """
    columns = shelf.run(name).lived.columns()
    split = question.text("split") or "heldout"
    usable = _usable(columns, split)
    versions = np.unique(columns.numbers["first_version"][usable])
    versions = versions[versions >= 0]
    told: dict[str, Any] = {
        "split": split,
        "splits": [word for word in columns.words["split"].words if word],
        "versions": [int(v) for v in versions],
    }
    if not len(versions):
        return {**told, "a": None, "b": None, "tasks": [], "worlds": []}
    a = question.maybe_whole("a")
    b = question.maybe_whole("b")
    a = int(versions[0]) if a is None else a
    b = int(versions[-1]) if b is None else b
    tasks = _tasks(columns, usable, a, b)
    return {**told, "a": a, "b": b, "tasks": tasks[:_MOST_TASKS], "worlds": _gains(tasks)}


def _usable(columns: Columns, split: str) -> np.ndarray:
    """Whole episodes of the policy itself, of a known return."""
    usable = columns.words["split"].are(split) & columns.words["source"].are("real")
    usable &= ~columns.failed & ~np.isnan(columns.reward)
    return np.asarray(usable & ~columns.words["behaviour_id"].are("random"))


def _tasks(columns: Columns, usable: np.ndarray, a: int, b: int) -> list[dict[str, Any]]:
    version = columns.numbers["first_version"]
    by_task: dict[tuple[str, str], dict[int, list[int]]] = {}
    for place in np.flatnonzero(usable & ((version == a) | (version == b))).tolist():
        name = str(columns.words["env_id"][place]), str(columns.words["task_id"][place])
        by_task.setdefault(name, {}).setdefault(int(version[place]), []).append(place)
    told = []
    for (world, task), lived in by_task.items():
        if a not in lived or b not in lived:
            continue
        before, after = columns.reward[lived[a]], columns.reward[lived[b]]
        told.append(
            {
                "env_id": world,
                "task_id": task,
                "before": known(before.mean()),
                "after": known(after.mean()),
                "gain": float(after.mean() - before.mean()),
                "n": [len(before), len(after)],
                "keys": [columns.key(lived[a][0]), columns.key(lived[b][-1])],
                "steps": [float(columns.numbers["steps"][lived[v]].mean()) for v in (a, b)],
            }
        )
    return sorted(told, key=lambda task: task["gain"])


def _gains(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per world the mean gain over its tasks, with its interval."""
    told = []
    for world in dict.fromkeys(task["env_id"] for task in tasks):
        gains = [task["gain"] for task in tasks if task["env_id"] == world]
        mean = mean_with_interval(gains)
        told.append(
            {
                "env_id": world,
                "mean": mean.mean,
                "half": mean.half,
                "n": mean.n,
                "better": sum(gain > 0 for gain in gains),
                "worse": sum(gain < 0 for gain in gains),
            }
        )
    return told
