"""Sampling from a causal language model, for many prompts at once, with exact log-probabilities.

Sampler and learner score tokens by the same function, `decoder_logprobs`. A token that the decoder
bars has no probability for either of them, and both divide by the same temperature.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from experience.errors import RecordError


class Session(Protocol):
    """A model that reads sequences side by side, some tokens at a time, with a cache."""

    def read(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Logits float32 [B, V] after `tokens` int64 [B, T], which are padded on the left.

        seen: bool [B, tokens read before + T], False at padding.
        """

    def keep(self, rows: Tensor) -> None:
        """Drops all sequences except `rows`."""


@runtime_checkable
class KeepsPrefixes(Protocol):
    """A session that knows the beginnings of prompts from earlier sessions."""

    def begin(self, prompts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], Tensor | None]:
        """The tokens of each prompt that are still to be read, and the columns of what is known:
        bool [B, T], False at padding; None if nothing is known."""

    def end(self, rows: Sequence[int]) -> None:
        """Keeps what these rows have read."""


class Samplable(Protocol):
    """A model that sequences can be sampled from. One that sees makes `session(pictures)` too."""

    def session(self, *pictures: Any) -> Session: ...


@dataclass(frozen=True)
class Sampled:
    """A sampled continuation.

    ids int32 [A]: its tokens, with an end token as the last if it `ended`. logprobs float32 [A].
    allowed_ids, allowed_counts int32: the tokens that could be chosen, as in a `Decision`.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    allowed_ids: np.ndarray
    allowed_counts: np.ndarray
    ended: bool


def decoder_logprobs(
    logits: Tensor, temperature: Tensor | float, barred: Tensor | None = None
) -> Tensor:
    """The log-probabilities of the distribution that a decoder draws from.

    It is the log softmax of logits / temperature over the tokens that are not barred. logits
    [..., V]; temperature: a number, or a tensor that broadcasts with them; 0 is scored as 1. barred
    bool [..., V]: True where a token cannot be drawn; its log-probability is −∞.
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
    pictures: Any = None,
) -> list[Sampled]:
    """Samples a continuation of each prompt: up to an `end` token, or `most_tokens` tokens.

    temperature 0 takes the likeliest token and reports its log-probability at temperature 1.

    `only` lists, for each prompt, all texts that may be written, as ids with an end token; an empty
    list allows any text. The distribution is the model's over the tokens that keep one of the
    listed texts possible.

    `pictures` is what a model that sees is shown with the prompts, in the form that it takes.

    `generator` is one for all prompts, drawn from in their order, or one for each. Raises
    RecordError if a listed text is longer than `most_tokens`, or has no end token.
    """
    ends = {end} if isinstance(end, int) else set(end)
    if isinstance(generator, torch.Generator):
        generator = [generator] * len(prompts)
    session = model.session() if pictures is None else model.session(pictures)
    tokens, seen = _opening(session, prompts, next(iter(ends), 0))
    logits = session.read(tokens, seen)
    listed = [_listed(texts, most_tokens, ends) for texts in only] or [[] for _ in prompts]
    writing = [_Writing(texts) for texts in listed]
    alive = list(range(len(prompts)))
    while True:
        allowed = [writing[row].allowed() for row in alive]
        logp = decoder_logprobs(logits, temperature, _barred(allowed, logits.shape[1]))
        own = [generator[row] for row in alive]
        chosen = logp.argmax(-1) if temperature == 0 else _draw(logp, own)
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
            if isinstance(session, KeepsPrefixes):
                session.end(range(len(alive)))
            return [w.sampled() for w in writing]
        if len(going) < len(alive):
            rows = torch.tensor(going)
            # Finished rows leave the cache: they would cost as much as those that go on.
            session.keep(rows)
            alive = [alive[i] for i in going]
            seen = seen[rows]
            chosen = chosen[rows]
        seen = torch.cat([seen, torch.ones(len(alive), 1, dtype=torch.bool)], 1)
        logits = session.read(chosen[:, None], seen)


def allowed_tokens(ids: np.ndarray, only: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(allowed_ids, allowed_counts) of `ids` as if they had been sampled under `only`.

    Both are empty if `only` does not allow them.
    """
    writing = _Writing([text.tolist() for text in only])
    for token in ids.tolist():
        some = writing.allowed()
        if token not in some:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        writing.add(token, 0.0, some, False)
    found = writing.sampled()
    return found.allowed_ids, found.allowed_counts


def fit(prompt: np.ndarray, room: int) -> np.ndarray:
    """`prompt`; only its first and last tokens if it is longer than `room`."""
    if len(prompt) <= room:
        return prompt
    return np.concatenate([prompt[: room // 2], prompt[len(prompt) - (room + 1) // 2 :]])


class _Writing:
    """A continuation under way, and the listed texts that it can still become."""

    def __init__(self, listed: list[list[int]]) -> None:
        self.ids: list[int] = []
        self.ended = False
        self._logprobs: list[float] = []
        self._left, self._is_free = listed, not listed
        self._allowed: list[list[int]] = []

    def allowed(self) -> list[int]:
        """The tokens that may come next, in order; an empty list if all tokens may."""
        return sorted({text[len(self.ids)] for text in self._left if len(text) > len(self.ids)})

    def add(self, token: int, logprob: float, allowed: list[int], ended: bool) -> None:
        # Texts that this token excludes are gone for good: `allowed` looks at the rest only.
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
            f"a listed text has {longest} tokens, and at most {most_tokens} may be written",
            f"allow {longest} tokens",
        )
    if any(len(text) == 0 or int(text[-1]) not in ends for text in texts):
        raise RecordError(
            "a listed text has no end token",
            "append one: the model would go on writing after the text",
        )
    return [text.tolist() for text in texts]


def _opening(
    session: Session, prompts: Sequence[np.ndarray], padding: int
) -> tuple[Tensor, Tensor]:
    """The tokens that are to be read first, int64 [B, T], and which columns are tokens, those that
    the session knows already before them: bool [B, known + T]."""
    # Any token can pad: `seen` hides it.
    if not isinstance(session, KeepsPrefixes):
        return _padded(prompts, padding)
    left, known = session.begin(prompts)
    tokens, seen = _padded(left, padding)
    return tokens, seen if known is None else torch.cat([known, seen], 1)


def _padded(prompts: Sequence[np.ndarray], padding: int) -> tuple[Tensor, Tensor]:
    """The prompts as tokens int64 [B, T], padded on the left; and bool [B, T], False at padding."""
    # On the left: then the last column holds the last token of every prompt.
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), padding)
    seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        seen[row, longest - len(prompt) :] = True
    return tokens, seen


def _barred(allowed: Sequence[list[int]], vocabulary: int) -> Tensor | None:
    """The tokens that may not come next in each row, bool [B, V]; None if all may everywhere."""
    if not any(allowed):
        return None
    barred = torch.zeros(len(allowed), vocabulary, dtype=torch.bool)
    for row, some in enumerate(allowed):
        if some:
            barred[row] = True
            barred[row, some] = False
    return barred


def _draw(logp: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draws a token for each row of logp [B, V], by one number from its generator; int64 [B].

    The first token is taken whose cumulated probability exceeds the number. So a token without
    probability is never drawn.
    """
    cumulated = logp.double().exp().cumsum(-1)
    total = cumulated[:, -1:]
    drawn = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    below = torch.minimum(drawn * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, below, right=True)[:, 0]
