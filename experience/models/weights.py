"""Weights as bytes: safetensors with a version and a hash, refused if anything does not fit."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from experience.errors import WeightsError

ADAPTERS = (".lora_A", ".lora_B")
"""How the names of an adapter's tensors end."""


@dataclass(frozen=True)
class Weights:
    """The parameters of one version of a model, as safetensors bytes. `sha256` is of `data`."""

    version: int
    data: bytes
    sha256: str

    @classmethod
    def read(cls, version: int, data: bytes) -> Weights:
        return cls(version, data, hashlib.sha256(data).hexdigest())

    @classmethod
    def of(cls, model: nn.Module, version: int) -> Weights:
        return cls.read(version, pack(_own_tensors(model)))

    def as_version(self, version: int) -> Weights:
        """The same parameters under another version number."""
        return self if version == self.version else replace(self, version=version)

    def put_into(self, model: nn.Module) -> None:
        """Copies the weights into `model`.

        Raises WeightsError if a byte, a name, a shape or a type differs.
        """
        expected = _own_tensors(model)
        tensors = self.tensors()
        if tensors.keys() != expected.keys():
            differing = sorted(tensors.keys() ^ expected.keys())[:3]
            raise WeightsError(
                f"version {self.version}: tensors {differing} differ",
                "the weights belong to another model; check the policy's shape",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
                    raise WeightsError(
                        f"version {self.version}: {name} is {tuple(tensor.shape)} {tensor.dtype}, "
                        f"the model has {tuple(expected[name].shape)} {expected[name].dtype}",
                        "the weights belong to another model; check the policy's shape",
                    )
                expected[name].copy_(tensor)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name. Raises WeightsError if the bytes are damaged."""
        # Checked at every read: a damaged weight would act without an error.
        if hashlib.sha256(self.data).hexdigest() != self.sha256:
            raise WeightsError(
                f"version {self.version}: the bytes do not match their SHA-256",
                "push or save it again",
            )
        try:
            return dict(load(self.data))
        except SafetensorError as error:
            raise WeightsError(
                f"version {self.version}: {error}", "the file is not safetensors"
            ) from error


@dataclass(frozen=True)
class PolicyBundle:
    """Everything that a collector needs to act as one version of a policy.

    `options` is the library that the policy was learned with (`Library.dump`), empty for none.
    `planner` holds the weights, by name, of the models that its planner thinks with.
    """

    weights: Weights
    options: bytes = b""
    planner: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.weights.version

    def updated(
        self, weights: Weights, options: bytes, planner: Mapping[str, bytes]
    ) -> PolicyBundle:
        """A bundle of these parts; this very object if nothing differs, so that whoever sends
        bundles can tell that it has sent this one."""
        new = PolicyBundle(weights, options, planner)
        return self if new == self else new


def pack(tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> bytes:
    """Writes tensors as safetensors bytes. about: what the file says of them."""
    # safetensors refuses tensors that are not contiguous, such as transposed views.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, about)


def unpack(data: bytes) -> dict[str, Tensor]:
    """Reads what `pack` wrote."""
    return dict(load(data))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> bytes:
    """Writes the moments and step counts of an optimiser as safetensors bytes."""
    return pack(
        {
            f"{i}.{name}": value
            for i, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
    )


def unpack_optimizer(data: bytes, optimizer: torch.optim.Optimizer) -> None:
    """Restores moments and step counts. It restores no learning rates: each update sets its own."""
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, value in unpack(data).items():
        index, _, key = name.partition(".")
        state[int(index)][key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name; tied weights are one tensor. Of a model with adapters, the adapters:
    everything else in it is the same in all versions."""
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=True))
    adapters = {name: tensor for name, tensor in named.items() if name.endswith(ADAPTERS)}
    return adapters or named
