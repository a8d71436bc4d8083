"""Decisions: an action of a policy, and how it was chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """One action and exactly how it was chosen.

    prompt_ids int32 [P], action_ids int32 [A], logprobs float32 [A]: log-probabilities (nats) of the
    distribution actually sampled from. Empty, with token_exact False, where the engine cannot tell the tokens.

    sampled: whether the action is a plain sample of that distribution, so that a ratio π/μ may be taken. What a
    planner, an expert or a greedy choice wrote is not, though its tokens are known: it can be imitated only.
    temperature: of the sampling (None: unknown, or nothing was sampled; 0: the likeliest, scored at 1).
    allowed_ids int32, allowed_counts int32 [A]: the token ids that the decoder could choose from, those of the first
    action token first, and how many they are for each (0: the whole vocabulary). Both empty: the whole vocabulary
    everywhere.
    prompt_cut: tokens of the prompt that were left out for want of room; action_cut: whether the action was ended by
    the limit of tokens. None: unknown.
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
    sampled: bool = False
    temperature: float | None = None
    allowed_ids: np.ndarray = field(default_factory=_no_ids)
    allowed_counts: np.ndarray = field(default_factory=_no_ids)
    prompt_cut: int | None = None
    action_cut: bool | None = None

    def __post_init__(self) -> None:
        if len(self.action_ids) != len(self.logprobs):
            raise RecordError(
                f"{len(self.action_ids)} action tokens but {len(self.logprobs)} log-probabilities",
                "an engine gives one log-probability per sampled token",
            )
        if self.token_exact and sum(s.tokens for s in self.version_spans) != len(self.action_ids):
            raise RecordError(
                "version spans do not cover the action's tokens", "give one span per run of tokens"
            )
        if self.sampled and not self.token_exact:
            raise RecordError(
                "a sample whose tokens are not known", "give the tokens, or say sampled=False"
            )
        counts = self.allowed_counts
        told = (
            int(counts.sum()) if len(counts) else 0
        )  # most have none, and each row of a store is made here
        if len(counts) not in (0, len(self.action_ids)) or told != len(self.allowed_ids):
            raise RecordError(
                f"{len(self.allowed_ids)} allowed tokens and {len(counts)} counts for "
                f"{len(self.action_ids)} action tokens",
                "give one count per action token, or none",
            )
