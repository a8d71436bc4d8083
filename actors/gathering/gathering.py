"""Gathering: has works lived by a policy that does not change, until all are done or the budget is
spent."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from actors.collecting.work import Work
from actors.engines.model import limit_threads
from actors.engines.registry import check_engine
from actors.gathering.acting import Acting
from actors.gathering.tally import Tally
from actors.pool.factory import make_pool
from actors.pool.pool import Pool, all_new
from actors.running.machine import is_full
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.errors import XpError
from experience.shards.catalog import Catalog, check_acknowledged
from experience.step import Step

Report = Callable[[Progress], None]
_SECONDS_BETWEEN = 2.0
"""Between two reports while rows come in."""
_STALLED_SECONDS = 30 * 60
_BLOCKS_AHEAD = 8
"""Works that are ordered ahead, in multiples of what can be under way."""
_FEWEST_AHEAD = 64


class Gathering:
    """Orders works in blocks, so that a million of them are never in memory at once.

    progress: is kept up to date and reported, as a run's is. tally: of the whole store.
    """

    def __init__(
        self,
        who: Acting,
        temperature: float,
        directory: RunDirectory,
        tally: Tally,
        report: Report = lambda _: None,
        phase: str = "collecting",
    ) -> None:
        self.progress = Progress(directory.name, learns=False, version=who.version, phase=phase)
        self.tally = tally
        self._who = who
        self._config = who.at(temperature)
        self._budget = who.config.budget
        self._directory = directory
        self._report = report
        self._catalog = Catalog(directory.shards)
        self._pool: Pool | None = None
        """Made when there is something to be lived."""
        slots = max(self._config.workers, 1) * self._config.collecting.slots
        self._block = max(_BLOCKS_AHEAD * slots, _FEWEST_AHEAD)
        self._open: set[bytes] = set()
        """Ordered works that are not done."""
        self._take(all_new(self._catalog))
        self._steps_before = sum(tally.steps.values())
        self._began = self._reported = time.monotonic()
        self._moved = len(tally.finished), self._began

    def live(self, works: Callable[[], Iterable[Work]]) -> None:
        """Returns when all works are done or the budget is spent; `progress.cut_short` says so.

        works: makes the works, each time the same; what the store holds is not lived again. Raises
        XpError where no episode ends for half an hour and no limit of time was given.
        """
        finished = self.tally.finished
        is_done = [work.work_id in finished for work in works()]
        of, before = len(is_done), sum(is_done)
        already = len(finished)
        missing = (work for work in works() if work.work_id not in finished)

        def count() -> int:
            done = before + len(finished) - already
            self.progress.done = {"episode": (done, of)}
            return done

        if count() < of:
            self._start()
            self._live(missing, count)
        if count() < of:
            why = f"{count()} of {of} episodes {self._limit()}"
            self.progress.cut_short[self.progress.phase] = why
        self.show()

    def _start(self) -> None:
        if not self._who.is_script:
            limit_threads(self._config.learning.threads)  # as in a run, whose learner has them
            check_engine(self._config.policy)
        directory = self._directory
        self._pool = make_pool(self._config, directory.name, directory.shards, self._catalog)
        if self._who.bundle is not None:
            self._pool.push(self._who.bundle, quota=0)

    def _live(self, missing: Iterator[Work], count: Callable[[], int]) -> None:
        assert self._pool is not None
        pool = self._pool
        counted = -1

        def is_over() -> bool:
            nonlocal counted
            if len(self.tally.finished) != counted:
                counted = len(self.tally.finished)
                self._open -= {work_id for work_id in self._open if work_id in self.tally.finished}
                self._order_more(pool, missing)
                count()
            return not self._open or self._is_spent()

        for rows in pool.shards(until=is_over):
            self._take(rows)
            if time.monotonic() - self._reported > _SECONDS_BETWEEN:
                self.show()

    def _order_more(self, pool: Pool, missing: Iterator[Work]) -> None:
        if len(self._open) > self._block // 2:
            return
        block = list(itertools.islice(missing, self._block))
        if block:
            self._open |= {work.work_id for work in block}
            pool.order(block)

    def _is_spent(self) -> bool:
        """Whether a limit is reached. Raises XpError where nothing ends, and none would be."""
        now, finished = time.monotonic(), len(self.tally.finished)
        if finished != self._moved[0]:
            self._moved = finished, now
        if self._budget.minutes is None and now - self._moved[1] > _STALLED_SECONDS:
            raise XpError(
                f"no episode ended in {_STALLED_SECONDS // 60} minutes",
                "./xp show says what failed; a world whose episodes do not end needs "
                "budget.minutes",
            )
        return bool(self._limit())

    def _limit(self) -> str:
        """The limit that is reached, of this call; empty if none is."""
        budget, steps = self._budget, sum(self.tally.steps.values()) - self._steps_before
        if budget.minutes is not None and time.monotonic() - self._began >= 60 * budget.minutes:
            return f"after {budget.minutes:g} minutes (budget.minutes)"
        if budget.steps is not None and steps >= budget.steps:
            return f"after {steps} steps (budget.steps)"
        return ""

    def _take(self, rows: Sequence[Step]) -> None:
        self.tally.take(rows)
        self.progress.count_rows(rows)

    def show(self) -> None:
        """Reads the tally into progress, and reports it."""
        self._reported = time.monotonic()
        progress, tally = self.progress, self.tally
        progress.seconds = time.monotonic() - self._began
        progress.disk_is_full = is_full(self._directory.path)
        progress.steps = dict(tally.steps)
        progress.training_steps = tally.training_steps
        progress.episodes = len(tally.finished)
        progress.training = {world: [*found] for world, found in tally.newest.items()}
        self._report(progress)

    def close(self) -> None:
        """Seals everything, and holds the shards against what was acknowledged."""
        if self._pool is None:
            return
        pool, progress = self._pool, self.progress
        progress.closing = True
        self.show()
        acknowledged = pool.close()
        progress.count_collectors(pool.status(), pool.quarantined, pool.restarts, acknowledged)
        self._directory.write_failures(vars(failure) for failure in progress.broken.values())
        self._take(all_new(self._catalog))  # what the collectors committed while they ended
        progress.steps = dict(self.tally.steps)
        check_acknowledged(self._directory.shards, acknowledged, self._catalog.given)


@contextmanager
def gathering(
    who: Acting,
    temperature: float,
    directory: RunDirectory,
    tally: Tally,
    report: Report,
    phase: str,
) -> Iterator[Gathering]:
    """A gathering that is closed whatever happens: journals are sealed, collectors are ended."""
    gathered = Gathering(who, temperature, directory, tally, report, phase)
    try:
        yield gathered
    finally:
        gathered.close()
