"""The pool in this process: one collector, no Ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.dispatcher import Dispatcher
from actors.collecting.loop.collector import Collector
from actors.collecting.loop.leases import DirectLine
from actors.collecting.work import Work, done_before
from actors.config.schema import Config
from actors.pool.pool import Follows, all_new, programs_of
from experience.models.weights import PolicyBundle
from experience.step import Step

_MAX_HELD_ROUNDS = 100
"""Rounds after which rows are given out in step though no episode ended: the budget of steps is
checked against rows that were given out, and would otherwise overrun in a long episode."""


class LocalPool:
    """One collector in this process, which writes the same shards as a collector under Ray.

    In step (see `in_step`), rows are given out when an episode has ended, not when the clock
    committed them. What the learner knows at each decision is then the same in every run.
    """

    restarts = 0

    def __init__(
        self, config: Config, run_id: str, directory: Path, catalog: Follows, rewards: str = ""
    ) -> None:
        self._catalog = catalog
        done = done_before(directory, config.collecting.group_size)
        # no other collector is there to take over: a lease may last while the learner learns
        self._dispatcher = Dispatcher(config, done, lease_seconds=math.inf, rewards=rewards)
        line = DirectLine(self._dispatcher)
        self.collector = Collector(config, run_id, directory, 0, line, programs_of(config))
        self._dispatcher.on_news = self.collector.leases.hear

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._dispatcher.publish(policy.version, quota, policy)

    def stop(self) -> None:
        self._dispatcher.hold_back()

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        version = -1 if policy is None else policy.version
        self._dispatcher.order(works, version, policy)

    def drop(self) -> None:
        self._dispatcher.drop()

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        held_rounds = 0
        while not until():
            closed = self.collector.closed
            busy = self.collector.pump()
            held_rounds += 1
            no_episode_ended = closed == self.collector.closed
            if (
                self.collector.in_step
                and busy
                and no_episode_ended
                and held_rounds < _MAX_HELD_ROUNDS
            ):
                yield []
                continue
            held_rounds = 0
            if self.collector.in_step or not busy:
                self.collector.journal.commit()
            yield all_new(self._catalog)

    def status(self) -> list[dict[str, Any]]:
        self.collector.leases.tell()
        return self._dispatcher.status()

    @property
    def quarantined(self) -> list[tuple[str, int]]:
        return self._dispatcher.quarantined

    def close(self) -> dict[bytes, int]:
        return self.collector.close()
