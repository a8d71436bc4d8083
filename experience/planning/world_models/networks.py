"""The networks of the ensemble, computed together, with inputs and targets scaled to unit size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.learning.machine.finite import FiniteSteps

SINGLE = 1e-6
"""Error of single precision, relative to a number's size; a smaller spread is rounding."""


@dataclass(frozen=True)
class Row:
    """A transition as numbers: input (numbers, action), change, signals, 1 if it ended."""

    given: np.ndarray
    change: np.ndarray
    signals: np.ndarray
    ended: float


class Networks(nn.Module):
    """M two-layer networks at once: float [M, B, I] -> float [M, B, O + 1], the last for the end.

    Inputs and targets are scaled to unit size.
    """

    def __init__(self, members: int, inputs: int, width: int, outputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = ((inputs, width), (width, width), (width, outputs + 1))
            self.weights = nn.ParameterList(
                # He et al. 2015: the variance stays the same from layer to layer.
                torch.randn(members, i, o) * (2 / i) ** 0.5
                for i, o in sizes
            )
            self.biases = nn.ParameterList(torch.zeros(members, 1, o) for _, o in sizes)
        # Parameters without a gradient, not buffers: weights are sent as parameters.
        self.stats = nn.ParameterDict(
            {
                name: nn.Parameter(torch.full((size,), torch.nan), requires_grad=False)
                for name, size in (
                    ("centre", inputs),
                    ("spread", inputs),
                    ("middle", outputs),
                    ("usual", outputs),
                )
            }
        )

    def scale(self, given: Tensor, target: Tensor) -> None:
        """Sets the scale of each column once, by the first rows in which it is not constant.

        Until then the column is 0 as an input, and predicted as it always was as a target.
        """
        for rows, centre, spread in ((given, "centre", "spread"), (target, "middle", "usual")):
            # Without correction: that of a single row is 0, and not NaN.
            mean, deviation = rows.mean(0), rows.std(0, correction=0)
            deviation[deviation <= SINGLE * mean.abs()] = 0.0
            unset = ~(self.stats[spread] > 0)
            self.stats[centre][unset], self.stats[spread][unset] = mean[unset], deviation[unset]

    def scaled(self, target: Tensor) -> Tensor:
        return _over(target - self.stats["middle"], self.stats["usual"])

    def unscaled(self, out: Tensor) -> Tensor:
        unscaled: Tensor = out * self.stats["usual"] + self.stats["middle"]
        return unscaled

    def forward(self, given: Tensor) -> Tensor:
        x = _over(given - self.stats["centre"], self.stats["spread"])
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = functional.silu(x) if layer < 2 else x
        return x

    def predict(self, given: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of inputs [B, I]: the mean [B, O], whether it ends, bool [B], and the spread [B]."""
        with torch.inference_mode():
            out = self(given.expand(len(self.weights[0]), -1, -1))
            end = torch.sigmoid(out[..., -1])
            apart = out[..., :-1].std(0).amax(-1) + end.std(0)
            mean = self.unscaled(out[..., :-1].mean(0))
        return mean.numpy(), (end.mean(0) > 0.5).numpy(), apart.numpy()


class NetworkTrainer:
    """The networks, their optimizer and the rows each sees; `nets` is None before a fit."""

    def __init__(self, members: int, width: int, seed: int) -> None:
        self.nets: Networks | None = None
        self.optimizer: torch.optim.Optimizer
        self.rng = np.random.default_rng(seed)
        self._members, self._width, self._seed = members, width, seed
        self._finite = FiniteSteps("ensemble")

    @property
    def skipped(self) -> int:
        return self._finite.skipped

    def build(self, inputs: int, outputs: int) -> Networks:
        """New networks of these sizes, and an optimizer for them."""
        self.nets = Networks(self._members, inputs, self._width, outputs, self._seed)
        trained = [p for p in self.nets.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=1e-3)
        return self.nets

    def fit(self, rows: Sequence[Row], steps: int, batch: int) -> float:
        """`steps` optimiser steps of all members together; the last loss."""
        given = torch.from_numpy(np.array([r.given for r in rows], np.float32))
        targets = [np.concatenate([r.change, r.signals]) for r in rows]
        target = torch.from_numpy(np.array(targets, np.float32))
        ended = torch.tensor([r.ended for r in rows])
        nets = self.nets or self.build(given.shape[1], target.shape[1])
        nets.scale(given, target)
        of_members = self._rows_of_members(len(rows))
        loss = torch.zeros(())
        for _ in range(steps):
            # Each member draws for itself: equal batches would make the members alike.
            drawn = [self.rng.choice(own, batch) for own in of_members]
            chosen = torch.from_numpy(np.array(drawn))
            out = nets(given[chosen])
            loss = functional.mse_loss(out[..., :-1], nets.scaled(target[chosen]))
            loss = loss + functional.binary_cross_entropy_with_logits(out[..., -1], ended[chosen])
            self.optimizer.zero_grad()
            loss.backward()
            inputs = partial(
                _as_arrays, given=given[chosen], target=target[chosen], ended=ended[chosen]
            )
            self._finite.take(self.optimizer, float(loss.detach()), inputs)
        return float(loss.detach())

    def _rows_of_members(self, n: int) -> list[np.ndarray | int]:
        """For each member the rows that it sees: two of three, always the same, or all if none.

        Members must see different rows, so that they differ where rows are few.
        """
        seen: list[np.ndarray | int] = []
        for member in range(self._members):
            mask = np.random.default_rng([self._seed, member]).random(n) < 2 / 3
            own = np.flatnonzero(mask)
            seen.append(own if len(own) else n)
        return seen


def _as_arrays(**tensors: Tensor) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _over(difference: Tensor, spread: Tensor) -> Tensor:
    """`difference` in units of `spread`; 0 where a spread is 0: a constant says nothing yet."""
    return torch.where(spread > 0, difference / torch.where(spread > 0, spread, 1.0), 0.0)
