"""Leases: the work that a collector holds, which it asks the dispatcher for and renews."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from actors.collecting.dispatcher import Dispatcher, Lease, Report
from actors.collecting.endings import Endings
from actors.collecting.loop.desk import Desk
from actors.collecting.recorder import Recorder
from actors.collecting.work import Work
from experience.errors import ConfigError

_HEARTBEAT_SECONDS = 1.0
_FEW_STEPS = 32
"""With fewer training steps allowed, more are asked for ahead of time."""
_SAFE_SHARE = 0.7
"""Share of a lease's time after which its holder takes it for lost, so that both agree on it."""


class Line(Protocol):
    """The way to the dispatcher. Replies are given on the collector's own thread."""

    def ask(self, report: Report, reply: Callable[[Lease], None]) -> None:
        """Sends a report. If the dispatcher is out of reach, nothing comes back for a while, and
        `reply` is never called."""

    def fetch(self, policy: Any, reply: Callable[[Any], None]) -> None:
        """Fetches the policy that a lease refers to."""

    @property
    def is_asking(self) -> bool:
        """Whether a reply is still waited for."""


class DirectLine:
    """To a dispatcher in this process, which answers at once."""

    is_asking = False

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def ask(self, report: Report, reply: Callable[[Lease], None]) -> None:
        reply(self._dispatcher.renew(report))

    def fetch(self, policy: Any, reply: Callable[[Any], None]) -> None:
        reply(policy)


class Leases:
    """What a collector may live. Only its own thread uses it."""

    def __init__(
        self,
        name: str,
        line: Line,
        desk: Desk,
        recorder: Recorder,
        endings: Endings,
        roles: Mapping[str, int],
        done: Iterable[bytes] = (),
    ) -> None:
        self._name = name
        self._roles = roles
        self._line = line
        self._desk = desk
        self._recorder = recorder
        self._endings = endings
        self._queue: deque[Work] = deque()
        self._held: dict[bytes, Work] = {}
        """Work that is queued, under way, or closed by rows that are not acknowledged yet."""
        self._done: list[bytes] = list(dict.fromkeys(done))
        self._cancelled: list[bytes] = []
        self._ended: list[tuple[str, int]] = []
        self._asked_at = 0.0
        self._ends_at = float("inf")
        self._fetched = -1
        """The newest version of a policy that was fetched, or is being fetched."""
        self._awaits_policy = False
        """Whether the first policy is being fetched: what the engine has until then is no policy
        of anybody, and would act under the number of one."""
        self._was_in_vain = False
        self._pinned: set[int] = set()
        self.has_news = True
        """Whether the dispatcher may have something that it had not when it was asked last."""
        self.on_lost: Callable[[Iterable[bytes]], None] = lambda _: None
        """Is called with the ids of work that is not this collector's any more."""
        self.is_last_step = False
        """Whether nobody will be allowed a further training step."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be begun."""
        return not self._queue

    def next(self) -> Work | None:
        """The work to be begun next; None if there is none, or its policy is on its way here."""
        if not self._queue or (self._awaits_policy and self._queue[0].lane == "train"):
            return None
        return self._queue.popleft()

    def keep(self, free: int) -> None:
        """Asks the dispatcher if there is a reason to. free: slots without work."""
        for work_id, ending in self._endings.take_kept():
            if self._held.pop(work_id, None) is not None:
                (self._cancelled if ending == "cancelled" else self._done).append(work_id)
        now = _now()
        wants = max(free - len(self._queue), 0)
        has_told = bool(self._done or self._cancelled or self._ended)
        is_due = self.has_news or has_told or now - self._asked_at >= _HEARTBEAT_SECONDS
        runs_dry = self._recorder.steps_left < _FEW_STEPS and not self.is_last_step
        wants_more = (wants or runs_dry) and not self._was_in_vain
        if self._line.is_asking or not (is_due or wants_more):
            return
        self.has_news = False
        self._asked_at = now
        report = Report(
            self._name,
            wants,
            tuple(self._held),
            tuple(self._done),
            tuple(self._cancelled),
            tuple(self._ended),
            self._recorder.steps_taken,
            self._fetched,
            dict(self._recorder.failures),
            self._recorder.is_paused,
            dict(self._roles),
        )
        self._line.ask(report, lambda lease: self._accept(report, now, lease))

    def hear(self) -> None:
        """The dispatcher has news. Any thread may say so."""
        self.has_news = True

    def tell(self) -> None:
        """Tells the dispatcher what is done, for the last time."""
        self.has_news = True
        self.keep(0)

    def is_held(self, work: Work) -> bool:
        """Whether the work is still this collector's: after a silence, it may be another's."""
        return work.work_id in self._held and _now() < self._ends_at

    def give_back(self, work: Work) -> None:
        """The work is left unlived here: the next report does not name it, so that it is leased
        again."""
        self._held.pop(work.work_id, None)

    def ended_a_process(self, work: Work) -> None:
        """The work's task ended the process of its world."""
        self._ended.append((work.env_id, work.seed))

    def drop_training(self) -> None:
        """Gives up training that was not begun."""
        for work in [work for work in self._queue if work.lane == "train"]:
            self._queue.remove(work)
            del self._held[work.work_id]
            self._cancelled.append(work.work_id)

    def _accept(self, report: Report, asked_at: float, lease: Lease) -> None:
        del self._done[: len(report.done)]
        del self._cancelled[: len(report.cancelled)]
        del self._ended[: len(report.ended)]
        self._check_rewards(lease)
        self._ends_at = asked_at + lease.seconds * _SAFE_SHARE
        self._recorder.steps_allowed = lease.steps
        self.is_last_step = lease.is_last_step
        if report.wants:
            self._was_in_vain = not lease.works
        lost = [work_id for work_id in lease.lost if work_id in self._held]
        for work_id in lost:
            del self._held[work_id]
        self._queue = deque(work for work in self._queue if work.work_id in self._held)
        if lost:
            self.on_lost(lost)
        self._held |= {work.work_id: work for work in lease.works}
        if lease.policy is not None and lease.version > self._fetched:
            self._awaits_policy |= self._fetched < 0
            self._fetched = lease.version
            self._line.fetch(lease.policy, self._load)
        self._pin(lease)

    def _check_rewards(self, lease: Lease) -> None:
        """Raises ConfigError where this collector's worlds compute another reward than the run."""
        own = self._recorder.reward_version
        if lease.rewards not in ("", own):
            raise ConfigError(
                f"the worlds here compute the reward {own}, and the run's is {lease.rewards}",
                "the files of the worlds differ between the machines: bring the same to all",
            )

    def _load(self, policy: Any) -> None:
        self._desk.load(policy)
        self._awaits_policy = False

    def _pin(self, lease: Lease) -> None:
        """Fetches the policies that the new work is pinned to; the work waits for them."""
        wanted = {work.version for work in self._held.values()}
        self._pinned &= wanted
        self._desk.keep_pinned(wanted)
        missing = {v: p for v, p in lease.pins.items() if v not in self._pinned}
        if not missing:
            self._queue.extend(lease.works)
            return

        def pin(policy: Any) -> None:
            self._desk.pin(policy)
            missing.pop(policy.version)
            self._pinned.add(policy.version)
            if not missing:
                self._queue.extend(work for work in lease.works if work.work_id in self._held)

        for policy in [*missing.values()]:
            self._line.fetch(policy, pin)


def _now() -> float:
    """Seconds, of a clock that goes on while the process, or the machine, is stopped."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
