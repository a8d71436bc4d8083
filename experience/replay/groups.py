"""Groups of episodes, each given out once: what a group baseline is taken over.

Episodes are numbers of an index here. Their rows are read when a group is given out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Facts(Protocol):
    """What is known of an episode without its rows."""

    def failed(self, number: int) -> bool:
        """Whether a crash or the world ended it."""

    def unknown(self, number: int) -> bool:
        """Whether its return is unknown."""

    def awaited(self, number: int) -> bool:
        """Whether its return is unknown and will be measured later."""

    def oldest_version(self, number: int) -> int | None:
        """The oldest policy that acted in it; None: none did."""


@dataclass(frozen=True, slots=True)
class Members:
    """A whole group, as the numbers of its episodes."""

    group_id: str
    numbers: tuple[int, ...]


class GroupQueue:
    """Collects episodes into whole groups and gives each group out once, or drops it.

    `consumed`: the groups given out, in order, each with whether it was learned from or dropped.
    A group with a reward that its world will measure later is put off: it counts as dropped, and
    comes back when the last of its late signals is known.
    """

    def __init__(self, size: int, max_lag: int, facts: Facts) -> None:
        self.size, self.max_lag = size, max_lag
        self.dropped = Dropped()
        self.consumed: list[tuple[str, bool]] = []
        self._facts = facts
        self._waiting: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
        self._ready: list[Members] = []
        self._lags: deque[int] = deque(maxlen=64)
        self._put_off: dict[str, Members] = {}

    def __len__(self) -> int:
        """How many whole groups were not given out yet."""
        return len(self._ready)

    def add(self, group_id: str, work_id: bytes, number: int) -> None:
        """Takes an episode that belongs to a group."""
        waiting = self._waiting[group_id]
        waiting.append((work_id, number))
        if len(waiting) == self.size:
            del self._waiting[group_id]
            # By work, not by arrival: a group is the same whichever collector was faster.
            ordered = sorted(waiting, key=lambda member: member[0])
            self._ready.append(Members(group_id, tuple(number for _, number in ordered)))

    def take(self, version: int, most: int | None = None) -> list[Members]:
        """The oldest `most` whole groups by id (None: all), less those older than `max_lag`.

        Failed episodes and episodes of unknown reward leave their group; each is counted in
        `dropped`. `version`: the learner's.
        """
        for group_id, group in list(self._put_off.items()):
            if version - self._oldest_version(group) > self.max_lag:
                self.dropped.stale += len(group.numbers)
                del self._put_off[group_id]
        given = self._ready[:most]
        self._ready = self._ready[most:] if most else []
        fresh = []
        for group in sorted(given, key=lambda g: (len(g.group_id), g.group_id)):
            if self._is_awaited(group):
                self.consumed.append((group.group_id, False))
                self._put_off[group.group_id] = group
                continue
            kept = self._usable(group, version)
            self.consumed.append((group.group_id, kept is not None))
            if kept is not None:
                fresh.append(kept)
        return fresh

    def amend(self, group_id: str) -> bool:
        """An episode of the group has another return now; False if it was given out already."""
        if group_id in self._waiting or any(g.group_id == group_id for g in self._ready):
            return True
        if group_id not in self._put_off:
            return False
        self._bring_back(group_id)
        return True

    def _bring_back(self, group_id: str) -> None:
        """Has the group given out if no late signal of it is missing any more."""
        group = self._put_off[group_id]
        if not self._is_awaited(group):
            del self._put_off[group_id]
            self.consumed.remove((group_id, False))
            self._ready.append(group)

    @property
    def put_off(self) -> list[str]:
        """The groups that wait for late signals."""
        return list(self._put_off)

    def _is_awaited(self, group: Members) -> bool:
        return any(self._facts.awaited(n) for n in group.numbers if not self._facts.failed(n))

    def _oldest_version(self, group: Members) -> int:
        versions = [self._facts.oldest_version(n) for n in group.numbers]
        return min((v for v in versions if v is not None), default=0)

    def _usable(self, group: Members, version: int) -> Members | None:
        lag = version - self._oldest_version(group)
        if lag > self.max_lag:
            self.dropped.stale += len(group.numbers)
            return None
        self._lags.append(lag)
        for number in group.numbers:
            failed = self._facts.failed(number)
            self.dropped.failed += failed
            self.dropped.unknown_reward += not failed and self._facts.unknown(number)
        kept = self._comparable(group)
        if len(kept.numbers) > 1:
            return kept
        self.dropped.alone += len(kept.numbers)  # nothing to compare it with
        return None

    @property
    def mean_lag(self) -> float:
        """Mean age, in versions, of the groups given out lately."""
        return sum(self._lags) / len(self._lags) if self._lags else 0.0

    def restore(
        self,
        consumed: Sequence[tuple[str, bool]],
        *,
        rows_removed: bool,
        put_off: Sequence[str] = (),
    ) -> list[Members]:
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
        return [self._comparable(ready[group_id]) for group_id in learned]

    def _comparable(self, group: Members) -> Members:
        """The group less what says nothing of the agent: failed episodes and unknown rewards."""
        facts = self._facts
        kept = [n for n in group.numbers if not facts.failed(n) and not facts.unknown(n)]
        return Members(group.group_id, tuple(kept))
