"""The engine of collectors in which only scripts act: it has no model and no weights.

It is not among the names that a configuration may give: `actors/gathering` chooses it where the
world's expert or random actions are all that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.engines.engine import Situation
from actors.engines.registry import EngineKind
from experience.errors import ConfigError
from experience.models.weights import Weights
from experience.policy import Decision

NAME = "actors.engines.scripted:KIND"
"""What `policy.engine` is then."""


class ScriptedEngine:
    """Has no tokens for an action, so that a script's actions are kept as text alone."""

    version = 0
    behaviour_id = "scripted"

    def load(self, weights: Weights) -> None:
        raise _no_model()

    def encode(self, situation: Situation, action: str) -> Decision | None:
        return None

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        raise _no_model()


def _no_model() -> ConfigError:
    return ConfigError("only scripts act here: there is no model", "choose another policy")


KIND = EngineKind(lambda policy, seed, trained: ScriptedEngine())
