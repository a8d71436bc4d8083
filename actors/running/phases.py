"""The phases before and after the main loop, each with a count and `budget.phase_minutes`.

The clock cuts only a phase that has used up its budget. A run whose phases end in time is therefore
the same on a slow machine and on a fast one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from actors.collecting.work import Work
from actors.config.schema import Config
from actors.config.section import SEEDS
from actors.pool.evaluator import Evaluator
from actors.pool.pool import Pool
from actors.running.events import Events, PhaseBegan
from actors.running.progress import Progress
from experience.errors import XpError
from experience.learning.learner import Watch
from experience.replay.replay import Replay
from experience.step import Step

_FIT_AT_ONCE = 10
"""Optimiser steps of the world model between two looks at the clock."""
_MOST_SAVING = 0.1
"""Share of an imitation's time that its checkpoints may take."""
Counts = dict[str, tuple[int, int]]


def _is_whole(counts: Counts) -> bool:
    return all(done == of for done, of in counts.values())


class Phases:
    """Waits for ordered works and counts them. `progress.cut_short` names the phases cut."""

    def __init__(
        self,
        config: Config,
        pool: Pool,
        replay: Replay,
        evaluator: Evaluator,
        progress: Progress,
        take: Callable[[Sequence[Step]], None],
        events: Events,
    ) -> None:
        self._config, self._pool, self._replay, self._evaluator = config, pool, replay, evaluator
        self._progress, self._take, self._events = progress, take, events
        self._ends = math.inf
        self.is_imitating = False
        """Whether a crash came before imitation was over: demonstrations are there already."""
        self.not_shown: set[bytes] = set()
        """Demonstrations that were cut. They are not imitated, even if one has ended meanwhile."""

    def begin(self, phase: str, counts: Counts | None = None, minutes: float | None = None) -> None:
        self._progress.phase, self._progress.done = phase, counts or {}
        self._ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._events.emit(PhaseBegan(phase, counts or {}))

    @property
    def _minutes(self) -> float:
        return self._config.budget.phase_minutes

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends

    def demonstrate(self) -> None:
        """Has the worlds' scripted experts live their episodes, and the random baseline its own.

        Raises XpError where demonstrations were ordered and not one could be had.
        """
        works = [
            Work.named(
                f"{self._config.seed}/demonstration/{w.id}/{i}",
                env_id=w.id,
                lane="demonstration",
                seed=(1_000_000_007 + 7919 * self._config.seed + i) % SEEDS,
            )
            for w in self._config.worlds
            for i in range(w.demonstrations)
        ]
        self._pool.order([w for w in works if w.work_id not in self._replay.finished])
        ordered = {w.work_id for w in works}
        missing = self._wait(
            "demonstrations", {"demonstrations": ordered, "baseline": self._evaluator.baseline()}
        )
        self.not_shown = missing & ordered
        if ordered and self._config.policy.learns and not self._replay.demonstrations():
            self._refuse(len(ordered))

    def _refuse(self, ordered: int) -> None:
        why = ", ".join(
            f"{first.count} × {first.world}: {first.what}"
            for first in self._progress.broken.values()
        )
        cut = self._progress.cut_short.get("demonstrations", "")
        raise XpError(
            f"not one of {ordered} demonstrations could be had: "
            f"{why or cut or 'no reason is known'}",
            "./xp env check says what is wrong with a world; demonstrations: 0 does without its "
            "expert, budget.phase_minutes gives it more time",
        )

    def evaluate(self) -> None:
        """Waits for the held-out episodes that were ordered."""
        self._wait("final evaluation", {"final evaluation": self._evaluator.waiting})

    def _wait(self, phase: str, works: Mapping[str, set[bytes]]) -> set[bytes]:
        """Waits until all `works` are done or the phase is over. Returns the ids that are missing.

        The missing works are dropped.
        """
        total = {what: set(ids) for what, ids in works.items() if ids}

        def count() -> Counts:
            self._progress.done = {
                what: (len(ids & self._replay.finished), len(ids)) for what, ids in total.items()
            }
            return self._progress.done

        self.begin(phase, count(), self._minutes)
        for rows in self._pool.shards(lambda: _is_whole(count()) or self.is_over):
            self._take(rows)
        if not _is_whole(count()):
            self._pool.drop()
            self._evaluator.waiting.clear()
        for what, counts in self._progress.done.items():
            self._note_end(what, *counts)
        missing = [ids - self._replay.finished for ids in total.values()]
        return set().union(*missing)

    def _note_end(self, what: str, done: int, of: int) -> None:
        self._progress.cut_short.pop(what, None)
        if done < of:
            self._progress.cut_short[what] = (
                f"{done} of {of} after {self._minutes:g} minutes (budget.phase_minutes)"
            )

    def imitation(self, save: Callable[[int], None]) -> Watch:
        """Begins the phase. Returns the watch of its passes.

        The watch counts passes, saves after a pass if that is cheap, and ends the phase in time.
        """
        passes = max(math.ceil(self._config.learning.imitation_passes), 1)
        self.begin("imitation", {"imitation pass": (1, passes)}, self._minutes)
        saved, cost, last = time.monotonic(), 0.0, 0

        def watch(done: int, steps: int) -> bool:
            nonlocal saved, cost, last
            finished = done * passes // steps
            self._progress.done = {"imitation pass": (min(finished + 1, passes), passes)}
            if finished > last and (time.monotonic() - saved) * _MOST_SAVING >= cost:
                begun = time.monotonic()
                save(done)
                saved = time.monotonic()
                cost = saved - begun
            last = finished
            self._take(())
            if done < steps and self.is_over:
                self._note_end("imitation", finished, passes)
                return False
            return True

        return watch

    def fit(self, steps: int, fit: Callable[[int], float]) -> float:
        """The world model's first steps, a few at once; the last loss, NaN without one."""
        self.begin("world model", {"world model step": (0, steps)}, self._minutes)
        loss = math.nan
        for done in range(0, steps, _FIT_AT_ONCE):
            if self.is_over:
                self._note_end("world model", done, steps)
                break
            self._progress.done = {"world model step": (done, steps)}
            self._take(())
            loss = fit(min(_FIT_AT_ONCE, steps - done))
        return loss

    def first_group(self) -> None:
        """Waits for one whole group, as long as one step of a world may take."""
        self.begin(
            "waiting for a first group", minutes=self._config.collecting.step_timeout_seconds / 60
        )
        for rows in self._pool.shards(lambda: self._replay.ready_groups > 0 or self.is_over):
            self._take(rows)
