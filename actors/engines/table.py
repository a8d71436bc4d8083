"""A table of action values as a policy: ε-greedy over the world's listed actions, for worlds whose states repeat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.engines.engine import Situation
from experience.errors import EngineError
from experience.models.table import Table
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


class TableEngine:
    """An action's one token is its index in the list. Ties are broken at random; temperature 0 never explores."""

    behaviour_id = "table"
    model = None

    def __init__(self, epsilon: float, seed: int) -> None:
        self.version, self._table = 0, Table()
        self._epsilon, self._rng = epsilon, np.random.default_rng(seed)

    def load(self, weights: Weights) -> None:
        self._table, self.version = Table.read(weights), weights.version

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
        return [
            self._decide(
                s,
                self._epsilon if temperature else 0.0,
                self._rng if s.draw is None else np.random.default_rng(s.draw),
            )
            for s in situations
        ]

    def _decide(self, situation: Situation, epsilon: float, rng: np.random.Generator) -> Decision:
        n = len(situation.actions)
        if not n:
            raise EngineError(
                "policy.engine=table needs a world that lists its actions",
                "give the world an attribute `actions`, or use policy.engine=small",
            )
        values = self._table(situation.observation, situation.actions)
        best = np.flatnonzero(values == values.max())
        greedy = rng.random() >= epsilon
        chosen = int(best[int(rng.random() * len(best))]) if greedy else int(rng.random() * n)
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
