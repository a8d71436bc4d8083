"""A turn of experience as a learner sees it: its tokens, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _no_ids() -> np.ndarray:
    return np.empty(0, np.int32)


@dataclass(frozen=True)
class Turn:
    """The part of a turn that losses need.

    prompt int32 [P]; action int32 [A]; logprobs float32 [A]: the sampler's log-probabilities, at
    `temperature`, over the tokens that it could choose from (see `Decision.allowed_ids`). pictures:
    the hashes of the blobs that were seen.

    stream, t: where the turn comes from. Turns of one stream may continue each other; a turn
    without a stream continues none. versions int32 [A]: the policy version that sampled each token;
    empty: unknown. weight: multiplies its part of a loss. response_tokens: how many tokens were
    chosen in the whole response that the turn belongs to (all turns of an episode); 0: the turn is
    a response of its own.
    """

    prompt: np.ndarray
    action: np.ndarray
    logprobs: np.ndarray
    advantage: float = 0.0
    temperature: float = 1.0
    allowed_ids: np.ndarray = field(default_factory=_no_ids)
    allowed_counts: np.ndarray = field(default_factory=_no_ids)
    pictures: tuple[bytes, ...] = ()
    stream: bytes = b""
    t: int = 0
    versions: np.ndarray = field(default_factory=_no_ids)
    weight: float = 1.0
    response_tokens: int = 0

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.action)

    @property
    def chosen(self) -> int:
        """The number of action tokens that were chosen, not forced by the decoder."""
        if not len(self.allowed_counts):
            return len(self.action)
        return int((self.allowed_counts != 1).sum())
