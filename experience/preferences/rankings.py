"""Rankings: which of several episodes of the same start were better, by people or by return.

People say so in two ways, both amendments of source `human` (the viewer writes them):
    human_choice   1 on the chosen episode, evidence `over KEY, KEY`; 0 on those it was chosen over
    human_rating   a number on an episode; of two in the same group, the higher is better
An episode's key is `<stream in hexadecimal>:<t of its first row>`; what is said of an episode may
stand at any of its rows.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experience.episode import Episode, EpisodeReader, Group
from experience.errors import ConfigError
from experience.shards.amend import follow_amended
from experience.shards.storage.amendment_files import amendments

CHOICE = "human_choice"
RATING = "human_rating"
By = Literal["people", "return"]
Key = tuple[bytes, int]
"""(stream_id, t of its first row) of an episode."""

_KEY = re.compile(r"([0-9a-f]{32}):(\d+)")


@dataclass(frozen=True)
class Ranking:
    """Episodes with grades: higher is better, equal says nothing."""

    episodes: tuple[Episode, ...]
    grades: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.episodes) != len(self.grades):
            raise ValueError(f"{len(self.episodes)} episodes and {len(self.grades)} grades")

    @property
    def pairs(self) -> int:
        """How many pairs of episodes differ in grade."""
        return sum(a > b for a in self.grades for b in self.grades)


def by_return(groups: Iterable[Group]) -> list[Ranking]:
    """The groups' episodes ranked by what they earned; groups without a difference are left out."""
    found = []
    for group in groups:
        known = [
            (episode, episode.total_reward)
            for episode in group.episodes
            if not episode.failed and episode.total_reward is not None
        ]
        ranking = Ranking(tuple(e for e, _ in known), tuple(float(r or 0.0) for _, r in known))
        found.append(ranking)
    return [ranking for ranking in found if ranking.pairs]


def by_people(groups: Iterable[Group]) -> list[Ranking]:
    """The groups' episodes ranked by the choices and ratings that their steps carry."""
    found = []
    for group in groups:
        said = [(episode, _said_of(episode)) for episode in group.episodes]
        known = [(episode, grade) for episode, grade in said if grade is not None]
        found.append(Ranking(tuple(e for e, _ in known), tuple(grade for _, grade in known)))
    return [ranking for ranking in found if ranking.pairs]


def _said_of(episode: Episode) -> float | None:
    """The last choice among the episode's steps, else its last rating; None if nobody said."""
    for name in (CHOICE, RATING):
        values = [s.value for step in episode.rows for s in step.signals if s.name == name]
        known = [value for value in values if value is not None]
        if known:
            return known[-1]
    return None


def rankings(store: Path, by: By) -> list[Ranking]:
    """The rankings of all training episodes of a store, with its amendments.

    by people: each choice is a ranking of the chosen episode over the others; ratings rank the
    episodes of a group. Raises ConfigError if the store holds none.
    """
    episodes = _episodes(store)
    groups = _groups(episodes)
    if by == "return":
        found = by_return(groups)
        hint = "rankings come from groups whose episodes differ in return: collect more of them"
    else:
        found = [*_chosen(store, episodes), *_rated(groups)]
        hint = (
            f"people say so in ./xp view, or as amendments {CHOICE} and {RATING}; "
            "--by return ranks by what episodes earned"
        )
    if not found:
        raise ConfigError(f"{store}: no two episodes are ranked by {by}", hint)
    return found


def _episodes(store: Path) -> dict[Key, Episode]:
    """The training episodes that agents lived to an end, by key."""
    reader = EpisodeReader()
    found = {}
    for steps in follow_amended(store):
        for step in steps:
            for episode in reader.take(step):
                first = episode.first
                if not episode.failed and first.split == "train" and first.source == "real":
                    found[first.stream_id, first.t] = episode
    return found


def _groups(episodes: Mapping[Key, Episode]) -> list[Group]:
    of: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes.values():
        if episode.first.group_id:
            of[episode.first.group_id].append(episode)
    return [Group(name, tuple(some)) for name, some in of.items()]


def _chosen(store: Path, episodes: Mapping[Key, Episode]) -> list[Ranking]:
    """One ranking for each choice, in the order in which they were made.

    An episode that is gone, or that was lived for evaluation, is left out.
    """
    place = _Places(episodes)
    found = []
    for row in amendments(store).to_pylist():
        if row["name"] != CHOICE or row["value"] != 1.0:
            continue
        best = place.of(row["stream_id"], row["t"])
        over = [(bytes.fromhex(s), int(t)) for s, t in _KEY.findall(row["evidence"])]
        worse = [episodes[key] for key in over if key in episodes]
        if best is not None and worse:
            grades = (1.0, *(0.0 for _ in worse))
            found.append(Ranking((episodes[best], *worse), grades))
    return found


def _rated(groups: Iterable[Group]) -> list[Ranking]:
    found = []
    for group in groups:
        ratings = [(e, _rating(e)) for e in group.episodes]
        known = [(e, value) for e, value in ratings if not math.isnan(value)]
        found.append(Ranking(tuple(e for e, _ in known), tuple(value for _, value in known)))
    return [ranking for ranking in found if ranking.pairs]


def _rating(episode: Episode) -> float:
    values = [s.value for step in episode.rows for s in step.signals if s.name == RATING]
    known = [value for value in values if value is not None]
    return known[-1] if known else math.nan


class _Places:
    """Finds the episode that a row belongs to."""

    def __init__(self, episodes: Mapping[Key, Episode]) -> None:
        self._of: dict[Key, Key] = {}
        for key, episode in episodes.items():
            for row in episode.rows:
                self._of[row.stream_id, row.t] = key

    def of(self, stream: bytes, t: int) -> Key | None:
        return self._of.get((stream, t))


def split(found: Sequence[Ranking], share: float = 0.1) -> tuple[list[Ranking], list[Ranking]]:
    """(rankings to fit, rankings held out): every 1/share-th is held out, if there are so many."""
    every = max(round(1 / share), 2)
    held_out = [r for i, r in enumerate(found) if i % every == every - 1]
    return [r for i, r in enumerate(found) if i % every != every - 1], held_out
