"""The page of one episode: its facts, all turns as a strip, and its first whole turns."""

from __future__ import annotations

from typing import Any

from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import OpenStore, Shelf
from actors.reading.viewer.turns.drawings import Drawer
from actors.reading.viewer.turns.terms import Terms
from actors.reading.viewer.turns.turns import TURNS_A_PAGE, page, strip

_MOST_TURNS = 200


def store_of(shelf: Shelf, run: str, question: Question) -> OpenStore:
    """The store that a question means: what was lived, or with `imagined=1` what was imagined."""
    opened = shelf.run(run)
    return opened.imagined if question.text("imagined") else opened.lived


def show(shelf: Shelf, run: str, key: str, question: Question) -> dict[str, Any]:
    """An episode's facts and strip, and a page of whole turns around turn `at`."""
    store = store_of(shelf, run, question)
    place, episode = store.episode(key)
    columns = store.columns()
    row = columns.row(place)
    at = question.whole("at", 0, 0, 1 << 40)
    first = at // TURNS_A_PAGE * TURNS_A_PAGE
    group = row["group_id"]
    alike = int(columns.words["group_id"].are(group).sum()) if group else 0
    directory = shelf.run(run).directory
    rows = page(episode, first, TURNS_A_PAGE, Terms(directory), Drawer(directory))
    closing = episode.closing
    return {
        **row,
        "before": columns.key(place - 1) if place else None,
        "after": columns.key(place + 1) if place + 1 < len(columns) else None,
        "group_size": alike,
        "seed": episode.first.seed,
        "env_version": episode.first.env_version,
        "sandbox_tier": episode.first.sandbox_tier,
        "agent": episode.first.agent_id,
        "error": "" if closing is None else str(closing.info.get("error", "")),
        "traceback": "" if closing is None else str(closing.info.get("traceback", "")),
        "strip": strip(episode),
        "first": first,
        "turns": rows,
        "page_size": TURNS_A_PAGE,
    }


def turns(shelf: Shelf, run: str, key: str, question: Question) -> dict[str, Any]:
    """Whole turns `from` to `from + count`."""
    store = store_of(shelf, run, question)
    _, episode = store.episode(key)
    first = question.whole("from", 0, 0, 1 << 40)
    count = question.whole("count", TURNS_A_PAGE, 1, _MOST_TURNS)
    directory = shelf.run(run).directory
    return {
        "first": first,
        "turns": page(episode, first, count, Terms(directory), Drawer(directory)),
    }
