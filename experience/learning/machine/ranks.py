"""Ranks: the processes that share an update, each with its own part of the sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as distributed
from torch import nn

from experience.learning.sequences.batch import TokenCounts


class Ranks(Protocol):
    """How the parts of an update are added up. `count`: the number of processes."""

    count: int

    def counts(self, own: TokenCounts) -> TokenCounts:
        """The counts of all ranks: sums are divided by them on every rank."""

    def total(
        self, loss: float, metrics: dict[str, float], weights: Sequence[nn.Parameter]
    ) -> tuple[float, dict[str, float]]:
        """Loss and metrics of all ranks; leaves the sum of their gradients on each."""


class OneRank:
    """A process that learns alone."""

    count = 1

    def counts(self, own: TokenCounts) -> TokenCounts:
        return own

    def total(
        self, loss: float, metrics: dict[str, float], weights: Sequence[nn.Parameter]
    ) -> tuple[float, dict[str, float]]:
        return loss, metrics


class ProcessRanks:
    """The processes of torch.distributed's default group (gloo, NCCL). Weights are whole on each.

    Every rank has to take every update, with an empty part if it has no sequences.
    """

    def __init__(self) -> None:
        self.count = distributed.get_world_size()

    def counts(self, own: TokenCounts) -> TokenCounts:
        sums = torch.tensor([own.chosen, own.observed, own.responses], dtype=torch.float64)
        distributed.all_reduce(sums)
        return TokenCounts(*sums.tolist())

    def total(
        self, loss: float, metrics: dict[str, float], weights: Sequence[nn.Parameter]
    ) -> tuple[float, dict[str, float]]:
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            # Summed, not averaged: each rank has divided by the counts of all.
            distributed.all_reduce(weight.grad)
        told: list[dict[str, float]] = [{} for _ in range(self.count)]
        distributed.all_gather_object(told, {**metrics, "": loss})
        names = dict.fromkeys(name for one in told for name in one)
        sums = {name: sum(one.get(name, 0.0) for one in told) for name in names}
        return sums.pop(""), sums


ONE = OneRank()
