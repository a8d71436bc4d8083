"""Batches of token sequences as padded tensors, and the cut of an update into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from experience.errors import RecordError
from experience.learning.sequences.sequence import TokenSequence, as_sequence
from experience.learning.sequences.turn import Turn


class Role(IntEnum):
    """What a token is. Only sampled tokens were chosen by the policy."""

    PADDING = 0
    PROMPT = 1
    SAMPLED = 2
    FORCED = 3
    INSERTED = 4


@dataclass(frozen=True)
class TokenBatch:
    """Sequences side by side, padded on the right. Column t of a prediction tensor is token t + 1.

    tokens: int64 [B, T]. roles: uint8 [B, T], of `Role`.
    mask: float [B, T−1], 1 where an action token was chosen, not forced by the decoder.
    observed: float [B, T−1], 1 at tokens that were read: prompts, and what was inserted.
    logp_behaviour: float [B, T−1], the sampler's log-probabilities.
    advantages: float [B, T−1], of the turn that each action token belongs to.
    weight: float [B, T−1]: multiplies the loss of a token. Denominators do not know it.
    share: float [B, T−1]: 1 / the number of chosen tokens in the token's response.
    turn: int64 [B, T−1], the number of the token's turn in its sequence.
    version: int64 [B, T−1], the policy version that sampled the token; −1 is unknown.
    temperature: float [B, T−1].
    limited: bool [B, T−1], True where the decoder could choose from `allowed` tokens only.
    allowed: int64 [N, 3], as (row, prediction, token).
    logp_proximal: float [B, T−1], when the update began; None where nothing needs it.
    logp_reference: float [B, T−1], under a frozen reference policy; None without one.
    pictures: uint8 [B, S, S, 3], for a model that sees; None for any other.
    """

    tokens: Tensor
    roles: Tensor
    mask: Tensor
    observed: Tensor
    logp_behaviour: Tensor
    advantages: Tensor
    weight: Tensor
    share: Tensor
    turn: Tensor
    version: Tensor
    temperature: Tensor
    limited: Tensor
    allowed: Tensor
    logp_proximal: Tensor | None = None
    logp_reference: Tensor | None = None
    pictures: Tensor | None = None

    @classmethod
    def of(cls, parts: Sequence[Turn | TokenSequence]) -> TokenBatch:
        """The batch of sequences; a turn is a sequence of one turn."""
        # Padding is on the right, where a causal model never looks: no attention mask is needed.
        sequences = [as_sequence(part) for part in parts]
        rows = _Rows(len(sequences), max(s.length for s in sequences))
        for row, sequence in enumerate(sequences):
            rows.write(row, sequence)
        return cls(**rows.tensors())

    @property
    def advantage(self) -> Tensor:
        """The advantage of each sequence, float [B], if all of its turns have the same.

        Raises RecordError if they differ: then a loss must read `advantages`.
        """
        is_chosen = self.mask > 0
        most = self.advantages.masked_fill(~is_chosen, -torch.inf).amax(1)
        least = self.advantages.masked_fill(~is_chosen, torch.inf).amin(1)
        if bool((most > least).any()):
            raise RecordError(
                "the turns of a sequence differ in advantage; batch.advantage is one a sequence",
                "read batch.advantages, float [B, T−1], without [:, None]",
            )
        return torch.where(is_chosen.any(1), most, 0.0)

    def barred(self, vocabulary: int) -> Tensor | None:
        """The tokens that the decoder could not choose, bool [B, T−1, V]; None if it was free."""
        if not self.limited.any():
            return None
        # Where the decoder was limited, all tokens are barred but those that are listed.
        barred = self.limited[..., None].repeat(1, 1, vocabulary)
        barred[tuple(self.allowed.T)] = False
        return barred

    def to(self, device: torch.device) -> TokenBatch:
        """The batch on a device; itself if it is there already."""
        if self.tokens.device == device:
            return self
        tensors = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


class _Rows:
    """The arrays of a batch while sequences are written into them, row by row."""

    def __init__(self, rows: int, longest: int) -> None:
        shape = rows, max(longest - 1, 0)
        self.tokens = np.zeros((rows, longest), np.int64)
        self.roles = np.zeros((rows, longest), np.uint8)
        self.mask = np.zeros(shape, np.float32)
        self.observed = np.zeros(shape, np.float32)
        self.logp_behaviour = np.zeros(shape, np.float32)
        self.advantages = np.zeros(shape, np.float32)
        self.weight = np.ones(shape, np.float32)
        self.share = np.zeros(shape, np.float32)
        self.turn = np.zeros(shape, np.int64)
        self.version = np.full(shape, -1, np.int64)
        self.temperature = np.ones(shape, np.float64)
        self.limited = np.zeros(shape, bool)
        self.proximal: np.ndarray | None = np.zeros(shape, np.float32)
        self.allowed = [np.empty((0, 3), np.int64)]

    def write(self, row: int, sequence: TokenSequence) -> None:
        length, first = sequence.length, len(sequence.turns[0].prompt)
        self.tokens[row, :length] = sequence.tokens
        self.roles[row, :length] = Role.INSERTED
        self.roles[row, :first] = Role.PROMPT
        self.observed[row, : length - 1] = 1.0
        if sequence.proximal is None:
            self.proximal = None
        elif self.proximal is not None:
            self.proximal[row, : length - 1] = sequence.proximal
        begin = 0
        for number, turn in enumerate(sequence.turns):
            end = turn.length - 1
            # What was read before the action is scored at the temperature of the action.
            self.temperature[row, begin:end] = turn.temperature
            self._write_action(row, number, turn)
            begin = end

    def _write_action(self, row: int, number: int, turn: Turn) -> None:
        start, end = len(turn.prompt), turn.length
        written = slice(start - 1, end - 1)  # the predictions of the action's tokens
        self.roles[row, start:end] = Role.SAMPLED
        self.observed[row, written] = 0.0
        self.mask[row, written] = 1.0
        self.logp_behaviour[row, written] = turn.logprobs
        self.advantages[row, written] = turn.advantage
        self.weight[row, written] = turn.weight
        self.turn[row, written] = number
        if len(turn.versions):
            self.version[row, written] = turn.versions
        if len(turn.allowed_counts):
            # A forced token was no choice: its probability is 1 under every policy.
            self.mask[row, written] = turn.allowed_counts != 1
            self.roles[row, start:end][turn.allowed_counts == 1] = Role.FORCED
            self.limited[row, written] = turn.allowed_counts > 0
            where = np.repeat(np.arange(start - 1, end - 1), turn.allowed_counts)
            self.allowed.append(np.stack([np.full(len(where), row), where, turn.allowed_ids], 1))
        size = turn.response_tokens or turn.chosen
        self.share[row, written] = self.mask[row, written] / max(size, 1)

    def tensors(self) -> dict[str, Tensor]:
        arrays = dict(vars(self))
        proximal = arrays.pop("proximal")
        arrays["allowed"] = np.concatenate(self.allowed)
        if proximal is not None:
            arrays["logp_proximal"] = proximal
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class TokenCounts:
    """What sums over tokens are divided by: the counts of all micro-batches of an update.

    chosen: choices of action tokens. observed: tokens that were read. responses: whole responses,
    where one that is cut over several batches counts by the tokens that are here. Each is at least
    1, but for responses, of which a part may be all there is.
    """

    chosen: float
    observed: float
    responses: float = 1.0

    @classmethod
    def of(cls, batches: Sequence[TokenBatch]) -> TokenCounts:
        return cls.sums(batches).as_divisors()

    @classmethod
    def sums(cls, batches: Sequence[TokenBatch]) -> TokenCounts:
        """The plain counts, 0 where there is nothing: what the counts of ranks are added up of."""
        chosen = sum(float(b.mask.sum()) for b in batches)
        observed = sum(float(b.observed.sum()) for b in batches)
        return cls(chosen, observed, sum(float(b.share.sum()) for b in batches))

    def as_divisors(self) -> TokenCounts:
        """The counts without zeros."""
        return TokenCounts(max(self.chosen, 1.0), max(self.observed, 1.0), self.responses or 1.0)


def micro_batches(
    parts: Sequence[Turn | TokenSequence], most_tokens: int
) -> Iterator[list[Turn | TokenSequence]]:
    """Cuts sequences into runs of similar length, each of at most `most_tokens` padded tokens.

    A longer sequence is a run of its own.
    """
    run: list[Turn | TokenSequence] = []
    # Sorted: padding costs as much time and memory as tokens do.
    for part in sorted(parts, key=lambda p: p.length):
        if run and part.length * (len(run) + 1) > most_tokens:
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def as_arrays(**parts: Sequence[Turn | TokenSequence]) -> dict[str, np.ndarray]:
    """The tensors of each batch, named `<name>_<field>`: what is kept of an update for
    inspection."""
    arrays = {}
    for name, some in parts.items():
        tensors = vars(TokenBatch.of(some)) if some else {}
        for field_name, tensor in tensors.items():
            if tensor is not None:
                arrays[f"{name}_{field_name}"] = tensor.numpy()
    return arrays
