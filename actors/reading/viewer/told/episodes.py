"""The episodes of a run: filtered, sorted, counted and paged, all by the index."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.reading.viewer.shelf.columns import Columns
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import OpenStore, Shelf, give_back
from experience.errors import ConfigError
from experience.shards.catalog import Catalog

PAGE = 50
_BARS = 24
_MOST_CHOICES = 200
_SEARCH_SECONDS = 20.0
_SORTS = ("begun", "reward", "steps", "version", "duration")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Found:
    """Which episodes a question chooses, and whether its search for a text came to its end."""

    chosen: np.ndarray
    searched_all: bool = True


def list_episodes(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """One page of the chosen episodes, their histogram of returns, and what could be chosen."""
    store = shelf.run(name).lived
    columns = store.columns()
    found = choose(columns, question, store)
    # The bars show what the other filters leave, so that another bar may be taken.
    without_reward = choose(columns, question.without("low", "high", "reward"), store)
    places = _sorted(columns, np.flatnonzero(found.chosen), question)
    page = question.whole("page", 0, 0, 1 << 40)
    shown = places[page * PAGE : (page + 1) * PAGE]
    return {
        "total": len(places),
        "of": len(columns),
        "page": page,
        "pages": -(-len(places) // PAGE),
        "page_size": PAGE,
        "rows": columns.rows(shown),
        "histogram": histogram(columns.reward[without_reward.chosen]),
        "choices": _choices(columns),
        "searched_all": found.searched_all,
    }


def choose(columns: Columns, question: Question, store: OpenStore) -> Found:
    """The episodes that every filter of the question lets pass."""
    chosen = np.ones(len(columns), bool)
    for asked, column in (
        ("world", "env_id"),
        ("split", "split"),
        ("source", "source"),
        ("by", "behaviour_id"),
        ("group", "group_id"),
    ):
        if question.text(asked):
            chosen &= columns.words[column].are(question.text(asked))
    if task := question.text("task").lower():
        names = columns.words["task_id"]
        matching = [i for i, word in enumerate(names.words) if task in word.lower()]
        chosen &= np.isin(names.codes, matching)
    chosen &= _ended(columns, question.text("ending"))
    version = question.maybe_whole("version")
    if version is not None:
        first, last = columns.numbers["first_version"], columns.numbers["last_version"]
        chosen &= (first <= version) & (version <= last)
    chosen &= _rewarded(columns, question)
    if text := question.text("text"):
        hits, searched_all = _holding(store, columns, text)
        return Found(chosen & hits, searched_all)
    return Found(chosen)


def _ended(columns: Columns, ending: str) -> np.ndarray:
    if not ending:
        return np.ones(len(columns), bool)
    if ending == "failed":
        return np.asarray(columns.failed)
    if ending == "under way":
        return np.asarray(columns.words["ending"].codes < 0)
    return columns.words["ending"].are(ending)


def _rewarded(columns: Columns, question: Question) -> np.ndarray:
    """By `low` and `high`, both inclusive; `reward=unknown` takes those of no known return."""
    if question.text("reward") == _UNKNOWN:
        return np.asarray(np.isnan(columns.reward))
    chosen = np.ones(len(columns), bool)
    low, high = question.maybe_number("low"), question.maybe_number("high")
    if low is not None:
        chosen &= columns.reward >= low
    if high is not None:
        chosen &= columns.reward <= high
    return chosen


def _sorted(columns: Columns, places: np.ndarray, question: Question) -> np.ndarray:
    """`sort=reward` or `sort=-reward`; episodes of an unknown value come last, either way."""
    asked = question.text("sort") or "-begun"
    name, falls = asked.lstrip("-"), asked.startswith("-")
    if name not in _SORTS:
        raise ConfigError(f"episodes are not sorted by {name!r}", f"by: {', '.join(_SORTS)}")
    if name == "begun":
        values = places.astype(float)
    elif name == "reward":
        values = columns.reward[places]
    elif name == "steps":
        values = columns.numbers["steps"][places].astype(float)
    elif name == "version":
        values = columns.numbers["first_version"][places].astype(float)
    else:
        spans = columns.numbers["ended_ns"][places] - columns.numbers["started_ns"][places]
        values = spans.astype(float)
    # numpy sorts NaN to the end, whatever its sign.
    return places[np.argsort(-values if falls else values, kind="stable")]


def histogram(rewards: np.ndarray) -> dict[str, Any]:
    """Counts of returns in bars of equal width, [low, high] each, and of those unknown."""
    known = rewards[~np.isnan(rewards)]
    unknown = int(len(rewards) - len(known))
    if not len(known):
        return {"bars": [], "unknown": unknown}
    values, counts = np.unique(known, return_counts=True)
    if len(values) <= _BARS // 2:
        # A few different returns get a bar each: their places say more than widths would.
        bars = [
            {"low": float(v), "high": float(v), "n": int(n)}
            for v, n in zip(values, counts, strict=True)
        ]
        return {"bars": bars, "unknown": unknown}
    numbers, edges = np.histogram(known, bins=_BARS)
    bars = [
        {"low": float(edges[i]), "high": _end(edges, i), "n": int(n)} for i, n in enumerate(numbers)
    ]
    return {"bars": bars, "unknown": unknown}


def _end(edges: np.ndarray, bar: int) -> float:
    """The largest value that a bar counts: its upper edge belongs to the next bar."""
    is_last = bar == len(edges) - 2
    return float(edges[bar + 1] if is_last else np.nextafter(edges[bar + 1], -np.inf))


def _choices(columns: Columns) -> dict[str, Any]:
    everything = np.ones(len(columns), bool)
    words = {
        name: list(columns.words[column].counted(everything).items())[:_MOST_CHOICES]
        for name, column in (
            ("worlds", "env_id"),
            ("splits", "split"),
            ("sources", "source"),
            ("endings", "ending"),
            ("behaviours", "behaviour_id"),
        )
    }
    versions = columns.numbers["last_version"]
    return {
        **words,
        "last_version": int(versions.max()) if len(versions) else -1,
        "failed": int(columns.failed.sum()),
        "under_way": int((columns.words["ending"].codes < 0).sum()),
        "unknown": int(np.isnan(columns.reward).sum()),
    }


_searched: dict[tuple[str, str, int], tuple[np.ndarray, bool]] = {}
_MOST_SEARCHES = 8


def _holding(store: OpenStore, columns: Columns, text: str) -> tuple[np.ndarray, bool]:
    """bool: which episodes hold `text` in what was seen, done or thought, or in a name of theirs.

    The rows are read a batch at a time, and none is kept. False with it: time was up before all
    were read.
    """
    key = str(store.path), text, len(columns)
    if key in _searched:
        return _searched[key]
    wanted = text.lower()
    hits = np.zeros(len(columns), bool)
    for column in ("env_id", "task_id", "group_id", "behaviour_id"):
        names = columns.words[column]
        matching = [i for i, word in enumerate(names.words) if wanted in word.lower()]
        hits |= np.isin(names.codes, matching)
    deadline = time.monotonic() + _SEARCH_SECONDS
    searched_all = True
    for batch in Catalog(store.path).batches():
        for row in _rows_with(batch, wanted):
            place = columns.of_row(*row)
            if place is not None:
                hits[place] = True
        if time.monotonic() > deadline:
            searched_all = False
            break
    while len(_searched) >= _MOST_SEARCHES:
        _searched.pop(next(iter(_searched)))
    _searched[key] = hits, searched_all
    give_back()
    return hits, searched_all


_TEXTS = ("obs_text", "action_text", "reasoning", "content")


def _rows_with(batch: Any, wanted: str) -> list[tuple[bytes, int]]:
    """(stream, t) of the rows of a batch that hold `wanted`, which is in lower case."""
    rows: set[int] = set()
    for name in _TEXTS:
        if name in batch.schema.names:
            texts = batch.column(name).to_pylist()
            rows |= {i for i, text in enumerate(texts) if text and wanted in text.lower()}
    if not rows:
        return []
    streams, ts = batch.column("stream_id"), batch.column("t")
    return [(streams[i].as_py(), ts[i].as_py()) for i in sorted(rows)]
