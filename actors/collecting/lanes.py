"""The agents of a collector: who answers in each lane, with which policy."""

from __future__ import annotations

from collections.abc import Sequence

from actors.agents.agent import Agent, Expert, Random
from actors.agents.planner import Planner
from actors.collecting.slot import Slot
from actors.collecting.work import Lane
from actors.config.schema import Config
from actors.engines.engine import Engine
from actors.engines.registry import make_engine
from experience.errors import EngineError, XpError
from experience.models.weights import PolicyBundle
from experience.policy import Decision
from experience.reward import RewardModel

_PATIENCE = 5
"""Rounds in a row that an engine may fail before the collector gives up."""

_MOST_PAUSE_SECONDS = 3.0


class Lanes:
    """The policy in training, pinned policies in evaluation, the world's expert, random actions."""

    def __init__(self, config: Config, rewards: RewardModel, seed: int) -> None:
        self._config = config
        self._rewards = rewards
        self._engine = make_engine(config.policy, seed)
        self._acting = self._agent(self._engine, config.policy.temperature)
        self._evaluating: Agent | None = None
        self._evaluating_version: int | None = None
        self._pinned: dict[int, PolicyBundle] = {}
        self._scripted: dict[Lane, Expert | Random] = {
            "demonstration": Expert(self._engine),
            "random": Random(),
        }
        self._failures = 0

    @property
    def version(self) -> int:
        """The policy version that training steps are taken with."""
        return self._engine.version

    @property
    def pause_seconds(self) -> float:
        """How long to leave an engine alone that has just failed: longer after each failure."""
        return min(2.0**self._failures / 10, _MOST_PAUSE_SECONDS)

    def load(self, policy: PolicyBundle) -> None:
        """The policy for training steps from now on."""
        if self._config.policy.learns:
            self._acting.load(policy)

    def pin(self, policy: PolicyBundle) -> None:
        """Keeps a policy for the evaluations that are ordered for their version."""
        if self._evaluating is None:
            engine = make_engine(self._config.policy, self._config.seed)
            self._evaluating = self._agent(engine, self._config.evaluation.temperature)
        self._pinned[policy.version] = policy

    def keep_pinned(self, versions: set[int]) -> None:
        """Drops the policies of every other version."""
        self._pinned = {v: pinned for v, pinned in self._pinned.items() if v in versions}

    def decide(self, lane: Lane, version: int, slots: Sequence[Slot]) -> list[Decision | Exception]:
        """For each slot a decision, or the error that ends its episode.

        Raises EngineError after several rounds in a row in which the engine did not answer.
        """
        if not slots:
            return []
        if lane in self._scripted:
            return [_ask(self._scripted[lane], slot) for slot in slots]
        try:
            answers = self._policy(lane, version).act(slots)
        except EngineError as error:
            self._failures += 1
            if self._failures >= _PATIENCE:
                raise
            return [error] * len(slots)
        self._failures = 0
        return [*answers]

    def close(self) -> None:
        self._acting.close()
        if self._evaluating is not None:
            self._evaluating.close()

    def _policy(self, lane: Lane, version: int) -> Agent:
        """The agent of a lane, with the policy that its version names."""
        if lane == "train":
            return self._acting
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


def _ask(agent: Expert | Random, slot: Slot) -> Decision | Exception:
    """The action of a script. If the world's own script fails, the world failed."""
    try:
        (decision,) = agent.act([slot])
    except XpError:
        raise
    except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
        return error
    return decision
