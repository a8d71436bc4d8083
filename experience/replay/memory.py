"""Replay in memory: which stored steps a learner sees."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experience.episode import Episode, EpisodeReader, Group
from experience.errors import ShardError
from experience.replay.groups import Dropped, GroupQueue
from experience.step import OTHERS, Source, Step
from experience.text.strict_json import dumps

_RANDOM = "random"
"""The behaviour of the baseline that no policy acted in."""


@dataclass(frozen=True)
class _Place:
    """Where the replay keeps an episode.

    first_t: of its rows. kept, number: the list that holds it, and where. first_pair: where its
    transitions begin, if it has some.
    """

    first_t: int
    kept: list[Episode]
    number: int
    first_pair: int

    @property
    def episode(self) -> Episode:
        return self.kept[self.number]


class Replay:
    """All steps read so far, and the samples taken from them.

    `transitions`: (row, next row) of real and demonstrated training episodes, for world models.
    `finished`: the work that was lived to an end. `takes_work_once`: of work that two streams lived
    to an end, the first is taken and the others are counted.
    Invariants: only split `train` is ever given out; sources never mix unless asked for; a window
    never crosses an episode's end, a restart or a gap.
    """

    def __init__(
        self, group_size: int, max_lag: int, seed: int = 0, takes_work_once: bool = False
    ) -> None:
        self.steps_by_source: dict[str, int] = defaultdict(int)
        self.training_steps = 0
        self.episodes: dict[Source, list[Episode]] = defaultdict(list)
        self.transitions: list[tuple[Step, Step]] = []
        self.finished: set[bytes] = set()
        self._groups = GroupQueue(group_size, max_lag)
        self._takes_work_once = takes_work_once
        self._reader = EpisodeReader()
        self._lived_in: dict[tuple[bytes, str], bytes] = {}
        """Finished work, and its agent if it has several -> the stream in which it was lived."""
        self._held_out: list[Episode] = []
        self._places: dict[bytes, list[_Place]] = defaultdict(list)
        """By stream, the episodes that were taken, in the order of their rows."""
        self._rng = np.random.default_rng(seed)

    def add(self, steps: Iterable[Step]) -> None:
        """Takes committed rows, in the order of their streams."""
        for step in steps:
            if not step.is_closing:
                self.steps_by_source[step.source] += 1
                self.training_steps += step.is_training
            for episode in self._reader.take(step):
                self._take(episode)

    def _take(self, episode: Episode) -> None:
        closing = episode.closing
        if closing is None:
            self.dropped.cut_off += 1  # it has no return
            return
        work = closing.work_id, closing.agent_id
        lived_in = self._lived_in.get(work, closing.stream_id)
        if self._takes_work_once and lived_in != closing.stream_id:
            # by a collector that was cut off, and by another that had its work meanwhile
            self.dropped.lived_twice += 1
            return
        # Cancelled work is not finished: it is lived again, if it is ordered again.
        if episode.ending != "cancelled":
            self.finished.add(closing.work_id)
            self._lived_in[work] = closing.stream_id
        first = episode.first
        if first.split == OTHERS:
            return  # another than the policy acted in it
        kept = self._held_out if first.split != "train" else self.episodes[first.source]
        place = _Place(first.t, kept, len(kept), len(self.transitions))
        self._places[first.stream_id].append(place)
        kept.append(episode)
        if first.split != "train":
            return
        if not episode.failed and first.source in ("real", "demonstration"):
            # What is no turn of the world changes nothing in it: there is nothing to predict.
            self.transitions += [p for p in episode.transitions if not p[0].is_aside]
        if first.source == "real" and first.group_id:
            self._groups.add(episode)

    def amend(self, keys: Iterable[tuple[bytes, int]], amended: Callable[[Step], Step]) -> None:
        """Rows (stream, t) have other signals now: `amended` gives each row as it is known now.

        A row whose group was learned from, or given up, stays as it was for the learner, and is
        counted in `dropped`.
        """
        for stream, t in keys:
            place = self._place(stream, t)
            if place is not None:
                self._amend(place, t, amended)
            elif (row := self._reader.find(stream, t)) is not None:
                self._reader.amend(amended(row))

    def _place(self, stream: bytes, t: int) -> _Place | None:
        """The place of the episode that holds row `t`; None if none of those taken does."""
        places = self._places.get(stream, [])
        number = bisect_right(places, t, key=lambda place: place.first_t) - 1
        if number < 0:
            return None
        place = places[number]
        return place if t <= place.episode.rows[-1].t else None

    def _amend(self, place: _Place, t: int, amended: Callable[[Step], Step]) -> None:
        before = place.episode
        steps = tuple(amended(s) if s.t == t else s for s in before.steps)
        now = replace(before, steps=steps)
        place.kept[place.number] = now
        pairs = self.transitions[place.first_pair : place.first_pair + len(before.steps)]
        for number, (row, following) in enumerate(pairs, place.first_pair):
            if row.stream_id == now.first.stream_id and row.t == t:
                self.transitions[number] = amended(row), following
        is_learned = now.first.source == "real" and now.first.split == "train"
        if is_learned and now.first.group_id and not self._groups.amend(before, now):
            self.dropped.late += 1

    @property
    def dropped(self) -> Dropped:
        """What learning left out, by reason."""
        return self._groups.dropped

    @property
    def consumed(self) -> list[tuple[str, bool]]:
        """Groups given out, in order, each with whether it was learned from or dropped."""
        return self._groups.consumed

    @property
    def ready_groups(self) -> int:
        return len(self._groups)

    @property
    def mean_lag(self) -> float:
        """Mean age, in versions, of the groups given out lately."""
        return self._groups.mean_lag

    def window(self, version: int, most: int | None = None) -> list[Group]:
        """The whole groups not given out yet, the oldest `most`: see `GroupQueue.take`."""
        return self._groups.take(version, most)

    def held_out(
        self, version: int, env_id: str | None = None, behaviour: str | None = None
    ) -> list[Episode]:
        """Held-out episodes acted by policy `version`: for evaluation, never for learning.

        The random baseline's are among them only if `behaviour` names it.
        """
        acted = (e for e in self._held_out if _was_acted_by(e, version, behaviour))
        return [e for e in acted if env_id in (None, e.first.env_id)]

    def evaluated_versions(self) -> list[int]:
        """The versions of the policy that held-out episodes were acted by, in order."""
        decisions = (episode.first.decision for episode in self._held_out)
        return sorted({d.policy_version for d in decisions if d and d.behaviour_id != _RANDOM})

    def sample_steps(self, n: int, sources: Sequence[Source] = ("real",)) -> list[Step]:
        """`n` steps drawn uniformly, with replacement, from training episodes of `sources`."""
        return [w[0] for w in self.windows(n, 1, sources)]

    def sample_roots(self, n: int, within: int) -> list[Step]:
        """`n` real steps, with replacement: a training episode, then one of its first `within`.

        Drawn step by step, the long episodes of a policy that is stuck would be nearly all. Raises
        ShardError if there is none.
        """
        episodes = [e for e in self.episodes["real"] if e.steps and not e.failed]
        if not episodes:
            raise ShardError("no real training episode has a turn yet", "collect more")
        drawn = (episodes[int(i)] for i in self._rng.integers(len(episodes), size=n))
        return [e.steps[int(self._rng.integers(min(len(e.steps), within)))] for e in drawn]

    def windows(
        self, n: int, length: int, sources: Sequence[Source] = ("real",)
    ) -> list[tuple[Step, ...]]:
        """`n` uniform windows of `length` successive turns of one episode, with replacement.

        Raises ShardError if no training episode of `sources` is that long.
        """
        of_sources = (episode for source in sources for episode in self.episodes[source])
        episodes = [e for e in of_sources if len(e.steps) >= length and not e.failed]
        if not episodes:
            raise ShardError(
                f"no training episode of {'/'.join(sources)} has {length} turns yet",
                "collect more, or ask for shorter windows",
            )
        return _uniform_windows(episodes, n, length, self._rng)

    def demonstrations(self) -> list[Episode]:
        """Demonstrations by their work, so that what is sampled from them is the same on resume."""
        whole = (e for e in self.episodes["demonstration"] if not e.failed)
        return sorted(whole, key=lambda e: e.first.work_id)

    def recent_returns(self, env_id: str, most: int = 64) -> list[float]:
        """Returns of the newest real training episodes of a world, oldest first."""
        lately = self.episodes["real"][-8 * most :]
        of_world = [e for e in lately if e.first.env_id == env_id and not e.failed]
        returns = (episode.total_reward for episode in of_world[-most:])
        return [total for total in returns if total is not None]

    def save(self) -> dict[str, bytes]:
        """The cursor, which belongs beside the weights: groups given out, and random state."""
        about = {
            "consumed": self.consumed,
            "dropped": vars(self.dropped),
            "put_off": self._groups.put_off,
            "random": self._rng.bit_generator.state,
        }
        return {"replay.json": dumps(about).encode()}

    def restore(self, saved: Mapping[str, bytes], *, rows_removed: bool = False) -> list[Group]:
        """After the store was read again: what `save` knew as given out is not given out again.

        Returns the groups that were learned from, in their order. Raises as `GroupQueue.restore`.
        """
        about = json.loads(saved["replay.json"])
        self._groups.dropped = Dropped(**about["dropped"])
        self._rng.bit_generator.state = about["random"]
        consumed = [(group_id, used) for group_id, used in about["consumed"]]
        return self._groups.restore(
            consumed, rows_removed=rows_removed, put_off=about.get("put_off", ())
        )


def _was_acted_by(episode: Episode, version: int, behaviour: str | None) -> bool:
    """Whether `behaviour` (None: any policy) acted in the episode, at `version`."""
    decision = episode.first.decision
    if decision is None or decision.policy_version != version:
        return False
    if behaviour:
        return decision.behaviour_id == behaviour
    return decision.behaviour_id != _RANDOM


def _uniform_windows(
    episodes: Sequence[Episode], n: int, length: int, rng: np.random.Generator
) -> list[tuple[Step, ...]]:
    # ends[i]: how many windows begin in the episodes up to i, so that each is equally likely.
    ends = np.cumsum([len(e.steps) - length + 1 for e in episodes])
    windows = []
    for draw in rng.integers(ends[-1], size=n):
        which = int(np.searchsorted(ends, draw, side="right"))
        first = int(draw - (ends[which - 1] if which else 0))
        windows.append(episodes[which].steps[first : first + length])
    return windows
