"""Groups of episodes, each given out once: what a group baseline is taken over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experience.episode import Episode, Group
from experience.errors import ShardError


@dataclass
class Dropped:
    """Experience that learning left out, by reason. Whatever is dropped is counted here."""

    stale: int = 0
    cut_off: int = 0
    failed: int = 0
    unknown_reward: int = 0
    alone: int = 0
    lived_twice: int = 0
    late: int = 0
    """Signals that came after their step had been learned from, or given up."""


class GroupQueue:
    """Collects episodes into whole groups and gives each group out once, or drops it.

    `consumed`: the groups given out, in order, each with whether it was learned from or dropped.
    A group with a reward that its world will measure later is put off: it counts as dropped, and
    comes back when the last of its late signals is known.
    """

    def __init__(self, size: int, max_lag: int) -> None:
        self.size, self.max_lag = size, max_lag
        self.dropped = Dropped()
        self.consumed: list[tuple[str, bool]] = []
        self._waiting: dict[str, list[Episode]] = defaultdict(list)
        self._ready: list[Group] = []
        self._lags: list[int] = []
        self._put_off: dict[str, Group] = {}

    def __len__(self) -> int:
        """How many whole groups were not given out yet."""
        return len(self._ready)

    def add(self, episode: Episode) -> None:
        """Takes an episode that belongs to a group."""
        group_id = episode.first.group_id
        waiting = self._waiting[group_id]
        waiting.append(episode)
        if len(waiting) == self.size:
            del self._waiting[group_id]
            # By work, not by arrival: a group is the same whichever collector was faster.
            episodes = sorted(waiting, key=lambda e: e.first.work_id)
            self._ready.append(Group(group_id, tuple(episodes)))

    def take(self, version: int, most: int | None = None) -> list[Group]:
        """The oldest `most` whole groups by id (None: all), less those older than `max_lag`.

        Failed episodes and episodes of unknown reward leave their group; each is counted in
        `dropped`. `version`: the learner's.
        """
        for group_id, group in list(self._put_off.items()):
            if version - group.oldest_version > self.max_lag:
                self.dropped.stale += len(group.episodes)
                del self._put_off[group_id]
        given = self._ready[:most]
        self._ready = self._ready[most:] if most else []
        fresh = []
        for group in sorted(given, key=lambda g: (len(g.group_id), g.group_id)):
            if any(e.is_awaited for e in group.episodes if not e.failed):
                self.consumed.append((group.group_id, False))
                self._put_off[group.group_id] = group
                continue
            kept = self._usable(group, version)
            self.consumed.append((group.group_id, kept is not None))
            if kept is not None:
                fresh.append(kept)
        return fresh

    def amend(self, before: Episode, now: Episode) -> bool:
        """Takes `now` in place of `before`; False if its group was given out already."""
        group_id = now.first.group_id
        waiting = self._waiting.get(group_id, [])
        if any(e is before for e in waiting):
            self._waiting[group_id] = [now if e is before else e for e in waiting]
            return True
        for place, group in enumerate(self._ready):
            if group.group_id == group_id:
                self._ready[place] = _with(group, before, now)
                return True
        if group_id not in self._put_off:
            return False
        self._put_off[group_id] = _with(self._put_off[group_id], before, now)
        self._bring_back(group_id)
        return True

    def _bring_back(self, group_id: str) -> None:
        """Has the group given out if no late signal of it is missing any more."""
        group = self._put_off[group_id]
        if not any(e.is_awaited for e in group.episodes if not e.failed):
            del self._put_off[group_id]
            self.consumed.remove((group_id, False))
            self._ready.append(group)

    @property
    def put_off(self) -> list[str]:
        """The groups that wait for late signals."""
        return list(self._put_off)

    def _usable(self, group: Group, version: int) -> Group | None:
        lag = version - group.oldest_version
        if lag > self.max_lag:
            self.dropped.stale += len(group.episodes)
            return None
        self._lags.append(lag)
        for episode in group.episodes:
            self.dropped.failed += episode.failed
            self.dropped.unknown_reward += not episode.failed and episode.total_reward is None
        kept = _comparable(group)
        if len(kept.episodes) > 1:
            return kept
        self.dropped.alone += len(kept.episodes)  # nothing to compare it with
        return None

    @property
    def mean_lag(self) -> float:
        """Mean age, in versions, of the groups given out lately."""
        return float(np.mean(self._lags[-64:])) if self._lags else 0.0

    def restore(
        self,
        consumed: Sequence[tuple[str, bool]],
        *,
        rows_removed: bool,
        put_off: Sequence[str] = (),
    ) -> list[Group]:
        """Takes `consumed` groups as given out; those that were learned from, in their order.

        put_off: the groups among them that waited for late signals.

        Raises ShardError if one of them is not there, unless `rows_removed` says that retention
        took rows of the store: then the group is passed over.
        """
        self.consumed = list(consumed)
        ready = {group.group_id: group for group in self._ready}
        missing = [group_id for group_id, _ in consumed if group_id not in ready]
        if missing and not rows_removed:
            raise ShardError(
                f"{len(missing)} groups that were learned from are not in the store, "
                f"{missing[0]} first",
                "the checkpoint belongs to another store, or shards were lost: ./xp verify says "
                "which",
            )
        given = {group_id for group_id, _ in consumed}
        self._ready = [group for group in self._ready if group.group_id not in given]
        for group_id in put_off:
            if group_id in ready:
                self._put_off[group_id] = ready[group_id]
                self._bring_back(group_id)
        learned = [group_id for group_id, used in consumed if used and group_id in ready]
        return [_comparable(ready[group_id]) for group_id in learned]


def _with(group: Group, before: Episode, now: Episode) -> Group:
    return Group(group.group_id, tuple(now if e is before else e for e in group.episodes))


def _comparable(group: Group) -> Group:
    """The group less what says nothing about the agent: failed episodes and unknown rewards."""
    kept = [e for e in group.episodes if not e.failed and e.total_reward is not None]
    return Group(group.group_id, tuple(kept))
