"""The work of a collector: what it is to live next, and what it lived before."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.config.schema import Config
from experience.shards.catalog import Catalog

Lane = Literal["train", "evaluation", "demonstration", "random"]


@dataclass(frozen=True)
class Work:
    """One episode to be lived. `work_id` never changes: work done before a crash is not done
    again."""

    env_id: str
    seed: int
    lane: Lane = "train"
    split: str = "train"
    group_id: str = ""
    work_id: bytes = b"\0" * 16
    version: int = -1
    """The policy version that an evaluation is pinned to."""

    @classmethod
    def named(cls, name: str, **what: Any) -> Work:
        return cls(work_id=uuid.uuid5(uuid.NAMESPACE_OID, name).bytes, **what)


def in_step(config: Config) -> bool:
    """Whether a repeated run must have the same rows: one process, and learning never lags."""
    return config.workers == 0 and config.learning.max_lag == 0


@dataclass
class Done:
    """What earlier incarnations left: finished work, used group numbers, groups that never end."""

    work_ids: set[bytes] = field(default_factory=set)
    next_group: int = 0
    void_groups: int = 0
    training_steps: int = 0
    next_episode: dict[bytes, int] = field(default_factory=dict)


def done_before(directory: Path, group_size: int) -> Done:
    done = Done()
    finished: Counter[int] = Counter()
    for step in (
        step
        for steps in Catalog(directory.parent, writer=directory.name).follow()
        for step in steps
    ):
        done.next_episode[step.stream_id] = step.episode + 1
        done.training_steps += step.is_training
        number = int(step.group_id.partition("-")[2]) if step.group_id else -1
        done.next_group = max(done.next_group, number + 1)
        if step.is_closing:
            finished[number] += 1
            if step.ending != "cancelled":  # else it was stopped midway, by whoever ended the run
                done.work_ids.add(step.work_id)
    whole = sum(
        1 for number, episodes in finished.items() if number >= 0 and episodes >= group_size
    )
    done.void_groups = done.next_group - whole
    return done


class Agenda:
    """What a collector lives next: ordered work first, then training groups up to a quota.

    Invariant: no work is given out twice, not even after a crash.
    """

    def __init__(self, config: Config, index: int, collectors: int, done: Done) -> None:
        self.quota = 0
        """How many groups may have been started in all."""
        self.done = done.work_ids
        self._config = config
        self._index = index
        self._collectors = collectors
        self._next_group = done.next_group
        # a group that a crash left unfinished never ends: its place is given to another
        self._void_groups = done.void_groups
        self._orders: deque[Work] = deque()
        self._group: deque[Work] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits that was ordered or begun."""
        return not self._orders and not self._group

    def order(self, works: Sequence[Work], under_way: Sequence[Work]) -> set[int]:
        """Appends what is not done, waiting or under way. Returns all policy versions wanted."""
        known = [*self._orders, *under_way]
        waiting = {work.work_id for work in known}
        self._orders.extend(
            work for work in works if work.work_id not in self.done and work.work_id not in waiting
        )
        return {work.version for work in [*known, *works]}

    def drop_orders(self) -> None:
        self._orders.clear()

    def drop_training(self) -> None:
        self._group.clear()

    def next(self, may_train: bool) -> Work | None:
        """The next work; None if there is none, or only training, and `may_train` is False."""
        if self._orders:
            return self._orders.popleft()
        is_within_quota = self._next_group - self._void_groups < self.quota
        if not self._group and may_train and is_within_quota:
            self._group.extend(self._new_group())
        return self._group.popleft() if self._group else None

    def _new_group(self) -> Iterator[Work]:
        """The next training group: worlds in turn by their share, tasks by a counter that no crash
        rewinds."""
        shares = [world.id for world in self._config.worlds for _ in range(world.groups)]
        # collectors count in steps of their number: no two ever draw the same task
        number = self._next_group * self._collectors + self._index
        env_id = shares[number % len(shares)]
        seed = int(np.random.default_rng([self._config.seed, 1, number]).integers(2**31))
        group_id = f"{self._index}-{self._next_group}"
        self._next_group += 1
        for n in range(self._config.collecting.group_size):
            yield Work.named(
                f"{self._config.seed}/train/{number}/{n}",
                env_id=env_id,
                seed=seed,
                group_id=group_id,
            )
