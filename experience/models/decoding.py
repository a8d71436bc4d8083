"""Sampling from a causal language model, many prompts at once, with the log-probability of what was sampled.

Sampler and learner score tokens by the same function, `decoder_logprobs`: what a decoder bars has no probability for
either, and both divide by the same temperature.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from experience.errors import RecordError


class Session(Protocol):
    """A model that reads some sequences side by side, token by token; what it has read stays in its cache."""

    def read(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Logits float32 [B, V] after `tokens` int64 [B, T]; seen bool [B, read before + T], False at padding."""

    def keep(self, rows: Tensor) -> None:
        """Goes on with the sequences `rows` only."""


class Samplable(Protocol):
    """A model that sequences can be sampled from."""

    def session(self) -> Session: ...


@dataclass(frozen=True)
class Sampled:
    """A sampled continuation: ids int32 [A], up to and with an end token if it `ended`; their log-probabilities
    float32 [A]; and what they were chosen from, as a `Decision` keeps it (allowed_ids, allowed_counts int32)."""

    ids: np.ndarray
    logprobs: np.ndarray
    allowed_ids: np.ndarray
    allowed_counts: np.ndarray
    ended: bool


def decoder_logprobs(
    logits: Tensor, temperature: Tensor | float, barred: Tensor | None = None
) -> Tensor:
    """The log-probabilities of the distribution that a decoder draws from: log softmax of logits / temperature over
    what is not barred.

    logits [..., V]; temperature a number or a tensor that broadcasts with them; barred bool [..., V], True where a
    token cannot be drawn: its log-probability is −∞. A temperature of 0 is scored as 1.
    """
    if isinstance(temperature, Tensor):
        tempered = logits / torch.where(temperature == 0, 1.0, temperature)
    else:
        tempered = logits / (temperature or 1.0)
    if barred is not None:
        tempered = tempered.masked_fill(barred, -torch.inf)
    return tempered.log_softmax(-1)


@torch.inference_mode()
def sample(
    model: Samplable,
    prompts: Sequence[np.ndarray],
    *,
    end: int | Collection[int],
    most_tokens: int,
    temperature: float,
    generator: torch.Generator | Sequence[torch.Generator],
    only: Sequence[Sequence[np.ndarray]] = (),
) -> list[Sampled]:
    """For each prompt a continuation of at most `most_tokens` tokens, up to and with an `end` token; where there is
    none, of just so many.

    temperature 0 takes the likeliest token and reports its log-probability at temperature 1. `only` lists, for each
    prompt, all that may be written (ids with their end token; none: anything): the distribution is the model's over
    the tokens that keep one of them possible. `generator` is one for all prompts, drawn from in their order, or one
    for each. Raises RecordError if a listed text is longer than `most_tokens`, or does not end.
    """
    ends = {end} if isinstance(end, int) else set(end)
    generators = (
        [generator] * len(prompts) if isinstance(generator, torch.Generator) else list(generator)
    )
    tokens, seen = _padded(prompts, next(iter(ends), 0))
    session = model.session()
    logits = session.read(tokens, seen)
    writing = [
        _Writing(_listed(only[row], most_tokens, ends) if only else [])
        for row in range(len(prompts))
    ]
    alive = list(range(len(prompts)))
    while True:
        allowed = [writing[row].allowed() for row in alive]
        logp = decoder_logprobs(logits, temperature, _barred(allowed, logits.shape[1]))
        chosen = (
            logp.argmax(-1) if temperature == 0 else _draw(logp, [generators[row] for row in alive])
        )
        values = logp.gather(1, chosen[:, None])[:, 0]
        for row, some, token, value in zip(
            alive, allowed, chosen.tolist(), values.tolist(), strict=True
        ):
            writing[row].add(token, value, some, token in ends)
        going = [
            i
            for i, row in enumerate(alive)
            if not writing[row].ended and len(writing[row].ids) < most_tokens
        ]
        if not going:
            return [w.sampled() for w in writing]
        if len(going) < len(alive):
            rows = torch.tensor(going)
            session.keep(rows)
            alive, seen, chosen = [alive[i] for i in going], seen[rows], chosen[rows]
        seen = torch.cat([seen, torch.ones(len(alive), 1, dtype=torch.bool)], 1)
        logits = session.read(chosen[:, None], seen)


def allowed_tokens(ids: np.ndarray, only: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(allowed_ids, allowed_counts) of `ids`, had they been sampled under `only`; empty where they could not have."""
    writing = _Writing([text.tolist() for text in only])
    for token in ids.tolist():
        some = writing.allowed()
        if token not in some:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        writing.add(token, 0.0, some, False)
    found = writing.sampled()
    return found.allowed_ids, found.allowed_counts


def fit(prompt: np.ndarray, room: int) -> np.ndarray:
    """`prompt`, or its first and last tokens where it is longer than `room`."""
    if len(prompt) <= room:
        return prompt
    return np.concatenate([prompt[: room // 2], prompt[len(prompt) - (room + 1) // 2 :]])


class _Writing:
    """A continuation being written, and which of the listed texts it can still become."""

    def __init__(self, listed: list[list[int]]) -> None:
        self.ids: list[int] = []
        self.ended = False
        self._logprobs: list[float] = []
        self._left, self._is_free = listed, not listed
        self._allowed: list[list[int]] = []

    def allowed(self) -> list[int]:
        """The tokens that may come next, in order; none where all may."""
        return sorted({text[len(self.ids)] for text in self._left if len(text) > len(self.ids)})

    def add(self, token: int, logprob: float, allowed: list[int], ended: bool) -> None:
        self._left = [
            text
            for text in self._left
            if len(text) > len(self.ids) and text[len(self.ids)] == token
        ]
        self.ids.append(token)
        self._logprobs.append(logprob)
        self._allowed.append(allowed)
        self.ended = ended

    def sampled(self) -> Sampled:
        flat = [token for some in self._allowed for token in some]
        counts = [] if self._is_free else [len(some) for some in self._allowed]
        return Sampled(
            np.array(self.ids, np.int32),
            np.array(self._logprobs, np.float32),
            np.array(flat, np.int32),
            np.array(counts, np.int32),
            self.ended,
        )


def _listed(
    texts: Sequence[np.ndarray], most_tokens: int, ends: Collection[int]
) -> list[list[int]]:
    longest = max(map(len, texts), default=0)
    if longest > most_tokens:
        raise RecordError(
            f"a listed text of {longest} tokens, and at most {most_tokens} may be written",
            f"allow {longest} tokens",
        )
    if any(len(text) == 0 or int(text[-1]) not in ends for text in texts):
        raise RecordError(
            "a listed text without an end token",
            "what follows it would be anything; end it with one",
        )
    return [text.tolist() for text in texts]


def _padded(prompts: Sequence[np.ndarray], padding: int) -> tuple[Tensor, Tensor]:
    """tokens int64 [B, T], padded on the left, and which are no padding, bool [B, T]."""
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), padding)
    seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        seen[row, longest - len(prompt) :] = True
    return tokens, seen


def _barred(allowed: Sequence[list[int]], vocabulary: int) -> Tensor | None:
    """bool [B, V]: what may not come next in each row; None where everything may."""
    if not any(allowed):
        return None
    barred = torch.zeros(len(allowed), vocabulary, dtype=torch.bool)
    for row, some in enumerate(allowed):
        if some:
            barred[row] = True
            barred[row, some] = False
    return barred


def _draw(logp: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """int64 [B]: a token for each row of logp [B, V], by one number from its generator. What has no probability is
    never drawn: the first token is taken at which the cumulated probability exceeds the number."""
    cumulated = logp.double().exp().cumsum(-1)
    total = cumulated[:, -1:]
    drawn = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    below = torch.minimum(drawn * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, below, right=True)[:, 0]
