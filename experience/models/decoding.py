"""Sampling from the small transformer, many prompts at once, with the log-probability of what was sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from experience.models.transformer import Cache, Transformer


@torch.inference_mode()
def sample(model: Transformer, prompts: Sequence[np.ndarray], *, end: int, most_tokens: int, temperature: float,
           generator: torch.Generator,
           only: Sequence[Sequence[np.ndarray]] = ()) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each prompt: sampled ids int32 [A] up to and with `end`, and their log-probabilities float32 [A].

    temperature 0 takes the likeliest token and reports its log-probability at temperature 1. Prompts longer than
    the context keep their first and last halves' worth (the head holds the task, the tail the question).
    `only` lists, for each prompt, all that may be written (ids with `end`; none: anything). Log-probabilities are the
    model's own all the same, without that limit: what a learner compares, which knows no limit.
    """
    prompts = [fit(p, model.shape.context - most_tokens) for p in prompts]
    batch, longest = len(prompts), max(map(len, prompts))
    tokens = torch.full((batch, longest), end)
    seen = torch.zeros(batch, longest, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt):] = torch.from_numpy(prompt.astype(np.int64))
        seen[i, longest - len(prompt):] = True
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = (causal[None] & seen[:, None]) | torch.eye(longest, dtype=torch.bool)[None]
    cache = Cache.empty(model.shape.layers)
    logits = model.decode(tokens, positions, mask[:, None], cache)
    position = positions[:, -1:]
    alive = torch.arange(batch)
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    for _ in range(most_tokens):
        chosen, logp = _choose(logits, temperature, generator, [
            {int(text[len(ids[row])]) for text in only[row] if text[:len(ids[row])].tolist() == ids[row]}
            for row in alive.tolist()] if only else ())
        for row, token, value in zip(alive.tolist(), chosen.tolist(), logp.tolist(), strict=True):
            ids[row].append(token)
            logprobs[row].append(value)
        going = torch.nonzero(chosen != end)[:, 0]
        if len(going) == 0:
            break
        if len(going) < len(alive):
            cache.keep(going)
            alive, seen, position, chosen = alive[going], seen[going], position[going], chosen[going]
        seen = torch.cat([seen, torch.ones(len(alive), 1, dtype=torch.bool)], 1)
        position = position + 1
        logits = model.decode(chosen[:, None], position, seen[:, None, None], cache)
    return [(np.array(i, np.int32), np.array(p, np.float32)) for i, p in zip(ids, logprobs, strict=True)]


def fit(prompt: np.ndarray, room: int) -> np.ndarray:
    """`prompt`, or its first and last tokens where it is longer than `room`."""
    if len(prompt) <= room:
        return prompt
    return np.concatenate([prompt[:room // 2], prompt[len(prompt) - (room + 1) // 2:]])


def _choose(logits: Tensor, temperature: float, generator: torch.Generator,
            only: Sequence[set[int]]) -> tuple[Tensor, Tensor]:
    """A token for each row, of `only` where that names some, and its log-probability among all."""
    logp = (logits / (temperature or 1.0)).log_softmax(-1)
    offered = logp
    if any(only):
        barred = torch.tensor([bool(some) for some in only])[:, None].repeat(1, logits.shape[1])
        for row, some in enumerate(only):
            barred[row, list(some)] = False
        offered = logp.masked_fill(barred, -torch.inf).log_softmax(-1)
    chosen = offered.argmax(-1) if temperature == 0 else torch.multinomial(offered.exp(), 1, generator=generator)[:, 0]
    return chosen, logp.gather(1, chosen[:, None])[:, 0]
