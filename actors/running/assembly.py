"""Assembly: makes the parts of a run from its configuration, and wires them to each other."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import torch

from actors.agents.agent import check_room
from actors.agents.planner import make_value, make_world_model
from actors.agents.sight import check_sight
from actors.agents.skills import Skills, library_from
from actors.collecting.hosts.described import describe_worlds, listed_actions
from actors.config.schema import Config
from actors.engines.model import TrainedModel
from actors.engines.registry import check_engine, make_engine, make_model
from actors.mixing.other_runs import IMITATED_TURNS, open_mixture, to_imitate
from actors.pool.evaluator import Evaluator
from actors.pool.factory import make_pool
from actors.pool.pool import Pool, all_new
from actors.pool.publisher import Publisher
from actors.running.budget import Budget, Every
from actors.running.checkpoints import Checkpoints
from actors.running.curation import Curation
from actors.running.events import (
    Events,
    Imitated,
    Learned,
    RowsCommitted,
    Updated,
    Warned,
)
from actors.running.metrics import Metrics, Monitoring
from actors.running.model_learning import ModelLearning
from actors.running.phases import Phases
from actors.running.progress import Progress
from actors.running.thought import Thought
from actors.runs.directory import RunDirectory
from experience.episode import Group
from experience.errors import ConfigError, DivergedError
from experience.learning.learner import Learner, LearnerSettings
from experience.learning.null_learner import NullLearner
from experience.learning.recipes.table import recipe
from experience.learning.token_learner import TokenLearner
from experience.models.sight import Album
from experience.options.hierarchy import in_hindsight
from experience.planning.discovery import skill_name
from experience.planning.tabular import DynaSettings, TabularLearner
from experience.planning.world_models.world_model import LearnedModel
from experience.preferences.measured import PreferenceSignals
from experience.replay.late import LateSignals
from experience.replay.limits import RateLimiter
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.catalog import check_acknowledged
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.storage.blobs import BlobReader
from experience.signal import SignalKind
from experience.step import Step


class Parts:
    """The parts of one run. The main loop names them; `events` tells what happens to them."""

    def __init__(
        self,
        config: Config,
        directory: RunDirectory,
        report: Callable[[Progress], None],
        events: Events,
    ) -> None:
        self.config = config
        self.directory = directory
        self.events = events
        self.progress = Progress(directory.name, learns=config.policy.learns)
        Monitoring(config.monitors, self.events)
        check_engine(config.policy)
        worlds = describe_worlds(config)
        rewards = worlds.rewards
        # Under its version, so that whoever reads the rows can take a reward apart.
        known = directory.record.get("rewards", {})
        directory.write_record(rewards=known | {rewards.version: json.loads(rewards.description)})
        # imagination samples from the very model that the learner updates
        trained = make_model(config.policy, config.seed)
        engine = make_engine(config.policy, config.seed, trained)
        if config.agent.sight != "ignore":
            check_sight(engine, worlds.with_pictures)
        self.learner = make_learner(config, trained, rewards, directory.shards)
        self.mixture = open_mixture(config, rewards, beside_own=True)
        self._engine = engine
        self._index = EpisodeIndex.open(directory.shards, rewards)
        self.replay = Replay(
            self._index,
            config.collecting.group_size,
            config.learning.max_lag,
            config.seed,
            takes_work_once=True,
        )
        world = make_world(config, list(worlds.catalogue))
        self.skills = make_skills(config, worlds.catalogue, rewards, self.learner)
        self.thought = Thought(
            config,
            directory.path,
            engine,
            worlds.prompt_contexts,
            self.learner,
            world,
            self.replay,
            rewards,
            worlds.catalogue,
            self.skills,
            self.progress,
        )
        names = [*(option.name for option in self.skills.library)]
        if config.planning.options.skills:
            names.append(skill_name("", ()))  # the names of all skills are of one length
        check_room(engine, worlds.prompt_contexts, names)
        tastes = PreferenceSignals({w.id: w.rewards or {} for w in config.worlds})
        self._late = LateSignals(self._index, worlds.catalogue, tastes)
        self.pool: Pool = make_pool(
            config, directory.name, directory.shards, self._index, rewards.version
        )
        self.evaluator = Evaluator(config, self.pool, self.replay)
        self.metrics = Metrics(
            config,
            directory,
            self.learner,
            world,
            self.replay,
            self.evaluator,
            self.progress,
            self.events,
            report,
        )
        self.phases = Phases(
            config,
            self.pool,
            self.replay,
            self.evaluator,
            self.progress,
            self.take,
            self.events,
        )
        self.budget = Budget(config, self.learner, self.replay, self.pool, self.progress)
        self.model_learning = ModelLearning(
            world,
            self.replay,
            self.learner,
            self.thought.should_imagine,
            self.progress,
            self.events,
        )
        should_evaluate = Every(config.evaluation.every)
        self.curation = Curation(
            self.skills, self.learner, self.replay, engine, self.progress, should_evaluate
        )
        limiter = RateLimiter(self.budget.groups_per_update, config.learning.max_lag)
        self._publisher = Publisher(
            self.pool,
            self.learner,
            world,
            limiter,
            plans_while_acting=bool(config.planning.lookahead.candidates),
        )
        self.checkpoints = Checkpoints(
            directory,
            self.learner,
            self.replay,
            self.mixture,
            self.model_learning,
            self.skills,
            self.phases,
            self.evaluator,
            self.progress,
            self.demonstrations,
        )
        self._subscribe(should_evaluate)
        self.progress.count_history(self._index)
        self._take_late(self._index.rows_of(self._index.tellers))
        self.is_new = not self.checkpoints.restore() or self.phases.is_imitating

    def _subscribe(self, should_evaluate: Every) -> None:
        """What follows an update, in this order: evaluation, metrics (and monitors), checkpoint."""

        def evaluate(event: Updated) -> None:
            if should_evaluate(event.version):
                self.evaluator.order(self.learner.policy(), self.config.evaluation.episodes)

        def save(event: Updated) -> None:
            if should_evaluate(event.version):
                self.checkpoints.save()
                self._index.save_if_worth()

        self.events.subscribe(Updated, evaluate)
        self.events.subscribe(Updated, lambda _: self.metrics.log())
        self.events.subscribe(Updated, save)
        self.events.subscribe(Imitated, lambda event: self.checkpoints.save(event.done))
        self.events.subscribe(Warned, self._warn)

    def _warn(self, event: Warned) -> None:
        self.progress.warnings[event.monitor] = event.finding
        self.directory.write_record(warnings=self.progress.warnings)

    def demonstrations(self) -> list[Step]:
        """What the experts showed; in a run with subgoals, as if they had pursued them."""
        shown = (
            episode
            for episode in self.replay.demonstrations()
            if episode.first.work_id not in self.phases.not_shown
        )
        library, written = self.skills.library, self.thought.written
        own = [step for episode in shown for step in in_hindsight(episode, library, written)]
        return [*own, *to_imitate(self.mixture.runs, IMITATED_TURNS, self._engine)]

    def with_others(self, lived: Sequence[Group]) -> list[Group]:
        """The lived groups, and those of other runs that belong beside them."""
        return [*lived, *self.mixture.beside(len(lived))]

    def prepare(self) -> None:
        """Before the main loop: demonstrations, imitation, and the world model's first steps."""
        if not self.phases.is_imitating:
            self.phases.demonstrate()
        with all_cores(self.config.learning.threads):  # the collectors have nothing to do yet
            watch = self.phases.imitation(lambda done: self.events.emit(Imitated(done)))
            passes = self.config.learning.imitation_passes
            self.learned(self.learner.imitate(self.demonstrations(), passes, watch))
            self.model_learning.begin(self.phases, self.config.planning.model.first_steps)
        self.checkpoints.save()

    def take(self, rows: Sequence[Step]) -> None:
        """New committed rows go into the replay, and what they tell of earlier rows."""
        self._take_late(rows)
        self.events.emit(RowsCommitted(rows))

    def _take_late(self, rows: Sequence[Step]) -> None:
        changed = self._late.take(rows)
        self.replay.refresh()
        self.replay.amend(changed)

    def learned(self, metrics: dict[str, float]) -> None:
        self.events.emit(Learned(metrics))

    def publish(self) -> None:
        """The present policy to all collectors, who take it up between two steps."""
        self._publisher.publish(self.budget.rounds)
        if self.budget.begin():
            self.phases.begin("acting and learning")

    def finish(self) -> Progress:
        """Learns from the last whole groups, evaluates with the collectors undivided, and saves."""
        self._learn_from_the_rest()
        self.evaluator.order(self.learner.policy(), self.config.evaluation.final_episodes)
        self.phases.evaluate()
        self.checkpoints.save()
        self.phases.begin("done")
        self.metrics.log()
        return self.progress

    def _learn_from_the_rest(self) -> None:
        """Starts nothing new. A run too short for one update waits for one group to learn from."""
        self._publisher.stop()
        budget = self.config.budget
        limited = budget.steps is not None and self.replay.training_steps >= budget.steps
        if self.learner.version or not budget.updates or limited:
            return
        self.phases.first_group()
        lived = self.replay.window(self.learner.version, self.budget.groups_per_update)
        if lived:
            self.learned(self.learner.improve(lived))
            self.learner.publish()
            self._publisher.stop()

    def close(self) -> None:
        """Seals everything, and holds the shards against what was acknowledged."""
        self.metrics.closing()
        acknowledged = self.pool.close()
        pool = self.pool
        self.progress.count_collectors(pool.status(), pool.quarantined, pool.restarts, acknowledged)
        self.directory.write_failures(vars(failure) for failure in self.progress.broken.values())
        self.skills.close()
        self.thought.close()
        self.take(all_new(self._index))  # what the collectors committed while they ended
        self._late.write()
        self._index.save()
        self.progress.steps = dict(self.replay.steps_by_source)
        check_acknowledged(self.directory.shards, acknowledged, self._index.given)


def make_learner(
    config: Config,
    trained: TrainedModel | None,
    rewards: RewardModel,
    shards: Path = Path("shards"),
) -> Learner:
    """The learner of a run, which reads pictures from the blobs in `shards`.

    Raises ConfigError if the policy has no model that can be learned.
    """
    if not config.policy.learns:
        return NullLearner()
    learning, planning = config.learning, config.planning
    if config.policy.engine == "table":
        return TabularLearner(
            listed_actions(config),
            rewards,
            DynaSettings(
                learning.step_size,
                config.collecting.discount,
                planning.table.updates if planning.enabled else 0,
                planning.table.curiosity,
                seed=config.seed,
            ),
        )
    if trained is None:
        raise ConfigError(
            f"{config.policy.place('engine')}: policy.engine: {config.policy.engine} has no model "
            "that is trained here",
            "set policy.learns=false",
        )
    settings = learner_settings(config)
    value = make_value(config) if recipe(learning.recipe).needs_values else None
    pixels = config.policy.pixels
    album = Album(BlobReader(shards).read, pixels) if pixels else None
    return TokenLearner(trained.model, settings, value, album)


def learner_settings(config: Config) -> LearnerSettings:
    """The section `learning`, as a learner takes it."""
    known = {f.name for f in fields(LearnerSettings)}
    shared = {name: value for name, value in config.learning if name in known}
    return LearnerSettings(**shared, seed=config.seed)


def make_world(config: Config, signals: Sequence[str]) -> LearnedModel | None:
    """The world model that planning asks for. A table's learner has one of its own."""
    if not config.planning.enabled or config.policy.engine == "table":
        return None
    if config.planning.model.kind == "language":
        return make_world_model(config)
    return make_world_model(config, listed_actions(config), list(signals))


def make_skills(
    config: Config, catalogue: dict[str, SignalKind], rewards: RewardModel, learner: Learner
) -> Skills:
    """The library of options, with those that were written by hand; the learner is given it."""
    arguments = {world.id: world.arguments for world in config.worlds}
    skills = Skills(rewards, catalogue, arguments, config.planning.options.skills)
    if config.planning.options.library:
        skills.library = library_from(config.planning.options.library)
        learner.options = skills.library.dump()
    return skills


@contextlib.contextmanager
def all_cores(threads: int) -> Iterator[None]:
    """The learner has the machine to itself; afterwards it has `threads` again."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def assemble(
    config: Config,
    directory: RunDirectory,
    report: Callable[[Progress], None],
    events: Events,
) -> Iterator[Parts]:
    """The run's parts, closed whatever happens: journals are sealed, collectors are ended.

    Where updates are not finite, keeps the last batch in the run directory and raises
    DivergedError.
    """
    torch.set_num_threads(config.learning.threads)
    parts = Parts(config, directory, report, events)
    try:
        yield parts
    except DivergedError as error:
        kept = directory.keep_batch(parts.learner.version, error.batch)
        raise DivergedError(
            str(error),
            error.batch,
            f"what they learned from is in {kept} (numpy.load); a smaller "
            "learning rate may help, then: ./xp resume",
        ) from error
    finally:
        parts.close()
