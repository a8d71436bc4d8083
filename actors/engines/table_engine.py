"""The engine `table`: ε-greedy over a table of action values, for worlds whose states repeat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.engines.engine import Situation
from actors.engines.model import TrainedModel
from actors.engines.registry import EngineKind
from actors.engines.settings import PolicySettings
from experience.errors import EngineError
from experience.models.table import Table
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


class TableEngine:
    """The one token of an action is its index in the world's list. Ties between best actions are
    broken at random. Temperature 0 never explores."""

    behaviour_id = "table"

    def __init__(self, epsilon: float, seed: int) -> None:
        self.version = 0
        self._table = Table()
        self._epsilon = epsilon
        self._rng = np.random.default_rng(seed)

    def load(self, weights: Weights) -> None:
        self._table = Table.read(weights)
        self.version = weights.version

    def encode(self, situation: Situation, action: str) -> Decision | None:
        if action not in situation.actions:
            return None
        return Decision(
            action,
            self.version,
            action_ids=np.array([situation.actions.index(action)], np.int32),
            logprobs=np.zeros(1, np.float32),
            version_spans=(VersionSpan(self.version, 1),),
            token_exact=True,
            prompt_cut=0,
            action_cut=False,
        )

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        epsilon = self._epsilon if temperature else 0.0
        return [self._decide(situation, epsilon) for situation in situations]

    def _decide(self, situation: Situation, epsilon: float) -> Decision:
        rng = self._rng if situation.draw is None else np.random.default_rng(situation.draw)
        n = len(situation.actions)
        if not n:
            raise EngineError(
                "policy.engine=table needs a world that lists its actions",
                "give the world an attribute `actions`, or use policy.engine=small",
            )
        values = self._table(situation.observation, situation.actions)
        best = np.flatnonzero(values == values.max())
        is_greedy = rng.random() >= epsilon
        choices = best if is_greedy else np.arange(n)
        chosen = int(choices[int(rng.random() * len(choices))])
        # an exploring draw may hit a best action, too
        probability = epsilon / n + (1 - epsilon) * (chosen in best) / len(best)
        return Decision(
            situation.actions[chosen],
            self.version,
            action_ids=np.array([chosen], np.int32),
            logprobs=np.array([np.log(probability)], np.float32),
            version_spans=(VersionSpan(self.version, 1),),
            token_exact=True,
            decoder=f"epsilon={epsilon:g}",
            behaviour_id=self.behaviour_id,
            sampled=True,
            allowed_ids=np.arange(n, dtype=np.int32),
            allowed_counts=np.array([n], np.int32),
            prompt_cut=0,
            action_cut=False,
        )


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None) -> TableEngine:
    """A table without entries. The learner keeps a table of its own and pushes it as weights."""
    return TableEngine(policy.epsilon, seed)


KIND = EngineKind(make_engine)
