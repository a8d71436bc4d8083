"""Decisions: an action of a policy, and how it was chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from experience.errors import RecordError
from experience.text.tools import ToolCall


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
    """One action, and exactly how it was chosen.

    prompt_ids int32 [P], action_ids int32 [A]: the tokens that the model read and wrote.
    logprobs float32 [A]: log-probabilities (nats) under the distribution that was sampled from. All
    three are empty, and token_exact is False, if the engine cannot tell the tokens.

    sampled: whether the action is a plain sample of that distribution, so that a ratio π/μ may be
    taken. An action of a planner, an expert or a greedy choice is no sample: it can only be
    imitated, even if its tokens are known.

    temperature: of the sampling. None is unknown, or nothing was sampled. 0 is the likeliest token,
    scored at temperature 1.

    allowed_ids int32: the token ids that the decoder could choose from, those of the first action
    token first. allowed_counts int32 [A]: how many of them belong to each action token; 0 means the
    whole vocabulary. Both are empty if every token could be any of the vocabulary.

    prompt_cut: the number of prompt tokens that were left out for want of room; None is unknown.
    action_cut: whether the limit of tokens ended the action; None is unknown.

    tool_calls: the calls that `text` asks for. reasoning, content: what the model thought, and what
    it said beside its calls. refusal: why the answer cannot be done, in words for the model; such
    an answer is not given to the world. finish_reason: why the engine stopped, in OpenAI's words.

    model: the model's name. prompt_tokens, answer_tokens: where the tokens themselves are not
    known. seconds: until the whole answer was there; first_token_seconds: until it began. None is
    unknown.
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
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    content: str = ""
    refusal: str = ""
    finish_reason: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None

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
                "the action is a sample, but its tokens are not known",
                "give the tokens, or say sampled=False",
            )
        counts = self.allowed_counts
        # Every row of a store passes here, and most have no counts: numpy's sum is left out then.
        allowed = int(counts.sum()) if len(counts) else 0
        if len(counts) not in (0, len(self.action_ids)) or allowed != len(self.allowed_ids):
            raise RecordError(
                f"{len(self.allowed_ids)} allowed tokens and {len(counts)} counts for "
                f"{len(self.action_ids)} action tokens",
                "give one count per action token, or none",
            )
