"""What a run imagines: branches to learn from like real ones, and what planning found best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from actors.agents.agent import planned
from actors.agents.skills import Skills
from actors.config.schema import Config
from actors.engines.engine import Engine, Situation
from actors.running.budget import Every
from actors.running.progress import Progress
from experience.episode import Group
from experience.learning.advantages import as_turn, planned_turns
from experience.learning.batch import Turn
from experience.learning.learner import Learner
from experience.options.option import USE
from experience.planning.imagine import imagine, sweep
from experience.planning.reach import could_do
from experience.planning.world_models.world_model import LearnedModel
from experience.policy import Decision
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.journal import Journal
from experience.signal import SignalKind
from experience.step import Step

_SAMPLED_ACTIONS = 6
"""Of the policy, where a world cannot list what could be done."""
_TRUSTED_VALUE = 0.2
"""Minimum explained variance of new returns before the value function may bootstrap unfinished
imagined branches. Below it the value is noise, and a policy that follows noise unlearns."""


class Thought:
    """Imagines with a world model and the present policy. Writes imagined steps to own shards."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        engine: Engine,
        prompt_contexts: Mapping[str, Situation],
        learner: Learner,
        world: LearnedModel | None,
        replay: Replay,
        rewards: RewardModel,
        catalogue: dict[str, SignalKind],
        skills: Skills,
        progress: Progress,
    ) -> None:
        self._config, self._folder, self._engine, self._prompt_contexts = (
            config,
            folder,
            engine,
            prompt_contexts,
        )
        self._learner, self._world, self._replay = learner, world, replay
        self._rewards, self._catalogue, self._skills, self._progress = (
            rewards,
            catalogue,
            skills,
            progress,
        )
        self.should_imagine = Every(config.planning.every)
        self._journal: Journal | None = None

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def imagine(self) -> list[Group]:
        """Groups of imagined branches, written to shards of their own; empty if none are due."""
        planning, value = self._config.planning, self._learner.value
        if self._world is None or not self._believes(self._world):
            return []
        if (
            planning.model.trusted_accuracy > 0
            and value is not None
            and value.explained < _TRUSTED_VALUE
        ):
            return []
        made = imagine(
            self._act,
            self._world,
            self._replay,
            self._rewards,
            self._catalogue,
            groups=planning.branches.groups,
            group_size=self._config.collecting.group_size,
            horizon=planning.branches.horizon,
            discount=self._config.collecting.discount,
            value=value,
        )
        self._progress.imagined += made.branches
        self._keep(made.steps)
        return made.groups

    def _believes(self, world: LearnedModel) -> bool:
        """Whether imagining is due, and the model's gate lets any transition through."""
        return self.should_imagine(self._learner.version + 1) and world.threshold > -math.inf

    def plan(self, lived: Sequence[Group]) -> list[Turn]:
        """Turns to imitate: planned ones of `lived`, and the best actions in the model."""
        return [*planned_turns(lived), *self._sweep()]

    def _sweep(self) -> list[Turn]:
        """The best actions in states that the model reaches; empty if none are due."""
        planning = self._config.planning
        if self._world is None or not planning.sweeps.roots or not self._believes(self._world):
            return []
        episodes = sweep(
            self._could_do,
            self._world,
            self._replay,
            self._rewards,
            self._catalogue,
            roots=planning.sweeps.roots,
            within=planning.sweeps.first_turns,
            states=planning.sweeps.states,
            discount=self._config.collecting.discount,
            library=self._skills.library,
        )
        self._progress.imagined["planned"] += len(episodes)
        self._keep(step for e in episodes for step in e.rows)
        goals, turns = self._skills.library.goals, []
        for step in (s for e in episodes for s in e.steps):
            goal = goals.get(step.option_id or 0)
            read = goal.shown(step.obs_text) if goal else step.obs_text
            said = step.decision.text if step.decision else ""
            turns.append(as_turn(replace(step, decision=self.written(step, read, said))))
        return [turn for turn in turns if turn is not None]

    def _keep(self, steps: Iterable[Step]) -> None:
        """What was imagined, in shards of its own."""
        if self._journal is None:
            self._journal = Journal(
                self._folder / "imagined" / "learner", self._catalogue, durability="os"
            )
        for step in steps:
            self._journal.append(step)
            self._replay.steps_by_source["imagined"] += not step.is_closing

    def _act(self, env_ids: Sequence[str], observations: Sequence[str]) -> list[Decision]:
        """The present policy, for imagined turns: the learner's own model."""
        self._engine.version = self._learner.version
        return self._engine.act(
            [self._situation(e, o) for e, o in zip(env_ids, observations, strict=True)],
            self._config.policy.temperature,
        )

    def _situation(self, env_id: str, observation: str) -> Situation:
        return replace(self._prompt_contexts[env_id], observation=observation)

    def written(self, step: Step, seen: str, action: str) -> Decision:
        asked = self._situation(step.env_id, seen)
        if action.startswith(USE):
            asked = replace(
                asked,
                actions=tuple(USE + name for name in self._skills.library.subgoals(step.obs_text)),
            )
        return planned(self._engine, asked, action, self._learner.version)

    def _could_do(self, env_id: str, observations: Sequence[str]) -> list[Sequence[str]]:
        return could_do(
            self._prompt_contexts[env_id].actions,
            lambda seen: self._act([env_id] * len(seen), seen),
            _SAMPLED_ACTIONS,
            observations,
        )
