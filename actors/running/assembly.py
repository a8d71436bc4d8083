"""The parts of a run, assembled and wired: what the main loop names, one method a thought."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import torch

from actors.agents.agent import check_room
from actors.agents.planner import make_value, make_world_model
from actors.agents.skills import Skills, library_from
from actors.collecting.described import describe_worlds, listed_actions
from actors.collecting.evaluator import Evaluator
from actors.collecting.pool import Pool, all_new, make_pool
from actors.config.schema import Config
from actors.engines.engine import Engine
from actors.engines.registry import check_server, make_engine
from actors.running.machine import is_full
from actors.running.phases import Phases
from actors.running.progress import Progress
from actors.running.rundir import RunDirectory
from actors.running.thought import Every, Thought
from experience.episode import Group
from experience.errors import DivergedError, XpError
from experience.learning.learner import Learner, LearnerSettings, NullLearner
from experience.options.hierarchy import in_hindsight
from experience.options.option import Library
from experience.planning.discovery import skill_name
from experience.planning.tabular import DynaSettings, TabularLearner
from experience.planning.world_models.language import LearnedModel
from experience.replay.limits import RateLimiter
from experience.replay.memory import Replay
from experience.reward import RewardModel
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold.tier import read_snapshot
from experience.step import Step
from experience.strict_json import dumps

_RECENT_EPISODES = 400
"""Real training episodes that skills are found in and judged by."""
_STALLED_SECONDS = 30 * 60
_STILL_SECONDS = 5


class Parts:
    """Learner, replay, pool, evaluator and world model of one run, and what passes between them."""

    def __init__(
        self, config: Config, directory: RunDirectory, report: Callable[[Progress], None]
    ) -> None:
        self.config, self.directory, self._report = config, directory, report
        self._started = self._reported = time.monotonic()
        self.progress = Progress(directory.name, learns=config.policy.learns)
        check_server(config.policy)
        worlds = describe_worlds(config)
        self.catalogue = worlds.catalogue
        self.rewards = RewardModel(worlds.weights)
        self._engine = make_engine(config.policy, config.seed)
        self.learner = make_learner(config, self._engine, self.rewards)
        collecting, learning = config.collecting, config.learning
        self.replay = Replay(collecting.group_size, learning.max_lag, config.seed)
        self.groups_per_update = sum(w.groups for w in config.worlds)
        self._limiter = RateLimiter.staleness(self.groups_per_update, learning.max_lag)
        planning = config.planning
        counts = config.policy.engine == "table"  # whose learner has a world model of its own
        self.world = self._world_model() if planning.enabled and not counts else None
        self._seen_transitions = 0
        self.should_evaluate = Every(config.evaluation.every)
        self._loop_started: float | None = None
        self._moved = 0, time.monotonic()
        self._still = (0, 0, 0), time.monotonic()
        self._skills = Skills(
            self.rewards,
            self.catalogue,
            {w.id: w.arguments for w in config.worlds},
            planning.skills,
        )
        if planning.options:
            self._skills.library = library_from(planning.options)
            self.learner.options = self._skills.library.dump()
        self.thought = Thought(
            config,
            directory.path,
            self._engine,
            worlds.told,
            self.learner,
            self.world,
            self.replay,
            self.rewards,
            self.catalogue,
            self._skills,
            self.progress,
        )
        skills = [skill_name("", ())] * (planning.skills > 0)  # all have names of one length
        check_room(
            self._engine, worlds.told, [*(option.name for option in self._skills.library), *skills]
        )
        self._catalog = Catalog(directory.shards)
        self.pool: Pool = make_pool(config, directory.name, directory.shards, self._catalog)
        self.evaluator = Evaluator(config, self.pool, self.replay)
        self.phases = Phases(
            config, self.pool, self.replay, self.evaluator, self.progress, self.take, self._show
        )
        self._is_imitating = False
        self.is_new = not self._resume()

    def _world_model(self) -> LearnedModel:
        if self.config.planning.model == "language":
            return make_world_model(self.config)
        return make_world_model(self.config, listed_actions(self.config), list(self.catalogue))

    def _resume(self) -> bool:
        """Continues from the last checkpoint, if any: its weights, and which groups were learned from."""
        for steps in self._catalog.follow():
            self.take(steps)
        saved = self.directory.last_checkpoint()
        if saved is None:
            return False
        told = json.loads(saved.get("parts.json", b"{}"))
        self._is_imitating = told.get("imitating", False)
        self.phases.not_shown = {bytes.fromhex(work_id) for work_id in told.get("not_shown", ())}
        self.progress.cut_short |= told.get("cut_short", {})
        self.progress.groups.update(told.get("groups", {}))
        let_go = bool(read_snapshot(self.directory.shards).missing)
        self.learner.restore(
            saved, self.demonstrations(), self.replay.restore(saved, let_go=let_go)
        )
        if self.world is not None and "world_model.json" in saved:
            self._seen_transitions = told["seen_transitions"]
            self.world.add(self.replay.transitions[: self._seen_transitions])
            self.world.restore(saved)
        if "options.json" in saved:
            self._skills.resume(Library.load(saved["options.json"]), self.replay.episodes["real"])
            self.learner.options = saved["options.json"] if len(self._skills.library) else b""
        self.evaluator.ordered = self.replay.evaluated_versions()
        return not self._is_imitating

    def demonstrate(self) -> None:
        """Demonstrations and the random baseline; those that imitation began with before a crash, if it did."""
        if not self._is_imitating:
            self.phases.demonstrate()

    def imitate(self) -> None:
        """Imitation, from the last pass that was saved, and the first steps of the world model."""
        watch = self.phases.imitation(lambda done: self.save(imitated=done))
        self.note(
            self.learner.imitate(
                self.demonstrations(), self.config.learning.imitation_passes, watch
            )
        )
        if self.world is not None:
            self._give_transitions(self.world)
            self._note_model(
                self.world, self.phases.fit(self.config.planning.first_steps, self.world.fit)
            )

    def demonstrations(self) -> list[Step]:
        """What the experts showed; where the run has subgoals, as if they had pursued them."""
        shown = (
            e for e in self.replay.demonstrations() if e.first.work_id not in self.phases.not_shown
        )
        return [
            step
            for episode in shown
            for step in in_hindsight(episode, self._skills.library, self.thought.written)
        ]

    def take(self, shard: Sequence[Step]) -> None:
        """New committed steps go into replay; now and then the world is told."""
        self.replay.add(shard)
        self.progress.count_rows(shard)
        if time.monotonic() - self._reported > 2.0:
            self._show()

    def push(self) -> None:
        """The present policy to all collectors, with what its planner thinks with, and how far they may run ahead."""
        if self.config.planning.candidates and self.learner.value is not None:
            self.learner.planner = self.learner.value.export_weights() | (
                self.world.export_weights() if self.world else {}
            )
        self._limiter.counts.version, self._limiter.counts.sampled = (
            self.rounds,
            len(self.replay.consumed),
        )
        share = -(-self._limiter.inserts_allowed() // max(self.config.workers, 1))
        self.pool.push(self.learner.policy(), share)
        if self._loop_started is None:
            self._loop_started = time.monotonic()
            self.phases.begin("acting and learning")

    @property
    def rounds(self) -> int:
        """How often whole groups were given out, those of which nothing could be learned included."""
        return max(
            self.learner.version, len(self.replay.consumed) // max(self.groups_per_update, 1)
        )

    def can_learn_from(self, lived: Sequence[Group]) -> bool:
        """Whether there is something; else the collectors may go on, and no new version is made of nothing."""
        if not lived and self.config.policy.learns:
            self.push()
        return bool(lived) or not self.config.policy.learns

    @property
    def spent(self) -> float:
        """How much of the budget is gone, by whichever part goes first; 1 ends the run. The clock has a say only where
        the configuration gives it one."""
        budget = self.config.budget
        minutes = (time.monotonic() - (self._loop_started or time.monotonic())) / 60
        barren = self.rounds - self.learner.version  # rounds without an update end a run, too
        return max(
            max(self.learner.version, barren) / budget.updates if budget.updates else 1.0,
            minutes / budget.minutes if budget.minutes else 0.0,
            self.replay.training_steps / budget.steps if budget.steps else 0.0,
        )

    def budget_is_spent(self) -> bool:
        """Raises XpError where nothing bounds the run by time and nothing has been learned from for half an hour."""
        budget = self.config.budget
        if self.learner.version != self._moved[0] or self._loop_started is None:
            self._moved = self.learner.version, time.monotonic()
        if budget.minutes is None and time.monotonic() - self._moved[1] > _STALLED_SECONDS:
            raise XpError(
                f"no update in {_STALLED_SECONDS // 60} minutes, after version {self.learner.version}",
                "./xp show says what failed; a world whose episodes do not end needs budget.minutes",
            )
        counts = {
            "update": (self.learner.version, budget.updates),
            "step": (self.replay.training_steps, budget.steps or 0),
        }
        self.progress.done = {what: (done, of) for what, (done, of) in counts.items() if of}
        return self.spent >= 1 or self._is_stuck_at_the_limit()

    def _is_stuck_at_the_limit(self) -> bool:
        """Whether no collector has anything to do: some took their share of the steps, and what the others lived is not
        enough for an update."""
        if (
            not self.replay.training_steps
            or self.config.budget.steps is None
            or self.config.workers < 2
        ):
            return False
        now = (self.replay.training_steps, len(self.replay.finished), self.rounds)
        if now != self._still[0]:
            self._still = now, time.monotonic()
        if time.monotonic() - self._still[1] < _STILL_SECONDS:
            return False
        self._still = now, time.monotonic()
        return all(status["idle"] for status in self.pool.status())

    @property
    def rate(self) -> float:
        """The learning rate falls linearly to a twentieth over the budget: what was learned settles."""
        return 1 - 0.95 * min(self.spent, 1.0)

    @property
    def planning_rate(self) -> float:
        return self.rate * self.config.planning.weight

    def note(self, metrics: dict[str, float]) -> None:
        self.progress.groups.update(
            all=int(metrics.get("groups", 0)), flat=int(metrics.get("flat_groups", 0))
        )
        self.progress.metrics |= metrics

    @contextlib.contextmanager
    def all_cores(self) -> Iterator[None]:
        """The learner has the machine to itself."""
        torch.set_num_threads(os.cpu_count() or 1)
        yield
        torch.set_num_threads(self.config.learning.threads)

    def fit_world_model(self, steps: int) -> None:
        """Some steps of the world model on all transitions read so far, and a fresh calibration of its gate."""
        if self.world is None:
            return
        self._give_transitions(self.world)
        self._note_model(self.world, self.world.fit(steps))

    def _note_model(self, world: LearnedModel, loss: float) -> None:
        """Notes what a fit came to, and measures the model again if it is about to be used."""
        if not math.isnan(loss):
            self.note({"model_nll": loss})
        if self.thought.should_imagine(self.learner.version + 1):
            self.progress.model_error = world.calibrate() or self.progress.model_error

    def _give_transitions(self, world: LearnedModel) -> None:
        new = self.replay.transitions[self._seen_transitions :]
        self._seen_transitions += len(new)
        world.add(new)

    def curate(self) -> None:
        """Options: found in the best episodes, tried again in the world, pushed with the policy, and retired."""
        if not self.config.planning.skills or not self.should_evaluate(self.learner.version + 1):
            return
        recent = self.replay.episodes["real"][-_RECENT_EPISODES:]
        best = [
            e
            for e in recent
            if (r := e.total_reward) is not None and r > 0 and e.ending == "terminated"
        ]
        changed = self._skills.curate(best, recent)
        if changed or len(self._skills.library):
            self.learner.options = self._skills.library.dump()
        if changed:
            self.learner.show(self._skills.turns(best, self._engine))
        self.progress.skills = len(self._skills.library)

    def checkpoint(self) -> None:
        self._log()
        if self.should_evaluate(self.learner.version):
            self.save()

    def save(self, imitated: int | None = None) -> None:
        """Weights, moments, world model, random states and the cursor into the store, in one atomic checkpoint.
        `imitated`: so many steps of the first imitation are done, and it is not over."""
        world = self.world.save() if self.world is not None and imitated is None else {}
        told = {
            "seen_transitions": self._seen_transitions,
            "imitating": imitated is not None,
            "cut_short": self.progress.cut_short,
            "groups": self.progress.groups,
            "not_shown": sorted(work_id.hex() for work_id in self.phases.not_shown),
        }
        about = {"parts.json": dumps(told).encode(), "options.json": self._skills.library.dump()}
        self.directory.save_checkpoint(
            self.learner.version,
            {**self.learner.save(), **self.replay.save(), **self._limiter.save(), **world, **about},
            imitated,
        )

    def finish(self) -> Progress:
        """Learns from the last whole groups, then evaluates with the collectors' attention undivided, and saves."""
        self._learn_from_the_rest()
        self.evaluator.order(self.learner.policy(), self.config.evaluation.final_episodes)
        self.phases.evaluate()
        self.save()
        self.phases.begin("done")
        self._log()
        return self.progress

    def _learn_from_the_rest(self) -> None:
        """Nothing new is begun; a run too short for one whole update waits for one group and learns from that."""
        self.pool.push(self.learner.policy(), 0)
        budget = self.config.budget
        limited = budget.steps is not None and self.replay.training_steps >= budget.steps
        if self.learner.version == 0 and budget.updates and not limited:
            self.phases.first_group()
            lived = self.replay.window(self.learner.version, self.groups_per_update)
            if lived:
                self.note(self.learner.improve(lived))
                self.learner.publish()
                self.pool.push(self.learner.policy(), 0)

    def close(self) -> None:
        """Seals everything, and holds the shards against what was acknowledged."""
        self.progress.closing, self.progress.seconds = True, time.monotonic() - self._started
        self._report(self.progress)
        for status in self.pool.status():
            self.progress.failures.update(status["failures"])
        self.directory.write_failures(vars(failure) for failure in self.progress.broken.values())
        self.progress.restarts = self.pool.restarts
        acknowledged = self.pool.close()
        self._skills.close()
        self.thought.close()
        self.take(all_new(self._catalog))  # what the collectors committed while they ended
        self.progress.steps = dict(self.replay.steps_by_source)
        self.progress.acknowledged = sum(t + 1 for t in acknowledged.values())
        check_acknowledged(self.directory.shards, acknowledged, self._catalog.given)

    def _show(self) -> None:
        self._reported = time.monotonic()
        progress = self.progress
        progress.disk_is_full = is_full(self.directory.path)
        progress.seconds, progress.version = time.monotonic() - self._started, self.learner.version
        progress.steps, progress.lag = dict(self.replay.steps_by_source), self.replay.mean_lag
        progress.training_steps = self.replay.training_steps
        progress.skipped = self.learner.skipped + (
            self.world.skipped if self.world is not None else 0
        )
        progress.episodes, progress.dropped = (
            len(self.replay.finished),
            vars(self.replay.dropped).copy(),
        )
        for world in self.config.worlds:
            progress.random[world.id] = self.evaluator.returns(world.id, 0, "random")
            progress.returns[world.id] = {
                v: self.evaluator.returns(world.id, v) for v in self.evaluator.ordered
            }
            if self.evaluator.ordered:
                progress.gain[world.id] = self.evaluator.gain(
                    world.id, 0, self.evaluator.ordered[-1]
                )
            progress.training[world.id] = self.replay.recent_returns(world.id)
        self._report(progress)

    def _log(self) -> None:
        self._show()
        progress = self.progress
        self.directory.log(
            {
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
                "model_error": vars(progress.model_error) if progress.model_error else None,
                "returns": {
                    w: {str(v): vars(m) for v, m in by.items()}
                    for w, by in progress.returns.items()
                },
                "random": {w: vars(m) for w, m in progress.random.items()},
                "gain": {w: vars(m) for w, m in progress.gain.items()},
                "training": progress.training_means,
                "metrics": progress.metrics,
            }
        )


def make_learner(
    config: Config, engine: Engine, rewards: RewardModel
) -> Learner | TabularLearner | NullLearner:
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
                planning.updates if planning.enabled else 0,
                planning.curiosity,
                seed=config.seed,
            ),
        )
    known = {f.name for f in fields(LearnerSettings)}
    shared = {name: value for name, value in learning if name in known}
    settings = LearnerSettings(**shared, seed=config.seed)
    return Learner(
        engine.model, settings, make_value(config) if learning.advantage == "turn" else None
    )


@contextlib.contextmanager
def assemble(
    config: Config, directory: RunDirectory, report: Callable[[Progress], None]
) -> Iterator[Parts]:
    """The run's parts, closed whatever happens: journals sealed, collectors ended. Where learning ends because its
    updates are not finite, the last batch is kept in the run directory."""
    torch.set_num_threads(config.learning.threads)
    parts = Parts(config, directory, report)
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
