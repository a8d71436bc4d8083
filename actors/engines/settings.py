"""The settings that an engine is made from: the section `policy` of a configuration has them all.

This room does not import the configuration: the configuration reads the names of the engines here.
Settings of one engine alone are the mapping `policy.arguments`, which a dataclass here checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Protocol

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from experience.errors import ConfigError
from experience.text.near import did_you_mean

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class ServiceArguments:
    """Where the engine is. placement: `inside` is one in every collector; `node` is one for all
    collectors of a node, a Ray actor that takes `cpus` and `gpus` of it."""

    placement: Literal["inside", "node"] = "inside"
    cpus: Annotated[float, Field(ge=0, le=1024)] = 1.0
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0.0


@dataclass(frozen=True, config=_STRICT)
class HuggingFaceArguments(ServiceArguments):
    """device: where the model is; auto is a GPU if there is one. dtype: of its numbers; auto is
    bfloat16 on a GPU and float32 elsewhere. lora_rank: 0 trains the whole model, else a low-rank
    adapter of it, which is scaled by lora_alpha / lora_rank. prefix_mb: megabytes for the caches of
    conversations between their turns; 0 keeps none."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    lora_rank: Annotated[int, Field(ge=0, le=1024)] = 0
    lora_alpha: Annotated[float, Field(gt=0, le=4096)] = 32.0
    prefix_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 512


@dataclass(frozen=True, config=_STRICT)
class VllmArguments(HuggingFaceArguments):
    """The model that is trained is in this process (device, dtype); the server has its own.

    server: the program `vllm`; empty is the one of `./xp setup vllm`, or of the PATH. port: 0 is a
    free one. served_dtype: of the server's numbers. start_seconds: how long it may take to load.
    adapters: versions that it keeps side by side. stream: answers come token by token, so that the
    time of the first is known. flags: further arguments of `vllm serve`.
    With policy.base_url a server is used that runs already, and shares a disk with us.
    """

    lora_rank: Annotated[int, Field(ge=0, le=1024)] = 16
    server: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    served_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    start_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    adapters: Annotated[int, Field(ge=2, le=256)] = 4
    cache_gb: Annotated[int, Field(ge=1, le=4096)] = 1
    stream: bool = False
    flags: tuple[str, ...] = ()


ARGUMENTS: Mapping[str, type[ServiceArguments]] = {
    "hugging_face": HuggingFaceArguments,
    "small": ServiceArguments,
    "vllm": VllmArguments,
}
"""What `policy.arguments` may hold, by the name of the engine; other bundled engines take none."""


def arguments_of(policy: PolicySettings) -> Any:
    """`policy.arguments` as the engine's own dataclass. Raises ConfigError for what it has not."""
    where = f"{policy.place('arguments')}: policy.arguments"
    kind = ARGUMENTS.get(policy.engine)
    if kind is None:
        # an engine of somebody else reads its own from `policy.arguments`
        if policy.arguments and ":" not in policy.engine:
            raise ConfigError(f"{where}: the engine {policy.engine} takes none", "leave it out")
        return ServiceArguments()
    try:
        # a configuration has lists where the dataclass has tuples
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in policy.arguments.items()
        }
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        known = [field.name for field in fields(kind)]
        if name not in known:
            hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
            raise ConfigError(f"{where}.{name}: {policy.engine} knows none", hint) from error
        raise ConfigError(
            f"{where}.{name}: {first['msg']}, not {first['input']!r}", "see docs/servers.md"
        ) from error


class PolicySettings(Protocol):
    """What an engine may read. `./xp config explain policy` tells what each value means."""

    @property
    def engine(self) -> str: ...

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    @property
    def api_key_env(self) -> str: ...

    @property
    def learns(self) -> bool: ...

    @property
    def sees(self) -> bool: ...

    @property
    def pixels(self) -> int: ...

    @property
    def timeout_seconds(self) -> float: ...

    @property
    def retries(self) -> int: ...

    @property
    def listed(self) -> bool: ...

    @property
    def tools(self) -> str: ...

    @property
    def epsilon(self) -> float: ...

    @property
    def arguments(self) -> Mapping[str, Any]: ...

    def place(self, name: str) -> str:
        """The file and line, or the override, that set a key; for error messages."""
