"""Log-probabilities of a batch's tokens under a model, without all logits at once.

Logits over a large vocabulary take far more memory than the model: 8,192 tokens of 49,152 words
are 1.6 GB, and as much again for their softmax and their gradient. So the head is applied to the
tokens that a loss reads, some at a time, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from experience.learning.sequences.batch import TokenBatch
from experience.models.decoding import decoder_logprobs

MOST_LOGITS = 1 << 24
"""Logits that are made at once: 64 MB in float32."""


def token_logprobs(
    logits: Tensor, tokens: Tensor, temperature: Tensor | float = 1.0, barred: Tensor | None = None
) -> Tensor:
    """log π(token_t | tokens before t), float [B, T−1], as the decoder scored it.

    logits [B, T, V]; tokens int64 [B, T]; temperature a number, one for each sequence [B], or one
    for each prediction [B, T−1]; barred bool [B, T−1, V]: True where the decoder never draws the
    token.
    """
    if isinstance(temperature, Tensor):
        wide = temperature if temperature.dim() == 2 else temperature[:, None]
        temperature = wide.to(logits.dtype)[..., None]
    predicted = decoder_logprobs(logits[:, :-1], temperature, barred)
    return predicted.gather(-1, tokens[:, 1:, None])[..., 0]


def score(
    model: nn.Module,
    batch: TokenBatch,
    temperature: float | None = None,
    reads_observed: bool = True,
    most_logits: int = MOST_LOGITS,
) -> Tensor:
    """Log-probabilities of the batch's tokens under `model`, float [B, T−1].

    temperature: of all tokens; None scores each at that of its sampler. Where the logits are too
    many to be made at once, only chosen tokens are scored, and observed ones if `reads_observed`;
    the others are 0 then. A model is read so if it has `hidden` and `logits`, as `Transformer` has;
    of another model all logits are made.
    """
    shown = () if batch.pictures is None else (batch.pictures,)
    chosen = batch.temperature if temperature is None else temperature
    read: Callable[..., Any] | None = getattr(model, "hidden", None)
    hidden = None if read is None else read(batch.tokens, *shown)
    if hidden is None:
        logits = model(batch.tokens, *shown)
        barred = batch.barred(logits.shape[-1])
        return token_logprobs(logits, batch.tokens, chosen, barred)
    head: Callable[[Tensor], Tensor] = model.logits  # type: ignore[assignment]
    vocabulary = head(hidden[:1, :1]).shape[-1]
    if hidden.shape[0] * hidden.shape[1] * vocabulary <= most_logits:
        return token_logprobs(head(hidden), batch.tokens, chosen, batch.barred(vocabulary))
    needed = batch.mask + batch.observed if reads_observed else batch.mask
    return _score_some(head, hidden, batch, chosen, needed > 0, max(most_logits // vocabulary, 1))


def _score_some(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    batch: TokenBatch,
    temperature: Tensor | float,
    needed: Tensor,
    at_once: int,
) -> Tensor:
    """The log-probabilities where `needed`, bool [B, T−1], made for `at_once` tokens at a time."""
    rows, columns = needed.nonzero(as_tuple=True)
    # The number of each needed prediction in the flat list, to find the tokens allowed there.
    place = torch.full(needed.shape, -1, device=needed.device)
    place[rows, columns] = torch.arange(len(rows), device=needed.device)
    allowed_at = place[batch.allowed[:, 0], batch.allowed[:, 1]]
    found = []
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        here = (allowed_at >= start) & (allowed_at < start + at_once)
        heat = temperature
        if isinstance(temperature, Tensor):
            heat = temperature[rows[some], columns[some]].to(torch.float32)[:, None]
        scored = checkpoint(
            _score_flat,
            head,
            hidden[rows[some], columns[some]],
            batch.tokens[rows[some], columns[some] + 1],
            heat,
            batch.limited[rows[some], columns[some]],
            allowed_at[here] - start,
            batch.allowed[here, 2],
            use_reentrant=False,
        )
        found.append(scored)
    values = torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)
    empty = torch.zeros(needed.shape, device=hidden.device)
    return empty.index_put((rows, columns), values)


def _score_flat(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    temperature: Tensor | float,
    limited: Tensor,
    allowed_rows: Tensor,
    allowed_tokens: Tensor,
) -> Tensor:
    """Log-probabilities of tokens int64 [N] after hidden [N, W]; their logits are not kept."""
    logits = head(hidden)
    barred = None
    if bool(limited.any()):
        barred = limited[:, None].repeat(1, logits.shape[-1])
        barred[allowed_rows, allowed_tokens] = False
    return decoder_logprobs(logits, temperature, barred).gather(-1, tokens[:, None])[:, 0]
