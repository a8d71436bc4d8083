"""The pool in this process: one collector, no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.collector import Collector
from actors.collecting.work import Work, in_step
from actors.config.schema import Config
from actors.pool.pool import all_new
from experience.models.weights import PolicyBundle
from experience.shards.catalog import Catalog
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

    def __init__(self, config: Config, run_id: str, directory: Path, catalog: Catalog) -> None:
        self._catalog = catalog
        self._in_step = in_step(config)
        self._collector = Collector(config, run_id, directory, 0, 1)

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._collector.load(policy, quota)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        self._collector.order(works, policy)

    def drop(self) -> None:
        self._collector.drop()

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        held_rounds = 0
        while not until():
            closed = self._collector.closed
            busy = self._collector.pump()
            held_rounds += 1
            no_episode_ended = closed == self._collector.closed
            if self._in_step and busy and no_episode_ended and held_rounds < _MAX_HELD_ROUNDS:
                yield []
                continue
            held_rounds = 0
            if self._in_step or not busy:
                self._collector.journal.commit()
            yield all_new(self._catalog)

    def status(self) -> list[dict[str, Any]]:
        return [self._collector.status()]

    def close(self) -> dict[bytes, int]:
        self._collector.close()
        return dict(self._collector.journal.acknowledged)
