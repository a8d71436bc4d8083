"""Feedback: what a person says of a step goes into the store as amendments of source `human`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from actors.reading.viewer.shelf.shelf import OpenRun, Shelf
from experience.errors import ConfigError
from experience.shards.amend import Amendment, amend
from experience.signal import SignalKind

RATING = "human_rating"
CHOICE = "human_choice"
COMMENT = "human_comment"
KINDS: Mapping[str, SignalKind] = {
    RATING: SignalKind("of 1", "human"),
    CHOICE: SignalKind("1: preferred, 0: not", "human"),
    COMMENT: SignalKind("count", "human"),
}
"""The signals that a viewer gives: a reward may weigh them like any other."""
_MOST_COMMENT = 4000
_MOST_CHOSEN = 64
_writing = threading.Lock()


def give(shelf: Shelf, run: str, said: Any) -> dict[str, Any]:
    """Writes feedback durably; returns how many amendments that were.

    said: {key, turn?, rating?, comment?} of one episode (its last acted turn if none is named), or
    {preferred: key, over: [keys]} of several. Raises ConfigError for anything else.
    """
    opened = shelf.run(run)
    if not isinstance(said, Mapping):
        raise ConfigError("feedback is an object", "{key, rating, comment} or {preferred, over}")
    given = _choices(opened, said) if "preferred" in said else _of_one(opened, said)
    if not given:
        raise ConfigError("the feedback says nothing", "give a rating, a comment or a preference")
    # Two files of one number would be one lost: one writes at a time.
    with _writing:
        amend(opened.directory.shards, given, new=KINDS)
    return {"written": len(given), "names": sorted({a.name for a in given})}


def _of_one(run: OpenRun, said: Mapping[str, Any]) -> list[Amendment]:
    stream, t = _row(run, said.get("key"), said.get("turn"))
    comment = said.get("comment", "")
    if not isinstance(comment, str) or len(comment) > _MOST_COMMENT:
        raise ConfigError(f"a comment is a text of at most {_MOST_COMMENT} characters")
    given = []
    if said.get("rating") is not None:
        rating = said["rating"]
        is_number = isinstance(rating, int | float) and not isinstance(rating, bool)
        if not is_number or not 0 <= rating <= 1:
            raise ConfigError(f"the rating {str(rating)[:40]!r} is no number from 0 to 1")
        given.append(Amendment(stream, t, RATING, float(rating), source="human", evidence=comment))
    if comment.strip():
        given.append(Amendment(stream, t, COMMENT, 1.0, source="human", evidence=comment))
    return given


def _choices(run: OpenRun, said: Mapping[str, Any]) -> list[Amendment]:
    over = said.get("over")
    if not isinstance(over, list) or not 1 <= len(over) <= _MOST_CHOSEN:
        raise ConfigError("`over` is a list of the keys of the episodes that were not chosen")
    best = _row(run, said["preferred"], None)
    rest = [_row(run, key, None) for key in over]
    if best in rest:
        raise ConfigError("an episode cannot be preferred over itself")
    over_all = "over " + ", ".join(str(key) for key in over)
    under = f"under {said['preferred']}"
    return [
        Amendment(*best, CHOICE, 1.0, source="human", evidence=over_all),
        *(Amendment(*row, CHOICE, 0.0, source="human", evidence=under) for row in rest),
    ]


def _row(run: OpenRun, key: Any, turn: Any) -> tuple[bytes, int]:
    """(stream, t) of a turn of an episode; without a turn, of the last that was acted."""
    if not isinstance(key, str):
        raise ConfigError("the feedback names no episode", "its key is a stream and a t")
    place, _ = run.lived.episode(key)
    columns = run.lived.columns()
    first, steps = int(columns.numbers["first_t"][place]), int(columns.numbers["steps"][place])
    if turn is None:
        return columns.streams[place], first + max(steps - 1, 0)
    last = int(columns.numbers["last_t"][place])
    if isinstance(turn, bool) or not isinstance(turn, int) or not 0 <= turn <= last - first:
        raise ConfigError(f"turn {str(turn)[:40]!r} is not of this episode")
    return columns.streams[place], first + turn
