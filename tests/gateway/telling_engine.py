"""An engine whose answers are given in the program's own messages: exact tokens, known texts.

It answers with what stands after `say:` in the newest message, as its tokens, with the tokens of the
prompt as the small engine reads it. In a world, it is named tests.gateway.telling_engine:Telling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actors.engines.engine import Situation, answer_fields
from actors.engines.registry import make_engine
from actors.engines.settings import PolicySettings
from experience.models.weights import Weights
from experience.policy import Decision


class Telling:
    version = 0
    behaviour_id = "telling"

    def __init__(self, policy: PolicySettings, seed: int) -> None:
        small = policy.model_copy(update={"engine": "small"})  # type: ignore[attr-defined]
        self._small = make_engine(small, seed)

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        return [self._tell(situation) for situation in situations]

    def _tell(self, situation: Situation) -> Decision:
        said = self.answer(situation)
        encoded = self._small.encode(situation, said)
        assert encoded is not None
        return replace(encoded, **answer_fields(said, situation, said), finish_reason="stop")

    def answer(self, situation: Situation) -> str:
        return situation.observation.rpartition("say:")[2]

    def length(self, situation: Situation) -> int:
        return int(self._small.length(situation))  # type: ignore[attr-defined]

    def encode(self, situation: Situation, action: str) -> Decision | None:
        return self._small.encode(situation, action)

    def load(self, weights: Weights) -> None:
        self._small.load(weights)
