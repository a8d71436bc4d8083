"""Optimiser steps that cannot spoil the weights.

A step whose loss or gradient is not finite is skipped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from experience.errors import DivergedError

MOST_IN_A_ROW = 3
"""So many skipped updates in a row end training: the next ones would be skipped too."""


class FiniteSteps:
    """Takes the optimiser steps of one model, which errors call `name`.

    Invariant: no gradient that is not finite reaches a weight or a moment of the optimiser. Every
    trained model uses this class: the policy, the value function, the world models.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.skipped = 0
        self._in_a_row = 0

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        loss: float,
        batch: Callable[[], Mapping[str, np.ndarray]],
        longest: float = math.inf,
    ) -> float | None:
        """Steps on the gradients that were accumulated, clipped to the norm `longest`.

        Returns their norm before clipping; None if the loss or a gradient was not finite. Then
        nothing was changed but `skipped`. Raises DivergedError at the third such step in a row,
        with the arrays that `batch` returns.
        """
        weights = [
            p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        # With an infinite `longest` nothing is clipped, and the norm is only measured.
        norm = float(nn.utils.clip_grad_norm_(weights, longest))
        if math.isfinite(loss) and math.isfinite(norm):
            optimizer.step()
            self._in_a_row = 0
            return norm
        # One NaN in a moment would stay there for ever: the update is left out as a whole.
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
