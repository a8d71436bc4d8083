"""The exact tokens of a server's answer, where the server tells them, as vLLM does.

Asked for by `return_token_ids` and `logprobs`; answered by `prompt_token_ids`, and for each choice
`token_ids` and a log-probability a token. A server that knows neither refuses them with 400 or 422,
or leaves them out; its answers are text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ASKED: dict[str, Any] = {
    "logprobs": True,
    "top_p": 1.0,
    # what the model's own generation settings say would be sampled from another distribution
    "extra_body": {
        "return_token_ids": True,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    },
}
"""Arguments of a chat completion that ask for exact tokens of the model's own distribution."""


@dataclass(frozen=True)
class ServedTokens:
    """What a server's model read and wrote.

    prompt_ids int32 [P], action_ids int32 [A]. logprobs float32 [A], in nats: of the model's
    distribution before temperature, which is what servers tell.
    """

    prompt_ids: np.ndarray
    action_ids: np.ndarray
    logprobs: np.ndarray


def served_tokens(answer: Any) -> ServedTokens | None:
    """The tokens of the first choice; None if the server does not tell all of them.

    Raises TypeError or ValueError for what should be numbers and is not.
    """
    choice = answer.choices[0]
    prompt = getattr(answer, "prompt_token_ids", None)
    written = getattr(choice, "token_ids", None)
    told = getattr(getattr(choice, "logprobs", None), "content", None)
    if not prompt or not written or not told or len(told) != len(written):
        return None
    logprobs = np.array([token.logprob for token in told], np.float32)
    if not np.isfinite(logprobs).all():
        raise ValueError("a log-probability is not finite")
    return ServedTokens(np.array(prompt, np.int32), np.array(written, np.int32), logprobs)
