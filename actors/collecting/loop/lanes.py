"""The agents of a collector: who answers in each lane, with which policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from actors.agents.agent import Agent, Expert, Random
from actors.agents.planner import Planner
from actors.collecting.hosts.messages import Failed
from actors.collecting.loop.rivals import make_rivals
from actors.collecting.slot import Slot
from actors.collecting.work import Lane
from actors.config.schema import Config, Policy
from actors.engines.engine import Engine
from actors.engines.registry import make_engine
from experience.errors import EngineError, EnvironmentFailure
from experience.models.weights import PolicyBundle
from experience.policy import Decision
from experience.reward import RewardModel
from experience.world import WorldCard

_TRIES = 3
"""How often an engine is asked for one answer that fails, before that episode ends."""

_PATIENCE = 5
"""Answers in a row that may fail for good, and none between them succeed, beside one of every
slot: then nobody answers any more, and the run ends."""

_MOST_PAUSE_SECONDS = 3.0

MakeEngine = Callable[[Policy, int], Engine]
"""(settings, seed) -> an engine: of this process, or one that is shared with others."""


class Lanes:
    """The policy in training, pinned policies in evaluation, the world's expert, random actions,
    and who else plays in the worlds with several agents, whose cards are `shared`."""

    def __init__(
        self,
        config: Config,
        rewards: RewardModel,
        seed: int,
        shared: Iterable[WorldCard] = (),
        make: MakeEngine = make_engine,
    ) -> None:
        self._config = config
        self._rewards = rewards
        self._make = make
        self._engine = make(config.policy, seed)
        self._acting = self._agent(self._engine, config.policy.temperature)
        self._evaluating: Agent | None = None
        self._evaluating_version: int | None = None
        self._pinned: dict[int, PolicyBundle] = {}
        self._holding: dict[int, Agent] = {}
        """An agent for each pinned version, where the engine holds versions side by side."""
        self._scripted: dict[Lane, Expert | Random] = {
            "demonstration": Expert(self._engine),
            "random": Random(),
        }
        self._rivals = make_rivals(config, shared)
        self._failures = 0
        self._plans = config.planning.lookahead.candidates > 0

    def load(self, policy: PolicyBundle) -> None:
        """The policy for training steps from now on. One that is older than the present policy
        came late, and is ignored."""
        if self._config.policy.learns and policy.version >= self._engine.version:
            self._acting.load(policy)

    def pin(self, policy: PolicyBundle) -> None:
        """Keeps a policy for the evaluations that are ordered for their version."""
        if self._holds_versions:
            if policy.version not in self._holding:
                pinned: Any = self._engine
                agent = self._agent(pinned.pinned(), self._config.evaluation.temperature)
                agent.load(policy)
                self._holding[policy.version] = agent
            return
        if self._evaluating is None:
            engine = self._make(self._config.policy, self._config.seed)
            self._evaluating = self._agent(engine, self._config.evaluation.temperature)
        self._pinned[policy.version] = policy

    def keep_pinned(self, versions: set[int]) -> None:
        """Drops the policies of every other version."""
        self._pinned = {v: pinned for v, pinned in self._pinned.items() if v in versions}
        for version in self._holding.keys() - versions:
            _close(self._holding.pop(version))

    @property
    def _holds_versions(self) -> bool:
        return self._config.policy.learns and hasattr(self._engine, "pinned")

    @property
    def answers_alone(self) -> bool:
        """Whether the engine is a server, which is asked about each slot by itself."""
        return bool(getattr(self._engine, "answers_alone", False)) and not self._plans

    def decide(self, lane: Lane, version: int, slots: Sequence[Slot]) -> list[Decision | Failed]:
        """For each slot a decision, or why its episode ends.

        Raises EngineError when the engine has not answered for so long that it may be gone.
        """
        if lane in self._scripted:
            return [_ask(self._scripted[lane], slot) for slot in slots]
        for tried in range(_TRIES):
            try:
                decisions = self._answers(lane, version, slots)
            except EngineError as error:
                failed = error
                time.sleep(min(2.0**tried / 10, _MOST_PAUSE_SECONDS))
                continue
            self._failures = 0
            return [*decisions]
        self._failures += len(slots)
        if self._failures >= _PATIENCE + self._config.collecting.slots:
            raise failed
        return [Failed.of(failed, "engine_error")] * len(slots)

    def close(self) -> None:
        evaluating = [] if self._evaluating is None else [self._evaluating]
        for agent in [self._acting, *evaluating, *self._holding.values()]:
            _close(agent)
        for rival in self._rivals.values():
            rival.close()

    def _answers(self, lane: Lane, version: int, slots: Sequence[Slot]) -> list[Decision]:
        if lane != "rival":
            return self.agent(lane, version).act(slots)
        name = _rival_of(slots[0])
        decisions = self._rivals[name].act(slots)
        return [replace(decision, behaviour_id=name) for decision in decisions]

    @property
    def engine(self) -> Engine:
        """The engine that acts in training."""
        return self._engine

    def agent(self, lane: Lane, version: int) -> Agent:
        """The agent of a lane, with the policy that its version names."""
        if lane == "train":
            return self._acting
        if self._holds_versions:
            return self._holding[version]
        assert self._evaluating is not None, "an evaluation is ordered with its weights"
        is_new = version in self._pinned and version != self._evaluating_version
        if is_new and self._config.policy.learns:
            self._evaluating.load(self._pinned[version])
            self._evaluating_version = version
        return self._evaluating

    def _agent(self, engine: Engine, temperature: float) -> Agent:
        """The policy as an agent, with a planner if the configuration wants one."""
        thinks = self._config.planning.lookahead.candidates > 0
        planner = Planner(self._config, self._rewards) if thinks else None
        return Agent(engine, temperature, planner)


def _rival_of(slot: Slot) -> str:
    """Who acts in a slot of the lane `rival`."""
    assert slot.work is not None
    return slot.work.rival


def _close(agent: Agent) -> None:
    agent.close()
    close = getattr(agent.engine, "close", None)
    if close is not None:
        close()


def _ask(agent: Expert | Random, slot: Slot) -> Decision | Failed:
    """The action of a script. If the world's own script fails, the world failed."""
    if slot.script_failed is not None:
        return slot.script_failed
    try:
        (decision,) = agent.act([slot])
    except EnvironmentFailure as error:
        return Failed.of(error)
    return decision
