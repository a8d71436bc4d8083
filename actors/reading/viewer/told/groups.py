"""Groups: the attempts at one task from one start, and where they went different ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.reading.viewer.shelf.columns import Columns, known
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import NotThere, Shelf
from actors.reading.viewer.turns.turns import strip
from experience.episode import Episode

_PAGE = 60
_MOST_TOGETHER = 24
_MOST_TURNS = 400


def list_groups(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """Groups with their returns, newest first, or by `sort=spread` those that differ most."""
    columns = shelf.run(name).lived.columns()
    codes = columns.words["group_id"].codes
    words = columns.words["group_id"].words
    named = np.array([bool(word) for word in words], bool)
    places = np.flatnonzero((codes >= 0) & named[codes]) if len(words) else np.array([], int)
    by_group: dict[int, list[int]] = {}
    for place in places.tolist():
        by_group.setdefault(int(codes[place]), []).append(place)
    wanted = question.text("world")
    told = [_told(columns, words[code], own) for code, own in by_group.items()]
    told = [group for group in told if wanted in ("", group["env_id"])]
    told.sort(key=lambda g: -g["spread"] if question.text("sort") == "spread" else -g["last"])
    page = question.whole("page", 0, 0, 1 << 30)
    return {
        "total": len(told),
        "page": page,
        "pages": -(-len(told) // _PAGE),
        "groups": told[page * _PAGE : (page + 1) * _PAGE],
        "flat": sum(group["n"] > 1 and group["spread"] == 0 for group in told),
        "worlds": [w for w in columns.words["env_id"].words if w],
    }


def _told(columns: Columns, group: str, places: Sequence[int]) -> dict[str, Any]:
    rewards = columns.reward[list(places)]
    sure = rewards[~np.isnan(rewards)]
    first = places[0]
    return {
        "group": group,
        "env_id": columns.words["env_id"][first],
        "task_id": columns.words["task_id"][first],
        "version": int(columns.numbers["first_version"][first]),
        "n": len(places),
        "rewards": [known(r) for r in rewards],
        "endings": [columns.words["ending"][place] for place in places],
        "keys": [columns.key(place) for place in places],
        "spread": float(sure.max() - sure.min()) if len(sure) else 0.0,
        "last": max(places),
    }


def show(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """The attempts of one group side by side, in the order of their returns.

    Either `group` names the group, or `keys` names some episodes, parted by commas.
    """
    store = shelf.run(name).lived
    columns = store.columns()
    places = _places(columns, question)
    if not places:
        raise NotThere("no episode of this run is of that group", "the list of groups has links")
    places = places[:_MOST_TOGETHER]
    lived = store.episodes(places)
    best_first = np.argsort([-_rank(columns.reward[place]) for place in places], kind="stable")
    attempts = [_attempt(columns, places[i], lived[i]) for i in best_first]
    return {
        "group": question.text("group"),
        "env_id": columns.words["env_id"][places[0]],
        "task_id": columns.words["task_id"][places[0]],
        "seed": lived[0].first.seed,
        "begins": lived[0].first.obs_text,
        "parted": parted([[s["action"] for s in a["turns"]] for a in attempts]),
        "attempts": attempts,
    }


def _places(columns: Columns, question: Question) -> list[int]:
    if keys := question.text("keys"):
        found = [columns.place(key) for key in keys.split(",")]
        return [place for place in found if place is not None]
    group = columns.words["group_id"].are(question.text("group"))
    return [int(place) for place in np.flatnonzero(group)] if question.text("group") else []


def _rank(reward: float) -> float:
    return -np.inf if np.isnan(reward) else float(reward)


def _attempt(columns: Columns, place: int, episode: Episode) -> dict[str, Any]:
    turns = strip(episode)[:_MOST_TURNS]
    for line, step in zip(turns, episode.rows, strict=False):
        line["action"] = None if step.decision is None else step.decision.text
        line["signals"] = {s.name: s.value for s in step.signals}
        line["seen"] = step.obs_text
        line["picture"] = step.obs_blobs[0].hash.hex() if step.obs_blobs else None
    return {**columns.row(place), "turns": turns, "all_turns": len(episode.rows)}


def parted(actions: Sequence[Sequence[str | None]]) -> int | None:
    """The first turn at which not all did the same; None if all did the same to the end."""
    for turn in range(max(map(len, actions), default=0)):
        done = {attempt[turn] if turn < len(attempt) else None for attempt in actions}
        if len(done) > 1:
            return turn
    return None
