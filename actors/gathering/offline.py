"""Learning from stores alone: imitation of successes, then updates on groups, no world is made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from actors.config.schema import Config
from actors.engines.registry import make_engine, make_model
from actors.mixing.other_runs import IMITATED_TURNS, open_mixture, to_imitate
from actors.running.assembly import make_learner
from actors.running.budget import learning_rate_left
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, XpError
from experience.options.option import Library
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.episodes.index import EpisodeIndex
from experience.step import Step
from experience.text.strict_json import dumps


@dataclass
class LearnedFrom:
    """What a policy was learned from, by run: rows imitated, groups and turns drawn."""

    imitated: int = 0
    groups: int = 0
    turns: int = 0
    flat: int = 0


class Offline:
    """One policy, and the stores that it is learned from."""

    def __init__(
        self, config: Config, directory: RunDirectory, report: Callable[[Progress], None]
    ) -> None:
        if not config.experience:
            raise ConfigError(
                "there is nothing to learn from: no `experience` is configured",
                "name runs or stores: experience=[{run: runs/latest}]",
            )
        self.config, self.directory, self._report = config, directory, report
        self.progress = Progress(directory.name)
        rewards = rewards_in(config)
        self.mixture = open_mixture(config, rewards)
        for run in self.mixture.runs:
            check_linear(rewards, run.index)
        trained = make_model(config.policy, config.seed)
        self._engine = make_engine(config.policy, config.seed, trained)
        self.learner = make_learner(config, trained, rewards or RewardModel({}), directory.shards)
        self.learned_from = LearnedFrom()
        self._began = time.monotonic()
        # An empty store of its own, so that the run can go on by living.
        self._replay = Replay(
            EpisodeIndex.open(directory.shards),
            config.collecting.group_size,
            config.learning.max_lag,
            config.seed,
        )

    def run(self) -> Progress:
        """Learns until budget.updates or budget.minutes is spent. Returns what was reached.

        Raises XpError if nothing could be learned.
        """
        self._imitate()
        self._save()
        groups = max(sum(world.groups for world in self.config.worlds), 1)
        while not self._is_spent() and (drawn := self.mixture.alone(groups)):
            rate = learning_rate_left(self.learner.version / self.config.budget.updates)
            metrics = self.learner.improve(drawn, rate)
            self.learned_from.flat += int(metrics.get("flat_groups", 0))
            self.learner.publish()
            self._show("learning", metrics)
            if self.learner.version % self.config.evaluation.every == 0:
                self._save()
        for run in self.mixture.drawn.values():
            self.learned_from.groups += run.groups
            self.learned_from.turns += run.turns
        self._check_learned()
        self._save()
        self._show("done", {})
        return self.progress

    def _imitate(self) -> None:
        passes = self.config.learning.imitation_passes

        def rows() -> Iterator[Step]:
            for step in to_imitate(self.mixture.runs, IMITATED_TURNS, self._engine):
                self.learned_from.imitated += 1
                yield step

        def watch(done: int, steps: int) -> bool:
            self.progress.done = {"imitation step": (done, steps)}
            self._report(self.progress)
            return not self._has_no_time()

        self.progress.phase = "imitation"
        self._show("imitation", self.learner.imitate(rows(), passes, watch) if passes else {})

    def _has_no_time(self) -> bool:
        minutes = self.config.budget.minutes or math.inf
        return time.monotonic() - self._began >= 60 * minutes

    def _is_spent(self) -> bool:
        return self.learner.version >= self.config.budget.updates or self._has_no_time()

    def _show(self, phase: str, metrics: dict[str, float]) -> None:
        progress = self.progress
        progress.phase, progress.version = phase, self.learner.version
        progress.seconds = time.monotonic() - self._began
        progress.metrics |= metrics
        progress.skipped = self.learner.skipped
        of = self.config.budget.updates
        progress.done = {"update": (progress.version, of)} if of else {}
        self._report(progress)
        if metrics:
            line = {"version": progress.version, "seconds": progress.seconds, "metrics": metrics}
            self.directory.log(line)

    def _save(self) -> None:
        about = {"seen_transitions": 0, "imitating": False}
        files = {
            **self.learner.save(),
            **self._replay.save(),
            **self.mixture.save(),
            "parts.json": dumps(about).encode(),
            "options.json": Library().dump(),
        }
        self.directory.checkpoints.save(self.learner.version, files, None)

    def _check_learned(self) -> None:
        """Raises XpError, which says why, if no row taught anything."""
        learned = self.learned_from
        if learned.imitated and self.config.learning.imitation_passes:
            return
        if learned.groups > learned.flat:
            return
        stores = "; ".join(
            f"{run.name}: {len(run.index)} episodes, {run.shown} to imitate, "
            f"{len(run.groups)} groups"
            for run in self.mixture.runs
        )
        why = (
            f"in each of {learned.groups} groups drawn all episodes earned the same"
            if learned.groups
            else "no store has groups with exact tokens, or budget.updates is 0"
        )
        raise XpError(
            f"nothing was learned: {why}; {stores}",
            "name runs with successes or demonstrations, and learning.imitation_passes above 0",
        )


def rewards_in(config: Config) -> RewardModel | None:
    """The rewards that the configuration itself says; None: those that the stores hold."""
    weights = {w.id: w.rewards for w in config.worlds if w.rewards is not None}
    return RewardModel(weights) if weights else None


def check_linear(rewards: RewardModel | None, index: EpisodeIndex) -> None:
    """Raises ConfigError if new weights are of a world whose reward is code: no world is made."""
    if rewards is None:
        return
    seen = {(row["env_id"], row["reward_version"]) for row in index.worlds()}
    for env_id, version in seen:
        if env_id in rewards.weights and version.startswith("code-"):
            raise ConfigError(
                f"worlds.rewards of {env_id}: its reward is a function of the world's own",
                "./xp run applies weights to it; ./xp learn makes no world",
            )
