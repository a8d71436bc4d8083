"""Who decides: the seam between an agent and whatever runs its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from experience.errors import RecordError


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """`tokens` successive action tokens were sampled from weights `version`."""

    version: int
    tokens: int


def _no_ids() -> np.ndarray:
    return np.empty(0, np.int32)


def _no_logprobs() -> np.ndarray:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Decision:
    """One action and exactly how it was sampled.

    prompt_ids int32 [P], action_ids int32 [A], logprobs float32 [A]: log-probabilities (nats) of the
    distribution actually sampled from. Empty, with token_exact False, where the engine cannot tell.
    """

    text: str
    policy_version: int
    prompt_ids: np.ndarray = field(default_factory=_no_ids)
    action_ids: np.ndarray = field(default_factory=_no_ids)
    logprobs: np.ndarray = field(default_factory=_no_logprobs)
    version_spans: tuple[VersionSpan, ...] = ()
    token_exact: bool = False
    decoder: str = ""
    behaviour_id: str = ""

    def __post_init__(self) -> None:
        if len(self.action_ids) != len(self.logprobs):
            raise RecordError(f"{len(self.action_ids)} action tokens but {len(self.logprobs)} log-probabilities",
                              "an engine gives one log-probability per sampled token")
        if self.token_exact and sum(s.tokens for s in self.version_spans) != len(self.action_ids):
            raise RecordError("version spans do not cover the action's tokens", "give one span per run of tokens")


class Policy(Protocol):
    """Anything that answers observations with decisions, one for one and in order."""

    version: int

    def act(self, observations: Sequence[str]) -> list[Decision]: ...
