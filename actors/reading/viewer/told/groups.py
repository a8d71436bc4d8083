"""Groups: the attempts at one task from one start, and where they went different ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    found = _of_world(columns, _grouped(columns), question.text("world"))
    order = np.argsort(-(found.spread if question.text("sort") == "spread" else found.last))
    page = question.whole("page", 0, 0, 1 << 30)
    shown = order[page * _PAGE : (page + 1) * _PAGE]
    return {
        "total": len(order),
        "page": page,
        "pages": -(-len(order) // _PAGE),
        "groups": [_told(columns, found, int(i)) for i in shown],
        "flat": int(((found.size > 1) & (found.spread == 0)).sum()),
        "worlds": [w for w in columns.words["env_id"].words if w],
    }


@dataclass(frozen=True)
class _Groups:
    """All groups of a store. `places` [episodes] are sorted by group; the others are per group.

    spread: between the best and the worst known return, 0 if none is known.
    """

    places: np.ndarray
    start: np.ndarray
    size: np.ndarray
    spread: np.ndarray
    last: np.ndarray


def _grouped(columns: Columns) -> _Groups:
    words = columns.words["group_id"]
    codes = words.codes
    named = np.array([bool(word) for word in words.words], bool)
    grouped = np.zeros(len(codes), bool)
    grouped[codes >= 0] = named[codes[codes >= 0]]
    chosen = np.flatnonzero(grouped)
    places = chosen[np.argsort(codes[chosen], kind="stable")]
    if not len(places):
        none = np.empty(0, np.int64)
        return _Groups(places, none, none, none.astype(float), none)
    _, start, size = np.unique(codes[places], return_index=True, return_counts=True)
    rewards = columns.reward[places]
    # fmin and fmax pass over NaN, an unknown return, where there is a known one.
    spread = np.fmax.reduceat(rewards, start) - np.fmin.reduceat(rewards, start)
    last = np.maximum.reduceat(places, start)
    return _Groups(places, start, size, np.nan_to_num(spread), last)


def _of_world(columns: Columns, found: _Groups, world: str) -> _Groups:
    if not world:
        return found
    # All attempts of a group are of one world.
    own = columns.words["env_id"].are(world)[found.places[found.start]]
    return _Groups(
        found.places, found.start[own], found.size[own], found.spread[own], found.last[own]
    )


def _told(columns: Columns, found: _Groups, number: int) -> dict[str, Any]:
    start, size = int(found.start[number]), int(found.size[number])
    places = [int(place) for place in found.places[start : start + size]]
    first = places[0]
    return {
        "group": columns.words["group_id"][first],
        "env_id": columns.words["env_id"][first],
        "task_id": columns.words["task_id"][first],
        "version": int(columns.numbers["first_version"][first]),
        "n": size,
        "rewards": [known(r) for r in columns.reward[places]],
        "endings": [columns.words["ending"][place] for place in places],
        "keys": [columns.key(place) for place in places],
        "spread": float(found.spread[number]),
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
