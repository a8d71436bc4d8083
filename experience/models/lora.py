"""Low-rank adapters: what is learned is a small change of every linear layer of a frozen model.

Hu et al. 2021 (arXiv 2106.09685): h = W x + (α / r) B A x, with B = 0 before the first update. The
files are those of the package peft, so that every server that takes adapters reads them.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from experience.errors import ConfigError
from experience.models.weights import ADAPTERS, Weights, pack
from experience.text.strict_json import dumps

_PEFT = "base_model.model."
"""What peft writes before the name of each tensor."""
_OURS = "lm."
"""What stands there in our names: the model is a part of a `CausalModel`."""


class LowRank(nn.Module):
    """A frozen linear layer and its change of rank r: A float32 [r, in], B float32 [out, r]."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        # A alone has random numbers, from a seed: every process begins with the same adapter
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(base.in_features)
        first = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        where = base.weight.device
        self.lora_A = nn.Parameter(first.to(where))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=where))

    def forward(self, x: Tensor) -> Tensor:
        change = x.to(self.lora_A.dtype) @ self.lora_A.T @ self.lora_B.T
        known: Tensor = self.base(x)
        return known + (self.scale * change).to(known.dtype)


def adapt(model: nn.Module, rank: int, alpha: float) -> list[str]:
    """Freezes `model` and gives each linear layer of its blocks an adapter; returns their names.

    Raises ConfigError if the model has no such layer.
    """
    model.requires_grad_(False)
    layers = {name: layer for name, layer in model.named_modules() if _is_adapted(name, layer)}
    if not layers:
        raise ConfigError(
            "policy.arguments.lora_rank: this model has no linear layer that an adapter could change",
            "set lora_rank: 0, which trains the whole model",
        )
    for seed, (name, layer) in enumerate(layers.items()):
        parent, _, own = name.rpartition(".")
        assert isinstance(layer, nn.Linear)
        setattr(model.get_submodule(parent), own, LowRank(layer, rank, alpha, seed))
    return list(layers)


def _is_adapted(name: str, layer: nn.Module) -> bool:
    # the output layer is often the embedding itself, and servers keep it as it is
    return isinstance(layer, nn.Linear) and not name.endswith("lm_head")


def write_adapter(weights: Weights, folder: Path, alpha: float) -> None:
    """Writes one version of a policy as peft does: `adapter_model.safetensors` and
    `adapter_config.json`.

    Raises WeightsError if its bytes are damaged, ConfigError if they are a whole model.
    """
    tensors = weights.tensors()
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(ADAPTERS[0])}
    if len(ranks) != 1 or not all(name.endswith(ADAPTERS) for name in tensors):
        raise ConfigError(
            f"version {weights.version} is a whole model, and no adapter",
            "set policy.arguments.lora_rank=16",
        )
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{_PEFT}{name.removeprefix(_OURS)}.weight": t for name, t in tensors.items()}
    modules = sorted({name.split(".")[-2] for name in tensors})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": ranks.pop(),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
    }
    (folder / "adapter_config.json").write_text(dumps(config, indent=1))
    # weights last: a folder with weights is a whole adapter
    (folder / "adapter_model.safetensors").write_bytes(pack(named))
