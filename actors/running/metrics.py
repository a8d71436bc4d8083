"""Metrics: updates progress, writes lines of metrics.jsonl, and shows the lines to monitors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from actors.config.schema import Config
from actors.pool.evaluator import Evaluator
from actors.running.events import Events, Learned, Logged, PhaseBegan, RowsCommitted, Warned
from actors.running.machine import is_full
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.errors import XpError
from experience.evaluation.monitors import Monitor, monitor
from experience.learning.learner import Learner
from experience.planning.world_models.world_model import LearnedModel
from experience.replay.replay import Replay

_SECONDS_BETWEEN = 2.0
"""Between two reports while rows come in."""


class Metrics:
    """Keeps `progress` up to date with the parts, reports it, and logs it.

    report: shows progress to the user; called at most every two seconds while rows come in.
    """

    def __init__(
        self,
        config: Config,
        directory: RunDirectory,
        learner: Learner,
        world: LearnedModel | None,
        replay: Replay,
        evaluator: Evaluator,
        progress: Progress,
        events: Events,
        report: Callable[[Progress], None],
    ) -> None:
        self._config = config
        self._directory = directory
        self._learner = learner
        self._world = world
        self._replay = replay
        self._evaluator = evaluator
        self._progress = progress
        self._events = events
        self._report = report
        self._started = self._reported = time.monotonic()
        events.subscribe(PhaseBegan, self._begin)
        events.subscribe(Warned, lambda event: directory.note(vars(event)))
        events.subscribe(RowsCommitted, self._take)
        events.subscribe(Learned, self._learned)

    def _begin(self, event: PhaseBegan) -> None:
        self._directory.note(
            {"phase": event.phase, "counts": {k: list(v) for k, v in event.counts.items()}}
        )
        self.show()

    def _take(self, event: RowsCommitted) -> None:
        self._progress.count_rows(event.rows)
        if time.monotonic() - self._reported > _SECONDS_BETWEEN:
            self.show()

    def _learned(self, event: Learned) -> None:
        groups, flat = (int(event.metrics.get(name, 0)) for name in ("groups", "flat_groups"))
        self._progress.groups.update(all=groups, flat=flat)
        self._progress.metrics |= event.metrics

    def show(self) -> None:
        """Reads every part's figures into progress, and reports them."""
        self._reported = time.monotonic()
        progress, replay, evaluator = self._progress, self._replay, self._evaluator
        progress.disk_is_full = is_full(self._directory.path)
        progress.seconds = time.monotonic() - self._started
        progress.version = self._learner.version
        progress.steps = dict(replay.steps_by_source)
        progress.lag = replay.mean_lag
        progress.training_steps = replay.training_steps
        progress.skipped = self._learner.skipped
        if self._world is not None:
            progress.skipped += self._world.skipped
        progress.episodes = len(replay.finished)
        progress.dropped = vars(replay.dropped).copy()
        for world in self._config.worlds:
            of = world.id
            for name, agent in evaluator.roles(of).items():
                progress.random[name] = evaluator.returns(of, 0, "random", agent)
                progress.returns[name] = {
                    v: evaluator.returns(of, v, agent=agent) for v in evaluator.ordered
                }
                if evaluator.ordered:
                    progress.gain[name] = evaluator.gain(of, 0, evaluator.ordered[-1], agent)
            progress.training[of] = replay.recent_returns(of)
        self._report(progress)

    def closing(self) -> None:
        """Reports that the collectors are being ended."""
        self._progress.closing = True
        self._progress.seconds = time.monotonic() - self._started
        self._report(self._progress)

    def log(self) -> None:
        """One line of metrics.jsonl."""
        self.show()
        progress = self._progress
        error = progress.model_error
        line: dict[str, Any] = {
            "version": progress.version,
            "seconds": progress.seconds,
            "steps": progress.steps,
            "training_steps": progress.training_steps,
            "lag": progress.lag,
            "episodes": progress.episodes,
            "dropped": progress.dropped,
            "cut": dict(progress.cut),
            "imagined": dict(progress.imagined),
            "skills": progress.skills,
            "skipped_updates": progress.skipped,
            "model_error": vars(error) if error else None,
            "returns": {
                world: {str(version): vars(mean) for version, mean in by_version.items()}
                for world, by_version in progress.returns.items()
            },
            "random": {world: vars(mean) for world, mean in progress.random.items()},
            "gain": {world: vars(mean) for world, mean in progress.gain.items()},
            "training": progress.training_means,
            "metrics": progress.metrics,
        }
        self._directory.log(line)
        self._events.emit(Logged({**line, "metrics": dict(progress.metrics)}))


class Monitoring:
    """Shows each line of metrics to monitors. A warning is emitted once, a halt ends the run."""

    def __init__(self, names: Sequence[str], events: Events) -> None:
        self._monitors: dict[str, Monitor] = {name: monitor(name) for name in names}
        self._window: list[dict[str, Any]] = []
        self._warned: set[str] = set()
        self._events = events
        events.subscribe(Logged, self._look)

    def _look(self, event: Logged) -> None:
        self._window = [*self._window[-_WINDOW + 1 :], dict(event.metrics)]
        for name, look in self._monitors.items():
            finding = look(self._window)
            if finding.verdict == "halt":
                raise XpError(
                    f"the monitor {name} halted the run: {finding.why}",
                    "./xp resume goes on from the last checkpoint; monitors: [] runs unwatched",
                )
            if finding.verdict == "warn" and name not in self._warned:
                self._warned.add(name)
                self._events.emit(Warned(name, finding.why))


_WINDOW = 100
"""Lines of metrics that a monitor sees at most."""
