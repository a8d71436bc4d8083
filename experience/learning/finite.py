"""Optimiser steps that cannot spoil the weights: one whose loss or gradient is not finite is skipped and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from experience.errors import DivergedError

MOST_IN_A_ROW = 3
"""Skipped updates after which training is over: what comes next would be skipped too."""


class FiniteSteps:
    """Takes the optimiser steps of one model, called `name` in errors.

    Invariant: no gradient that is not finite reaches a weight or a moment of the optimiser. Every trained model steps
    through one of these: policy, value function, world models.
    """

    def __init__(self, name: str) -> None:
        self.name, self.skipped, self._in_a_row = name, 0, 0

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        loss: float,
        batch: Callable[[], Mapping[str, np.ndarray]],
        longest: float = math.inf,
    ) -> float | None:
        """One step on the gradients that are there, clipped to the norm `longest`; their norm before clipping.

        None where the loss or a gradient is not finite: nothing was changed, and `skipped` is one higher. Raises
        DivergedError at the third such step in a row, with the arrays that `batch` gives.
        """
        weights = [
            p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = float(nn.utils.clip_grad_norm_(weights, longest))
        if math.isfinite(loss) and math.isfinite(norm):
            optimizer.step()
            self._in_a_row = 0
            return norm
        optimizer.zero_grad()
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW:
            raise DivergedError(
                f"the {self.name} was given {self._in_a_row} updates in a row that are not finite "
                f"(loss {loss:g}, gradient norm {norm:g}); its weights are those before them",
                batch(),
            )
        return None
