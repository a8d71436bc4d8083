"""Precision and memory of a training step: half precision inside, float32 at the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Precision:
    """How a model is run in a training step.

    kind: float32; bfloat16 (matrix products in half precision, while weights, moments and the head
    stay in float32: log-probabilities in half precision are too coarse for ratios of policies); or
    auto: bfloat16 on a GPU, float32 on a CPU, where half precision is slower. checkpointing:
    activations are computed again in the backward pass instead of kept.
    """

    def __init__(self, kind: str = "auto", checkpointing: bool = False) -> None:
        self._kind, self._checkpointing = kind, checkpointing

    def is_half(self, device: torch.device) -> bool:
        return self._kind == "bfloat16" or (self._kind == "auto" and device.type == "cuda")

    def of(self, model: nn.Module) -> Any:
        """The model as `score` reads it: itself where nothing differs from plain float32."""
        device = next(model.parameters()).device
        if not self._checkpointing and not self.is_half(device):
            return model
        return _Run(model, device, self.is_half(device), self._checkpointing)


class _Run:
    """A model in another precision, or without kept activations."""

    def __init__(self, model: nn.Module, device: torch.device, half: bool, again: bool) -> None:
        self._model, self._device, self._half, self._again = model, device, half, again

    def __call__(self, *given: Tensor) -> Tensor:
        found: Tensor = self._run(self._model, *given)
        return found.float()

    def hidden(self, *given: Tensor) -> Tensor | None:
        read = getattr(self._model, "hidden", None)
        if read is None:
            return None
        found: Tensor | None = self._run(read, *given)
        return None if found is None else found.float()

    def logits(self, hidden: Tensor) -> Tensor:
        found: Tensor = self._model.logits(hidden)  # type: ignore[operator]
        return found

    def _run(self, function: Callable[..., Any], *given: Tensor) -> Any:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            if not (self._again and torch.is_grad_enabled()):
                return function(*given)
            with _BlocksAgain(self._model):
                return function(*given)


class _BlocksAgain:
    """Within it, each block of a stack of layers keeps only what it was given."""

    def __init__(self, model: nn.Module) -> None:
        self._blocks = [block for stack in _stacks(model) for block in stack]
        # Whoever replaced a block's own forward before gets it back.
        self._before = [block.__dict__.get("forward") for block in self._blocks]

    def __enter__(self) -> None:
        for block in self._blocks:
            block.__dict__["forward"] = _again(block.forward)

    def __exit__(self, *failure: object) -> None:
        for block, before in zip(self._blocks, self._before, strict=True):
            del block.__dict__["forward"]
            if before is not None:
                block.__dict__["forward"] = before


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*given: Any, **named: Any) -> Any:
        return checkpoint(forward, *given, use_reentrant=False, **named)

    return run


def _stacks(model: nn.Module) -> list[nn.ModuleList]:
    """The stacks of blocks in a model: its outermost lists of modules."""
    found: list[nn.ModuleList] = []
    for child in model.children():
        found += [child] if isinstance(child, nn.ModuleList) else _stacks(child)
    return found
