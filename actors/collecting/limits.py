"""Limits of a run: the training steps that it may take, and the processes that a task may end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

_MOST_ENDED_HOSTS = 3
"""How many processes a task may end before nobody lives it any more."""
_MOST_ENDED_COLLECTORS = 5
"""The same for whole collectors, which die with many tasks under way: most are not to blame."""


class Allowance(Protocol):
    """A collector's share of the training steps."""

    steps: float
    """Steps that it may have taken in all."""

    @property
    def taken(self) -> int:
        """Steps that it has taken, as far as it has told."""


class StepLimit:
    """Shares out the training steps that a run may take, so that all together never pass it."""

    def __init__(self, limit: int | None, taken: int, at_once: float) -> None:
        self._limit = limit
        self._gone: float = taken
        """Steps of earlier attempts, and all that was allowed to collectors that are gone."""
        self._at_once = at_once

    def left(self, holders: Iterable[Allowance]) -> float:
        """Steps that are neither taken nor allowed to anybody."""
        if self._limit is None:
            return math.inf
        return self._limit - self._gone - sum(holder.steps for holder in holders)

    def allow(self, holder: Allowance, holders: Iterable[Allowance]) -> None:
        """Allows a collector as many as it may soon take."""
        if self._limit is None:
            holder.steps = math.inf
            return
        left = self.left(holders)
        wanted = holder.taken + min(self._at_once, left) - holder.steps
        holder.steps += max(min(left, wanted), 0)

    def give_up(self, holder: Allowance) -> None:
        """A collector is gone. All that it was allowed counts as taken: nobody knows how much."""
        self._gone += holder.steps if self._limit is not None else 0


class Deaths:
    """Counts the processes that each task has ended."""

    def __init__(self) -> None:
        self._hosts: Counter[tuple[str, int]] = Counter()
        self._collectors: Counter[bytes] = Counter()

    def of_hosts(self, tasks: Iterable[tuple[str, int]]) -> None:
        self._hosts.update(tasks)

    def of_a_collector(self, under_way: Iterable[bytes]) -> None:
        self._collectors.update(under_way)

    def forbid(self, task: tuple[str, int], work_id: bytes) -> bool:
        """Whether the work of a task is not to be lived any more."""
        return (
            self._hosts[task] >= _MOST_ENDED_HOSTS
            or self._collectors[work_id] >= _MOST_ENDED_COLLECTORS
        )

    @property
    def quarantined(self) -> list[tuple[str, int]]:
        """Tasks (world, seed) that ended too many processes of their worlds."""
        return [task for task, count in self._hosts.items() if count >= _MOST_ENDED_HOSTS]
