"""One stream, or all of a run, over time: spans of episodes, however many months they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.reading.viewer.shelf.columns import Columns, known
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import Shelf

_MOST_SPANS = 1500
_BINS = 240


def timeline(shelf: Shelf, name: str, question: Question) -> dict[str, Any]:
    """Episodes between `from` and `to` (nanoseconds), of `stream` (hex) or of all streams.

    Where more fall into the window than a screen shows, each of its 240 bins says how many, their
    mean return and how many failed: zooming in shows the episodes themselves.
    """
    columns = shelf.run(name).lived.columns()
    begun, ended = columns.numbers["started_ns"], columns.numbers["ended_ns"]
    timed = (begun > 0) & (ended >= begun)
    streams = sorted({s.hex() for s in columns.streams.tolist()})
    if stream := question.text("stream"):
        timed &= np.array([s.hex() == stream for s in columns.streams.tolist()], bool)
    if not timed.any():
        return {"streams": streams, "from_ns": None, "to_ns": None, "spans": [], "bins": []}
    whole = int(begun[timed].min()), int(ended[timed].max())
    low = question.whole("from", whole[0], 0, 1 << 62)
    high = max(question.whole("to", whole[1], 0, 1 << 62), low + 1)
    inside = np.flatnonzero(timed & (ended >= low) & (begun <= high))
    shows_spans = len(inside) <= _MOST_SPANS
    return {
        "streams": streams,
        "whole_from_ns": whole[0],
        "whole_to_ns": whole[1],
        "from_ns": low,
        "to_ns": high,
        "n": len(inside),
        "spans": [_span(columns, int(place)) for place in inside] if shows_spans else [],
        "bins": [] if shows_spans else _bins(columns, inside, low, high),
    }


def _span(columns: Columns, place: int) -> dict[str, Any]:
    row = columns.row(place)
    wanted = ("key", "started_ns", "ended_ns", "env_id", "task_id", "split", "source", "steps")
    return {
        **{name: row[name] for name in wanted},
        "stream": columns.streams[place].hex(),
        "reward": row["reward"],
        "ending": row["ending"],
        "version": row["first_version"],
        "failed": bool(columns.failed[place]),
    }


def _bins(columns: Columns, inside: np.ndarray, low: int, high: int) -> list[dict[str, Any]]:
    begun = np.clip(columns.numbers["started_ns"][inside], low, high)
    # As shares of the window first: nanoseconds since 1970 times 240 overflow.
    at = np.minimum(((begun - low) / (high - low) * _BINS).astype(int), _BINS - 1)
    rewards = columns.reward[inside]
    sure = ~np.isnan(rewards)
    n = np.bincount(at, minlength=_BINS)
    sums = np.bincount(at[sure], weights=rewards[sure], minlength=_BINS)
    counted = np.bincount(at[sure], minlength=_BINS)
    failed = np.bincount(at[columns.failed[inside]], minlength=_BINS)
    with np.errstate(invalid="ignore"):
        means = sums / counted
    return [
        {
            "from_ns": low + int(i / _BINS * (high - low)),
            "to_ns": low + int((i + 1) / _BINS * (high - low)),
            "n": int(n[i]),
            "mean": known(means[i]),
            "failed": int(failed[i]),
        }
        for i in range(_BINS)
        if n[i]
    ]
