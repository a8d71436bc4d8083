"""What a model keeps of conversations between their turns: the cache of all tokens read so far.

A turn then costs its new tokens, however long its history is. An entry belongs to the weights that
made it: it is found under their `salt` only, so that no new version reads what an old one has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

_FEWEST = 16
"""Tokens: a shorter common beginning costs more to copy than to read."""

Layers = list[tuple[Tensor, Tensor]]
"""For each layer of a model its keys and its values, each [H, T, D]."""


@dataclass(frozen=True)
class Prefix:
    """The cache of `tokens`, int32 [T]."""

    tokens: np.ndarray
    layers: Layers

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for pair in self.layers for part in pair)


@dataclass(frozen=True)
class Found:
    """The longest known beginning of a prompt: the first `length` tokens of `prefix`."""

    prefix: Prefix | None = None
    length: int = 0


def salt_of(model: nn.Module) -> int:
    """A number that changes whenever a weight of `model` is written, by whomever."""
    # the counter that autograd keeps of in-place changes; a push and an optimiser's step are such
    return sum(parameter._version for parameter in model.parameters())


class PrefixStore:
    """Keeps caches of at most `most_bytes`; those that were not used for longest go first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: list[Prefix] = []
        """In the order of their last use."""
        self._bytes = 0
        self._salt: int | None = None
        self.reused = 0
        """Tokens that were not read again, in all."""

    def find(self, salt: int, prompt: np.ndarray) -> Found:
        """The longest known beginning of `prompt`. One token is always left to be read: the model
        tells what comes next only of what it reads."""
        self._only(salt)
        best = Found()
        for prefix in self._kept:
            common = _common(prefix.tokens, prompt[:-1])
            if common > best.length:
                best = Found(prefix, common)
        if best.prefix is None or best.length < _FEWEST:
            return Found()
        self._move_up(best.prefix)
        self.reused += best.length
        return best

    def keep(self, salt: int, new: Prefix) -> None:
        """Keeps the cache of a conversation, in the place of that of its beginning."""
        self._only(salt)
        for old in self._kept:
            if _common(old.tokens, new.tokens) == len(old.tokens):
                self._drop(old)
                break
        self._kept.append(new)
        self._bytes += new.bytes
        while self._bytes > self._most:
            self._drop(self._kept[0])

    def _only(self, salt: int) -> None:
        """Forgets what other weights have read."""
        if salt != self._salt:
            self._kept, self._bytes, self._salt = [], 0, salt

    def _move_up(self, used: Prefix) -> None:
        self._kept = [prefix for prefix in self._kept if prefix is not used] + [used]

    def _drop(self, old: Prefix) -> None:
        self._kept = [prefix for prefix in self._kept if prefix is not old]
        self._bytes -= old.bytes


def _common(known: np.ndarray, prompt: np.ndarray) -> int:
    """How many tokens two sequences have in common from their beginning."""
    most = min(len(known), len(prompt))
    differing = np.flatnonzero(known[:most] != prompt[:most])
    return int(differing[0]) if len(differing) else most


def batched(found: Sequence[Found]) -> tuple[Layers, Tensor]:
    """Found beginnings as one cache, padded on the left, and which of its columns are tokens.

    Returns for each layer keys and values [B, H, T, D], and bool [B, T]. At least one of `found`
    must be longer than 0.
    """
    longest = max(one.length for one in found)
    seen = torch.zeros(len(found), longest, dtype=torch.bool)
    some = next(one.prefix for one in found if one.prefix is not None)
    layers: Layers = []
    for keys, values in some.layers:
        shape = (len(found), keys.shape[0], longest)
        layers.append(
            (keys.new_zeros(*shape, keys.shape[-1]), values.new_zeros(*shape, values.shape[-1]))
        )
    for row, one in enumerate(found):
        if one.prefix is None:
            continue
        start = longest - one.length
        seen[row, start:] = True
        for (keys, values), (own_keys, own_values) in zip(layers, one.prefix.layers, strict=True):
            keys[row, :, start:] = own_keys[:, : one.length]
            values[row, :, start:] = own_values[:, : one.length]
    return layers, seen
