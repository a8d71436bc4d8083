"""Completions of token ids by a server: ids in, ids with their log-probabilities out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.engines.servers.connection import Connection
from experience.errors import EngineError
from experience.models.decoding import Sampled

_NO_ANSWER = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""Raised by reading an answer that is no completion."""


@dataclass(frozen=True)
class Answer:
    """What was sampled, and the seconds until its first token; None if it was not streamed."""

    sampled: Sampled
    prompt_ids: np.ndarray
    first_seconds: float | None


class Completions:
    """Asks `/v1/completions`. ends: the tokens that end an answer. streams: answers come token by
    token, so that the time of the first is known."""

    def __init__(
        self, connection: Connection, most_tokens: int, ends: Sequence[int], streams: bool
    ) -> None:
        self._connection = connection
        self._most_tokens = most_tokens
        self._ends = ends
        self._streams = streams

    def ask(self, model: str, prompt: np.ndarray, temperature: float, draw: int | None) -> Answer:
        """The answer of a model, or of an adapter, to a prompt. Raises EngineError, or Refused."""
        asked = {
            "model": model,
            "prompt": prompt.tolist(),
            "max_tokens": self._most_tokens,
            "temperature": temperature,
            "seed": None if draw is None else draw % 2**31,
            "logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
            "skip_special_tokens": False,
            "stop_token_ids": [int(end) for end in self._ends],
            # what the model's own generation settings say would be sampled from another distribution
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stream": self._streams,
        }
        return self._read(asked)

    def _read(self, asked: dict[str, Any]) -> Answer:
        connection = self._connection
        begun = time.perf_counter()
        first: float | None = None
        ids, logprobs, prompt = list[int](), list[float](), list[int]()
        parts: Any
        if self._streams:
            parts = connection.stream("/v1/completions", asked)
        else:
            parts = [connection.post("/v1/completions", asked)]
        try:
            for part in parts:
                if not part["choices"]:
                    continue
                (choice,) = part["choices"]
                if self._streams and first is None:
                    first = time.perf_counter() - begun
                prompt += choice.get("prompt_token_ids") or []
                ids += choice["token_ids"]
                logprobs += choice["logprobs"]["token_logprobs"]
            return Answer(self._sampled(ids, logprobs), np.array(prompt, np.int32), first)
        except _NO_ANSWER:
            raise EngineError(
                f"{connection.base_url}: what it answers is no completion with tokens and "
                "log-probabilities",
                "policy.engine=vllm needs vLLM ≥ 0.12; policy.engine=openai takes other servers",
            ) from None

    def _sampled(self, ids: list[int], logprobs: list[float]) -> Sampled:
        known = np.array(logprobs, np.float32)
        if not ids or len(ids) != len(known) or not np.isfinite(known).all():
            raise ValueError("a log-probability is missing")
        none = np.empty(0, np.int32)
        return Sampled(np.array(ids, np.int32), known, none, none, ids[-1] in self._ends)
