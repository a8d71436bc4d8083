"""The dispatcher: knows what is to be lived, and leases it to collectors that ask for work.

Work is pulled: a collector asks when a slot is free, and with each question it renews what it
holds. What is not renewed in time goes to another. The same object is a Ray actor of the run, or
lives in this process. Covers: collectors that die, hang, join late or leave. Two collectors may
live the same work if one of them was cut off from the dispatcher and came back: the one whose lease
has ended gives its episode up, and readers count a work that was lived twice once.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from actors.collecting.limits import Deaths, StepLimit
from actors.collecting.policies import Policies
from actors.collecting.work import Done, Work, training_group
from actors.config.schema import Config

LEASE_SECONDS = 10.0
"""How long a collector may be silent before its work goes to another."""
_STEPS_AT_ONCE = 64
"""Training steps that a collector is allowed at once, where the run's steps are limited."""


@dataclass(frozen=True)
class Report:
    """What a collector says when it asks for work. `steps` and `failures` are counted since its
    start.

    collector: its name, with a number that each start makes anew. holds: ids of the work that it
    has and wants to keep. done: ids that were lived to an end since the last report. cancelled: ids
    that it gave up itself, since then. ended: tasks (world, seed) whose process ended, since then.
    steps: training steps taken. version: of its policy. roles: world -> how many of its agents
    the policy plays, where it has several: so many groups are learned from each that is begun.
    """

    collector: str
    wants: int
    holds: tuple[bytes, ...] = ()
    done: tuple[bytes, ...] = ()
    cancelled: tuple[bytes, ...] = ()
    ended: tuple[tuple[str, int], ...] = ()
    steps: int = 0
    version: int = -1
    failures: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    roles: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """What a collector is given.

    works: new work, its own for `seconds` from the moment at which it asked, as is what it holds.
    lost: what it holds and is not its own: another has it, or nobody is to live it.
    steps: training steps that it may have taken in all.
    is_last_step: no collector will be allowed further training steps.
    version, policy: the newest policy; None where the collector has it.
    pins: policies that evaluations among its work are pinned to, by version.
    rewards: version of the reward that rows are to have; empty where the driver has not said it.
    """

    works: tuple[Work, ...]
    lost: frozenset[bytes]
    seconds: float
    steps: float
    is_last_step: bool
    version: int
    policy: Any
    pins: dict[int, Any]
    rewards: str = ""


@dataclass
class _Holder:
    """A collector as the dispatcher sees it."""

    seen: float
    report: Report
    works: dict[bytes, Work] = field(default_factory=dict)
    steps: float = 0.0

    @property
    def taken(self) -> int:
        return self.report.steps


class Dispatcher:
    """Leases ordered work first, then training groups as far as learning has got.

    Invariants: versions, quotas and counts only ever rise, so that a message that comes late or
    twice changes nothing. No work is leased to two collectors at a time, nor again once it is done.
    """

    def __init__(
        self,
        config: Config,
        done: Done,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        rewards: str = "",
    ) -> None:
        self._config = config
        self._rewards = rewards
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._finished = done.work_ids
        self._next_group = done.next_group
        self._started = done.whole_groups
        """Training groups begun, one for each agent that the policy plays. A group that a crash
        left unfinished never ends, and its place is given to another."""
        self._allowed = 0
        at_once = math.inf if config.workers < 2 else _STEPS_AT_ONCE
        self._limit = StepLimit(config.budget.steps, done.training_steps, at_once)
        self._deaths = Deaths()
        self._orders: deque[Work] = deque()
        self._groups: deque[Work] = deque()
        self._roles: dict[str, int] = {}
        self._holders: dict[str, _Holder] = {}
        self._policies = Policies()
        self.on_news: Callable[[], None] = lambda: None
        """Is called when a collector that waits may have something to do."""

    # what the driver says

    def publish(self, version: int, allowed: int, policy: Any) -> None:
        """The newest policy, and how many training groups may have been begun in all."""
        self._policies.publish(version, policy)
        self._allowed = max(self._allowed, allowed)
        self.on_news()

    def hold_back(self) -> None:
        """No further training group is begun, until `publish` allows more than ever before."""
        self._allowed = min(self._allowed, self._started)
        self.on_news()

    def order(self, works: Sequence[Work], version: int = -1, policy: Any = None) -> None:
        """Work to be leased before training goes on; what is known already is passed over."""
        leased = [work for holder in self._holders.values() for work in holder.works.values()]
        known = {work.work_id for work in (*self._orders, *leased)}
        # no union of the two sets: what is finished may be millions, and orders come in blocks
        self._orders.extend(
            work
            for work in works
            if work.work_id not in known and work.work_id not in self._finished
        )
        if policy is not None:
            self._policies.pin(version, policy)
        self._policies.keep({work.version for work in (*self._orders, *leased)})
        self.on_news()

    def drop(self) -> None:
        """Ordered work that is not done is not lived; those who live it give it up."""
        self._orders.clear()
        for holder in self._holders.values():
            holder.works = {i: w for i, w in holder.works.items() if w.lane == "train"}
        self.on_news()

    # what collectors ask

    def renew(self, report: Report) -> Lease:
        """Renews what a collector holds, and leases it what it wants, if there is any."""
        now = self._clock()
        self._expire(now, report.collector)
        holder = self._holders.setdefault(report.collector, _Holder(now, report))
        holder.seen, holder.report = now, report
        self._finished.update(report.done)
        for work_id in (*report.done, *report.cancelled):
            holder.works.pop(work_id, None)
        self._deaths.of_hosts(report.ended)
        self._roles |= report.roles
        holds = frozenset(report.holds)
        lost = holds - holder.works.keys()
        # what it was leased and does not name was lost on the way: it is leased again
        for work_id in holder.works.keys() - holds:
            self._return(holder.works.pop(work_id))
        self._limit.allow(holder, self._holders.values())
        works = tuple(self._next(holder, report.wants))
        holder.works |= {work.work_id: work for work in works}
        return Lease(
            works,
            lost,
            self._lease_seconds,
            holder.steps,
            self._limit.left(self._holders.values()) <= 0,
            self._policies.version,
            self._policies.newer_than(report.version),
            self._policies.pinned({work.version for work in holder.works.values()}),
            self._rewards,
        )

    # what the driver asks

    def status(self) -> list[dict[str, Any]]:
        """One record per collector that is not gone, from its last report."""
        self._expire(self._clock(), "")
        return [
            {
                "collector": name,
                "version": holder.report.version,
                "failures": dict(holder.report.failures),
                "idle": not holder.works and not self.may_go_on,
                "paused": holder.report.paused,
            }
            for name, holder in self._holders.items()
        ]

    @property
    def may_go_on(self) -> bool:
        """Whether there is work that nobody has yet."""
        return bool(self._orders or self._groups) or (
            self._started < self._allowed and self._limit.left(self._holders.values()) > 0
        )

    @property
    def quarantined(self) -> list[tuple[str, int]]:
        """Tasks (world, seed) that ended too many processes, and are not lived any more."""
        return self._deaths.quarantined

    def _next(self, holder: _Holder, wanted: int) -> Iterator[Work]:
        for _ in range(wanted):
            work = self._one(holder)
            if work is None:
                return
            is_quarantined = self._deaths.forbid((work.env_id, work.seed), work.work_id)
            yield replace(work, is_quarantined=True) if is_quarantined else work

    def _one(self, holder: _Holder) -> Work | None:
        """The next work; None if there is none, or only training, and no step of it is allowed."""
        if self._orders:
            return self._orders.popleft()
        if holder.steps <= holder.report.steps:
            return None
        if not self._groups and self._started < self._allowed:
            self._groups.extend(self._new_group())
        return self._groups.popleft() if self._groups else None

    def _new_group(self) -> list[Work]:
        """The next training group, by a counter that no crash rewinds."""
        group = training_group(self._config, self._next_group)
        self._next_group += 1
        self._started += self._roles.get(group[0].env_id, 1)
        return group

    def _expire(self, now: float, but: str) -> None:
        for name, holder in list(self._holders.items()):
            if name != but and now - holder.seen > self._lease_seconds:
                self._take_back(name)

    def _take_back(self, collector: str) -> None:
        holder = self._holders.pop(collector, None)
        if holder is None:
            return
        self._limit.give_up(holder)
        self._deaths.of_a_collector(tuple(holder.works))
        for work in reversed(holder.works.values()):
            self._return(work)
        self.on_news()

    def _return(self, work: Work) -> None:
        """Work that nobody has any more comes before what is new: others of its group wait.

        Work that was done meanwhile is passed over: a collector that died after its last row was
        acknowledged, and before it said so, says it when it comes back.
        """
        if work.work_id in self._finished:
            return
        (self._groups if work.lane == "train" else self._orders).appendleft(work)
