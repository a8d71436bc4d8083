"""The configuration's schema, read from YAML and `key=value`; all mistakes are found at once.

Order: defaults < each file in turn < each override in turn. `a.b=c` sets, `a.b+=[x]` appends,
`a.b=null` clears, `worlds.0.groups=4` reaches into the first item of a list. No key is ignored, and
a secret is given by the name of an environment variable, never by its value. Reading a
configuration imports nothing by name; a run imports its worlds, and its objective and monitors if
those are from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from actors.config.acting import (
    AgentSection,
    Budget,
    Collecting,
    Evaluation,
    HarnessItem,
    SandboxSection,
    World,
    with_wording,
)
from actors.config.layers import merge, note_places, origins
from actors.config.moved import report_moved
from actors.config.planning import Planning
from actors.config.reader import check_secrets, read_file, read_override
from actors.config.section import SEEDS, PathText, ResolvedText, Section, at_home, model_here
from actors.config.sense import check_sense, names_of_secrets, without_password
from actors.config.words import check_keys, explain_error
from actors.engines.registry import OUTSIDE
from actors.engines.registry import names as engine_names
from experience.command.plain_yaml import Node, Problems, plain, read_node, write
from experience.errors import ConfigError
from experience.learning.learner import LearnerSettings
from experience.learning.recipes.table import recipe
from experience.shards.redaction.redact import name_secrets


def _engine(name: str) -> str:
    """The name of a bundled engine, or of one outside, which only a run imports."""
    if name not in engine_names() and not OUTSIDE.fullmatch(name):
        known = ", ".join(f"'{known}'" for known in engine_names())
        raise PydanticCustomError("literal_error", "unknown engine", {"expected": known})
    return name


class Policy(Section):
    engine: Annotated[str, AfterValidator(_engine)] = Field(
        "small",
        description="who runs the model",
        examples=[*engine_names(), "my_package:MyEngine"],
    )
    layers: int = Field(3, ge=1, le=64, description="small: transformer blocks")
    width: int = Field(
        128, ge=16, le=4096, description="small: model width, a multiple of 2 x heads"
    )
    heads: int = Field(8, ge=1, le=64, description="small: attention heads")
    context: int = Field(
        512, ge=32, le=131072, description="longest prompt and action together, in tokens"
    )
    max_tokens: int = Field(64, ge=1, le=8192, description="longest action, in tokens")
    temperature: float = Field(
        1.0, ge=0, le=10, description="sampling temperature of training collectors"
    )
    model: Annotated[str, AfterValidator(model_here)] = Field(
        "",
        description="hugging_face, vllm: a folder, a .gguf file, or smollm2; openai: the model's "
        "name; small: weights to begin with, as ./xp pretrain makes them",
    )
    base_url: str = Field(
        "",
        description="openai, vllm: the server, e.g. http://127.0.0.1:8000/v1; vllm starts one of its own if empty",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="openai: NAME of the environment variable with the key"
    )
    sees: bool = Field(
        False, description="openai: whether the server's model reads pictures; it is tried at start"
    )
    pixels: int = Field(
        0,
        ge=0,
        le=512,
        multiple_of=8,
        description="small: side of the picture that it sees, which is read as 8 x 8 patches; "
        "0 is a model of text alone",
    )
    timeout_seconds: float = Field(120.0, gt=0, le=86_400, description="openai: for one request")
    retries: int = Field(4, ge=0, le=20, description="openai: further tries after a failed request")
    listed: bool = Field(
        False,
        description="small, hugging_face: where a world lists its actions, nothing else "
        "is ever written",
    )
    tools: Literal["auto", "template", "text", "none"] = Field(
        "auto",
        description="hugging_face, vllm, openai: how a model is told of a world's tools: by its own "
        "template, in words, or not; auto: by the template where that has a place for them",
    )
    epsilon: float = Field(
        0.1, ge=0, le=1, description="table: share of training actions taken at random"
    )
    learns: bool = Field(True, description="whether the learner updates this policy")
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="the engine's own settings: hugging_face and vllm take device, dtype, "
        "lora_rank, placement and others; docs/servers.md lists them",
        examples=["{lora_rank: 16}"],
    )


def _recipe(given: str | dict[str, Any]) -> str | dict[str, Any]:
    """The recipe as it was given. A loss from elsewhere is only imported by a run."""
    try:
        recipe(given)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return given


_LEARNER = LearnerSettings()
"""Owns the defaults of `learning`: a test that makes a learner and a run must not differ."""


class Learning(Section):
    imitation_passes: float = Field(
        20.0, ge=0, le=10_000, description="passes over the demonstrations before acting"
    )
    imitation_rate: float = Field(
        _LEARNER.imitation_rate, gt=0, lt=1, description="its peak learning rate"
    )
    imitation_weight: float = Field(
        _LEARNER.imitation_weight,
        ge=0,
        le=1000,
        description="c of L = L_PG + c L_NLL(demonstrations)",
    )
    imitation_ratio: float = Field(
        _LEARNER.imitation_ratio,
        ge=0,
        le=1000,
        description="turns imitated for each turn of experience learned from",
    )
    observation_weight: float = Field(
        _LEARNER.observation_weight,
        ge=0,
        le=1000,
        description="weight of predicting the demonstrations' observations",
    )
    learning_rate: float = Field(
        _LEARNER.learning_rate, gt=0, lt=1, description="of policy-gradient updates"
    )
    minibatches: int = Field(
        _LEARNER.minibatches, ge=1, le=10_000, description="optimiser steps an update"
    )
    batch_turns: int = Field(
        _LEARNER.batch_turns, ge=1, le=100_000, description="turns per imitation step"
    )
    micro_batch_tokens: int = Field(
        _LEARNER.micro_batch_tokens,
        ge=64,
        le=1 << 26,
        description="tokens that go through the model at once",
    )
    recipe: Annotated[str | dict[str, Any], AfterValidator(_recipe)] = Field(
        "grpo",
        description="the algorithm: a row of ./xp config recipes; {like: ROW, CELL: VALUE} "
        "overrides its cells; or your own loss as package:Class",
        examples=["grpo", "dapo", "{like: gspo, clip_above: 4.0e-4}", "my_losses:MyLoss"],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of matrix products; auto is bfloat16 on a GPU; weights and the head are "
        "float32 in any case",
    )
    checkpointing: bool = Field(
        _LEARNER.checkpointing,
        description="compute activations again in the backward pass: less memory, more time",
    )
    value_rate: float = Field(
        1e-3, gt=0, lt=1, description="of the value function, for recipes that need one"
    )
    step_size: float = Field(0.1, gt=0, le=1, description="table: α of Q-learning")
    max_lag: int = Field(
        2,
        ge=0,
        le=1_000_000,
        description="experience older than this many versions is not learned from",
    )
    threads: int = Field(
        1, ge=1, le=256, description="CPU threads of the learner; imitation uses all cores"
    )


class ExperienceSource(Section):
    """Another run, an imported store or a cold store that is learned from, too."""

    run: ResolvedText = Field(description="its folder, e.g. runs/latest; or a store of shards")
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="of the groups of an update that come from it; ./xp learn takes them relative "
        "to each other",
    )


class Config(Section):
    """Everything a run can be told. Fewer than 100 keys, each with a default."""

    name: str = Field(
        "run", pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="opens the run directory's name"
    )
    seed: int = Field(0, ge=0, lt=SEEDS, description="of tasks, weights and sampling")
    workers: int = Field(
        0, ge=0, le=10000, description="Ray collectors; 0 collects in this process"
    )
    address: str | None = Field(
        None, description="of a Ray cluster; null starts or finds one (RAY_ADDRESS)"
    )
    runs_dir: PathText = Field("runs", description="where run directories go")
    worlds: list[World] = Field(
        [World(id="envs:PythonTask-v0")], min_length=1, description="where agents act"
    )
    budget: Budget = Budget()
    policy: Policy = Policy()
    agent: AgentSection = AgentSection()
    agents: list[HarnessItem] = Field(
        [],
        max_length=16,
        description="programs that act in place of a policy asked turn by turn, each {harness: "
        "mini-swe-agent, smolagents or program, folder, command, environment, readable, seconds, "
        "steps}; groups take turns at them (docs/gateway.md)",
    )
    sandbox: SandboxSection = SandboxSection()
    collecting: Collecting = Collecting()
    learning: Learning = Learning()
    experience: list[ExperienceSource] = Field(
        [], max_length=100, description="other runs and stores that are learned from, too"
    )
    planning: Planning = Planning()
    evaluation: Evaluation = Evaluation()
    monitors: list[str] = Field(
        ["flat_groups", "policy_drift", "engine_mismatch", "failing_worlds", "skipped_updates"],
        max_length=100,
        description="who watches the metrics: names, or package.module:function",
    )


def load(
    files: Sequence[str | Path], overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, str]]:
    """The configuration, and per key set which file:line or override set it.

    Raises ConfigError with every problem found, its place and, if a known name is near, a
    suggestion.
    """
    problems = Problems()
    merged = Node({}, "defaults")
    # Nothing stops at the first mistake: all are told at once, each with its place.
    for file in files:
        node = read_file(at_home(file), problems)
        if node is not None:
            report_moved(node, problems)
            merge(merged, node, problems)
    for text in overrides:
        node = read_override(text, problems)
        if node is not None:
            report_moved(node, problems)
            _write_out_lists(merged, node)
            merge(merged, node, problems)
    # Secrets first: whatever is said afterwards must not quote one.
    check_secrets(merged, problems)
    check_keys(merged, Config, Config, "", problems)
    config = None
    try:
        config = Config.model_validate(plain(merged))
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            if error["type"] != "extra_forbidden":  # reported with a suggestion by check_keys
                explain_error(error, merged, Config, problems)
    if config is not None:
        note_places(config, merged)
        check_sense(config, merged, problems)
    if problems.found or config is None:
        raise problems.error()
    # From here on the values behind these names are redacted, in child processes too.
    name_secrets(names_of_secrets(config.model_dump()))
    worlds = with_wording(config.worlds, config.policy.engine)
    config = config.model_copy(update={"worlds": worlds})
    return without_password(config), dict(origins(merged))


def dump(config: Config) -> str:
    """The resolved configuration as YAML that `xp run -c` takes."""
    return write(config.model_dump())


def _write_out_lists(merged: Node, override: Node) -> None:
    """Puts a default's list into `merged` if `override` reaches into it and no file has set it."""
    for key, node in override.value.items():
        field = Config.model_fields.get(key)
        if (
            key not in merged.value
            and node.is_path
            and field is not None
            and isinstance(field.default, list)
        ):
            items = [section.model_dump(exclude_unset=True) for section in field.default]
            merged.value[key] = read_node(items, "defaults")
