"""Which known word was meant: the guess behind every "did you mean"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_VERSION = re.compile(r"-v\d+$")
_LEAST_OF_IDS = 0.7


def nearest(word: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The known word most like `word`; None where none is at least `least` alike, from 0 (nothing)
    to 1 (the same)."""
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=least)), None)


def nearest_id(env_id: str, known: Iterable[str]) -> str | None:
    """The known id of an environment most like `env_id`; None where none is near. Of ids that
    differ in case or version only, that of the same letters comes first, then the newest."""
    near = max(
        known,
        key=lambda one: (_likeness(env_id, one), one.lower() == env_id.lower(), one),
        default=None,
    )
    return near if near is not None and _likeness(env_id, near) > _LEAST_OF_IDS else None


def did_you_mean(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """The guess as a question; empty where no known word is near."""
    near = nearest(word, known, least)
    return f"did you mean {near!r}?" if near else ""


def _likeness(env_id: str, known: str) -> float:
    """How much two ids have in common, in [0, 1]: package and name must both be alike, unless no
    package was given."""
    (package, _, name), (other_package, _, other_name) = (
        env_id.rpartition(":"),
        known.rpartition(":"),
    )
    # Without the version: `Reactor-v1` means the Reactor that there is.
    bare, other_bare = (_VERSION.sub("", n).lower() for n in (name, other_name))
    names = SequenceMatcher(None, bare, other_bare).ratio()
    return min(names, SequenceMatcher(None, package, other_package).ratio() if package else 1.0)
