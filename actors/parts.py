"""The parts of a run, assembled and wired: what the main loop names, one method a thought."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import torch

from actors.agent import check_room, planned
from actors.collector import Work, describe_worlds, listed_actions
from actors.config import SEEDS, Config
from actors.engines import Engine, Situation, check_server, make_engine
from actors.evaluator import Evaluator
from actors.machine import is_full
from actors.planner import make_value, make_world_model
from actors.pool import Pool, all_new, make_pool
from actors.rundir import RunDirectory
from actors.skills import Skills, library_from
from experience.errors import DivergedError, XpError
from experience.evaluation.statistics import Mean
from experience.learning.batch import Turn
from experience.learning.credit import as_turn, planned_turns
from experience.learning.learner import Learner, LearnerSettings, Onlooker
from experience.planning.discovery import skill_name
from experience.planning.hierarchy import in_hindsight
from experience.planning.imagine import imagine, sweep
from experience.planning.option import USE, Library
from experience.planning.reach import could_do
from experience.planning.tabular import DynaSettings, TabularLearner
from experience.planning.world_model import LearnedModel, ModelError
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold import read_snapshot
from experience.shards.journal import Journal
from experience.shards.limits import RateLimiter
from experience.shards.replay import Group, Replay
from experience.step import Step
from experience.strict_json import dumps

_RECENT_EPISODES = 400
"""Real training episodes that skills are found in and judged by."""
_STALLED_SECONDS = 30 * 60
_SAMPLED_ACTIONS = 6
"""Of the policy, where a world cannot list what could be done."""
_TRUSTED_VALUE = 0.2
"""An unfinished imagined branch is worth what the value function says; one that explains less of the variance of new
returns than this says nothing yet, and a policy that follows it unlearns what it can do."""


@dataclass
class Progress:
    """What a run has done so far: for the live table, the metrics, the report and the summary."""

    run: str
    seconds: float = 0.0
    phase: str = "starting"
    version: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    training_steps: int = 0
    """Real steps of training episodes: what learning cost."""
    episodes: int = 0
    returns: dict[str, dict[int, Mean]] = field(default_factory=dict)
    random: dict[str, Mean] = field(default_factory=dict)
    gain: dict[str, Mean] = field(default_factory=dict)
    training: dict[str, list[float]] = field(default_factory=dict)
    model_error: ModelError | None = None
    lag: float = 0.0
    imagined: Counter[str] = field(default_factory=Counter)
    skills: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: Counter[str] = field(default_factory=Counter)
    """Prompts that lost tokens for want of room, and actions that the limit of tokens ended."""
    failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    acknowledged: int = 0
    disk_is_full: bool = False
    """Nothing is acknowledged, and nothing new begun, until there is room again."""
    skipped: int = 0
    """Updates left out because their loss or gradient was not finite."""
    metrics: dict[str, float] = field(default_factory=dict)


class Every:
    """True at each n-th version, and at no other."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __call__(self, version: int) -> bool:
        return version > 0 and version % self._n == 0


class Parts:
    """Learner, replay, pool, evaluator and world model of one run, and what passes between them."""

    def __init__(self, config: Config, directory: RunDirectory, report: Callable[[Progress], None]) -> None:
        self.config, self.directory, self._report = config, directory, report
        self._started = self._reported = time.monotonic()
        self.progress = Progress(directory.name)
        check_server(config.policy)
        worlds = describe_worlds(config)
        self.catalogue, self._told = worlds.catalogue, worlds.told
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
        self._should_imagine = Every(planning.every)
        self.should_evaluate = Every(config.evaluation.every)
        self._loop_started: float | None = None
        self._moved = 0, time.monotonic()
        self._imagined: Journal | None = None
        self._skills = Skills(self.rewards, self.catalogue, {w.id: w.arguments for w in config.worlds}, planning.skills)
        if planning.options:
            self._skills.library = library_from(planning.options)
            self.learner.options = self._skills.library.dump()
        skills = [skill_name("", ())] * (planning.skills > 0)  # all have names of one length
        check_room(self._engine, self._told, [*(option.name for option in self._skills.library), *skills])
        self._catalog = Catalog(directory.shards)
        self.pool: Pool = make_pool(config, directory.name, directory.shards, self._catalog)
        self.evaluator = Evaluator(config, self.pool, self.replay)
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
        let_go = bool(read_snapshot(self.directory.shards).missing)
        self.learner.restore(saved, self.demonstrations(), self.replay.restore(saved, let_go=let_go))
        if self.world is not None and "world_model.json" in saved:
            self._seen_transitions = json.loads(saved["parts.json"])["seen_transitions"]
            self.world.add(self.replay.transitions[:self._seen_transitions])
            self.world.restore(saved)
        if "options.json" in saved:
            self._skills.resume(Library.load(saved["options.json"]), self.replay.episodes["real"])
            self.learner.options = saved["options.json"] if len(self._skills.library) else b""
        self.evaluator.ordered = self.replay.evaluated_versions()
        return True

    def demonstrate(self) -> None:
        """Has the worlds' scripted experts live their episodes, and waits for them and for the random baseline."""
        self._phase("demonstrations")
        works = [Work.named(f"{self.config.seed}/demonstration/{w.id}/{i}", env_id=w.id, lane="demonstration",
                            seed=(1_000_000_007 + 7919 * self.config.seed + i) % SEEDS)
                 for w in self.config.worlds for i in range(w.demonstrations)]
        waiting = {w.work_id for w in works}
        self.pool.order(works)
        for shard in self.pool.shards(lambda: waiting <= self.replay.finished and not self.evaluator.busy):
            self.take(shard)
        self._phase("imitation")

    def demonstrations(self) -> list[Step]:
        """What the experts showed; where the run has subgoals, as if they had pursued them."""
        return [step for episode in self.replay.demonstrations()
                for step in in_hindsight(episode, self._skills.library, self._written)]

    def take(self, shard: Sequence[Step]) -> None:
        """New committed steps go into replay; now and then the world is told."""
        self.replay.add(shard)
        for decision in (step.decision for step in shard if step.decision):
            self.progress.cut.update(prompts=bool(decision.prompt_cut), actions=bool(decision.action_cut))
        if time.monotonic() - self._reported > 2.0:
            self._show()

    def push(self) -> None:
        """The present policy to all collectors, with what its planner thinks with, and how far they may run ahead."""
        if self.config.planning.candidates and self.learner.value is not None:
            self.learner.planner = self.learner.value.beliefs() | (self.world.beliefs() if self.world else {})
        self._limiter.counts.version, self._limiter.counts.sampled = self.learner.version, len(self.replay.consumed)
        share = -(-self._limiter.inserts_allowed() // max(self.config.workers, 1))
        self.pool.push(self.learner.policy(), share)
        if self._loop_started is None:
            self._loop_started = time.monotonic()
            self._phase("acting and learning")

    @property
    def spent(self) -> float:
        """How much of the budget is gone, by whichever part goes first; 1 ends the run. The clock has a say only where
        the configuration gives it one."""
        budget = self.config.budget
        minutes = (time.monotonic() - (self._loop_started or time.monotonic())) / 60
        return max(self.learner.version / budget.updates if budget.updates else 1.0,
                   minutes / budget.minutes if budget.minutes else 0.0,
                   self.replay.training_steps / budget.steps if budget.steps else 0.0)

    def budget_is_spent(self) -> bool:
        """Raises XpError where nothing bounds the run by time and nothing has been learned from for half an hour."""
        if self.learner.version != self._moved[0] or self._loop_started is None:
            self._moved = self.learner.version, time.monotonic()
        if self.config.budget.minutes is None and time.monotonic() - self._moved[1] > _STALLED_SECONDS:
            raise XpError(f"no update in {_STALLED_SECONDS // 60} minutes, after version {self.learner.version}",
                          "./xp show says what failed; a world whose episodes do not end needs budget.minutes")
        return self.spent >= 1

    @property
    def rate(self) -> float:
        """The learning rate falls linearly to a twentieth over the budget: what was learned settles."""
        return 1 - 0.95 * min(self.spent, 1.0)

    def note(self, metrics: dict[str, float]) -> None:
        self.progress.metrics |= metrics

    @contextlib.contextmanager
    def all_cores(self) -> Iterator[None]:
        """The learner has the machine to itself."""
        torch.set_num_threads(os.cpu_count() or 1)
        yield
        torch.set_num_threads(self.config.learning.threads)

    def fit_world_model(self, steps: int) -> dict[str, float]:
        """Some steps of the world model on all transitions read so far, and a fresh calibration of its gate."""
        if self.world is None:
            return {}
        new = self.replay.transitions[self._seen_transitions:]
        self._seen_transitions += len(new)
        self.world.add(new)
        loss = self.world.fit(steps)
        if self._should_imagine(self.learner.version + 1):
            self.progress.model_error = self.world.calibrate() or self.progress.model_error
        return {"model_nll": loss}

    def imagine(self) -> list[Group]:
        """Groups of imagined branches, if their time has come; they are kept in shards of their own."""
        planning, value = self.config.planning, self.learner.value
        if self.world is None or not self._believes(self.world):
            return []
        if planning.trusted_accuracy > 0 and value is not None and value.explained < _TRUSTED_VALUE:
            return []
        made = imagine(self._act, self.world, self.replay, self.rewards, self.catalogue, groups=planning.groups,
                       group_size=self.config.collecting.group_size, horizon=planning.horizon,
                       discount=self.config.collecting.discount, value=value)
        self.progress.imagined += made.branches
        self._keep(made.steps)
        return made.groups

    def _believes(self, world: LearnedModel) -> bool:
        """Whether it is time to imagine, and there is something that the model's gate lets through."""
        return self._should_imagine(self.learner.version + 1) and world.threshold > -math.inf

    def plan(self, lived: Sequence[Group]) -> list[Turn]:
        """What planning found best, to be imitated: where it acted in `lived`, and in what the model reaches."""
        return [*planned_turns(lived), *self._sweep()]

    def _sweep(self) -> list[Turn]:
        """What is best in the states that the model reaches from real ones, if their time has come."""
        planning = self.config.planning
        if self.world is None or not planning.roots or not self._believes(self.world):
            return []
        episodes = sweep(self._could_do, self.world, self.replay, self.rewards, self.catalogue, roots=planning.roots,
                         within=2 * planning.horizon, states=planning.states,
                         discount=self.config.collecting.discount, library=self._skills.library)
        self.progress.imagined["planned"] += len(episodes)
        self._keep(step for e in episodes for step in e.rows)
        goals, turns = self._skills.library.goals, []
        for step in (s for e in episodes for s in e.steps):
            goal = goals.get(step.option_id or 0)
            read = goal.shown(step.obs_text) if goal else step.obs_text
            said = step.decision.text if step.decision else ""
            turns.append(as_turn(replace(step, decision=self._written(step, read, said))))
        return [turn for turn in turns if turn is not None]

    def _keep(self, steps: Iterable[Step]) -> None:
        """What was imagined, in shards of its own."""
        if self._imagined is None:
            self._imagined = Journal(self.directory.path / "imagined" / "learner", self.catalogue, durability="os")
        for step in steps:
            self._imagined.append(step)
            self.replay.steps_by_source["imagined"] += not step.is_closing

    def curate(self) -> None:
        """Options: found in the best episodes, tried again in the world, pushed with the policy, and retired."""
        if not self.config.planning.skills or not self.should_evaluate(self.learner.version + 1):
            return
        recent = self.replay.episodes["real"][-_RECENT_EPISODES:]
        best = [e for e in recent if (r := e.total_reward) is not None and r > 0 and e.ending == "terminated"]
        changed = self._skills.curate(best, recent)
        if changed or len(self._skills.library):
            self.learner.options = self._skills.library.dump()
        if changed:
            self.learner.show(self._skills.turns(best, self._engine))
        self.progress.skills = len(self._skills.library)

    def _act(self, env_ids: Sequence[str], observations: Sequence[str]) -> list[Decision]:
        """The present policy, for imagined turns: the learner's own model."""
        self._engine.version = self.learner.version
        return self._engine.act([self._situation(e, o) for e, o in zip(env_ids, observations, strict=True)],
                                self.config.policy.temperature)

    def _situation(self, env_id: str, observation: str) -> Situation:
        return replace(self._told[env_id], observation=observation)

    def _written(self, step: Step, seen: str, action: str) -> Decision:
        asked = self._situation(step.env_id, seen)
        if action.startswith(USE):
            asked = replace(asked, actions=tuple(USE + name for name in self._skills.library.subgoals(step.obs_text)))
        return planned(self._engine, asked, action, self.learner.version)

    def _could_do(self, env_id: str, observations: Sequence[str]) -> list[Sequence[str]]:
        return could_do(self._told[env_id].actions, lambda seen: self._act([env_id] * len(seen), seen),
                        _SAMPLED_ACTIONS, observations)

    def checkpoint(self) -> None:
        self._log()
        if self.should_evaluate(self.learner.version):
            self.save()

    def save(self) -> None:
        """Weights, moments, world model, random states and the cursor into the store, in one atomic checkpoint."""
        world = self.world.save() if self.world is not None else {}
        about = {"parts.json": dumps({"seen_transitions": self._seen_transitions}).encode(),
                 "options.json": self._skills.library.dump()}
        self.directory.save_checkpoint(self.learner.version,
                                       {**self.learner.save(), **self.replay.save(), **self._limiter.save(), **world,
                                        **about})

    def finish(self) -> Progress:
        """Learns from the last whole groups, then evaluates with the collectors' attention undivided, and saves."""
        self._learn_from_the_rest()
        self._phase("final evaluation")
        self.evaluator.order(self.learner.policy(), self.config.evaluation.final_episodes)
        for shard in self.pool.shards(lambda: not self.evaluator.busy):
            self.take(shard)
        self.save()
        self._phase("done")
        self._log()
        return self.progress

    def _learn_from_the_rest(self) -> None:
        """Nothing new is begun; a run too short for one whole update waits for one group and learns from that."""
        self.pool.push(self.learner.policy(), 0)
        patience = time.monotonic() + self.config.collecting.step_timeout_seconds
        if self.learner.version == 0 and self.config.budget.updates:
            for shard in self.pool.shards(lambda: self.replay.ready_groups > 0 or time.monotonic() > patience):
                self.take(shard)
            lived = self.replay.window(self.learner.version, self.groups_per_update)
            if lived:
                self.note(self.learner.improve(lived))
                self.learner.publish()
                self.pool.push(self.learner.policy(), 0)

    def close(self) -> None:
        """Seals everything, and holds the shards against what was acknowledged."""
        for status in self.pool.status():
            self.progress.failures.update(status["failures"])
        self.progress.restarts = self.pool.restarts
        acknowledged = self.pool.close()
        self._skills.close()
        if self._imagined is not None:
            self._imagined.close()
        self.replay.add(all_new(self._catalog))  # what the collectors committed while they ended
        self.progress.steps = dict(self.replay.steps_by_source)
        self.progress.acknowledged = sum(t + 1 for t in acknowledged.values())
        check_acknowledged(self.directory.shards, acknowledged, self._catalog.given)

    def _phase(self, phase: str) -> None:
        self.progress.phase = phase
        self._show()

    def _show(self) -> None:
        self._reported = time.monotonic()
        progress = self.progress
        progress.disk_is_full = is_full(self.directory.path)
        progress.seconds, progress.version = time.monotonic() - self._started, self.learner.version
        progress.steps, progress.lag = dict(self.replay.steps_by_source), self.replay.mean_lag
        progress.training_steps = self.replay.training_steps
        progress.skipped = self.learner.skipped + (self.world.skipped if self.world is not None else 0)
        progress.episodes, progress.dropped = len(self.replay.finished), vars(self.replay.dropped).copy()
        for world in self.config.worlds:
            progress.random[world.id] = self.evaluator.returns(world.id, 0, "random")
            progress.returns[world.id] = {v: self.evaluator.returns(world.id, v) for v in self.evaluator.ordered}
            if self.evaluator.ordered:
                progress.gain[world.id] = self.evaluator.gain(world.id, 0, self.evaluator.ordered[-1])
            progress.training[world.id] = self.replay.recent_returns(world.id)
        self._report(progress)

    def _log(self) -> None:
        self._show()
        progress = self.progress
        self.directory.log({
            "version": progress.version, "seconds": progress.seconds, "steps": progress.steps,
            "training_steps": progress.training_steps, "lag": progress.lag,
            "episodes": progress.episodes, "dropped": progress.dropped, "cut": dict(progress.cut),
            "imagined": dict(progress.imagined),
            "skills": progress.skills, "skipped_updates": progress.skipped,
            "model_error": vars(progress.model_error) if progress.model_error else None,
            "returns": {w: {str(v): vars(m) for v, m in by.items()} for w, by in progress.returns.items()},
            "random": {w: vars(m) for w, m in progress.random.items()},
            "gain": {w: vars(m) for w, m in progress.gain.items()},
            "training": {w: sum(r) / len(r) if r else None for w, r in progress.training.items()},
            "metrics": progress.metrics})


def make_learner(config: Config, engine: Engine, rewards: RewardModel) -> Learner | TabularLearner | Onlooker:
    if not config.policy.learns:
        return Onlooker()
    learning, planning = config.learning, config.planning
    if config.policy.engine == "table":
        return TabularLearner(listed_actions(config), rewards, DynaSettings(
            learning.step_size, config.collecting.discount, planning.updates if planning.enabled else 0,
            planning.curiosity, seed=config.seed))
    known = {f.name for f in fields(LearnerSettings)}
    shared = {name: value for name, value in learning if name in known}
    settings = LearnerSettings(**shared, seed=config.seed)
    return Learner(engine.model, settings, make_value(config) if learning.advantage == "turn" else None)


@contextlib.contextmanager
def assemble(config: Config, directory: RunDirectory, report: Callable[[Progress], None]) -> Iterator[Parts]:
    """The run's parts, closed whatever happens: journals sealed, collectors ended. Where learning ends because its
    updates are not finite, the last batch is kept in the run directory."""
    torch.set_num_threads(config.learning.threads)
    parts = Parts(config, directory, report)
    try:
        yield parts
    except DivergedError as error:
        kept = directory.keep_batch(parts.learner.version, error.batch)
        raise DivergedError(str(error), error.batch, f"what they learned from is in {kept} (numpy.load); a smaller "
                                                     "learning rate may help, then: ./xp resume") from error
    finally:
        parts.close()
