"""Configuration: one schema, read from YAML and `key=value`, with every mistake found at once and placed.

Order: defaults < each file in turn < each override in turn. `a.b=c` sets, `a.b+=[x]` appends,
`a.b=null` clears, `worlds.0.groups=4` reaches into the first item of a list. No key is ignored, and
secrets are named and never written. Reading a configuration imports nothing by name; a run imports
its worlds, and its objective and monitors if those are from elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)

from actors.config.reader import (
    Node,
    Problems,
    check_secrets,
    merge,
    plain,
    read_file,
    read_node,
    read_override,
    write,
)
from actors.config.words import check_keys, explain_error
from experience.errors import ConfigError
from experience.learning.learner import LearnerSettings
from experience.shards.redaction.redact import name_secrets

HIDDEN, PASSWORD = "***", "XP_URL_PASSWORD"
"""What stands for the password in copies of policy.base_url, and the environment variable that holds it then."""


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def absolute(path: str | Path) -> Path:
    """`path` from the root, `~` written out: it goes on to mean the same when a world changes to another folder.

    Raises ConfigError where it leads nowhere.
    """
    try:
        return Path(path).expanduser().absolute()
    except (
        RuntimeError,
        OSError,
        ValueError,
    ) as error:  # no such user; the folder that we are in is gone
        raise ConfigError(f"{path}: {error}", "give a path that begins with '/'") from error


def _at_home(path: str | Path) -> Path:
    """`path` as it was given, for messages, but for a `~` at its beginning."""
    return absolute(path) if str(path).startswith("~") else Path(path)


def _here(path: str) -> str:
    try:
        return path if not path or _ADDRESS.match(path) else str(absolute(path))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _model_here(model: str, info: ValidationInfo) -> str:
    """A Hugging Face model's folder or file as a place on this machine; a name stays a name."""
    is_path = info.data.get("engine") == "hugging_face" and (
        model.startswith("~") or (model and Path(model).exists())
    )
    return _here(model) if is_path else model


PathText = Annotated[str, AfterValidator(_here)]


SEEDS = 2**31
"""Seeds are below this: what NumPy, PyTorch, Gymnasium and the worlds behind them all take."""


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def place(self, name: str) -> str:
        """Which file:line or override set the key; for messages."""
        return self._places.get(name, "the default")


class Budget(_Section):
    """When the run ends: whichever comes first."""

    updates: int = Field(40, ge=0, description="learner updates")
    minutes: float | None = Field(
        None,
        gt=0,
        description="wall time of collecting and learning, in minutes, or null "
        "for no limit; with one, no run repeats another exactly",
    )
    phase_minutes: float = Field(
        15.0,
        gt=0,
        description="wall time of each other phase (demonstrations and baseline, "
        "imitation, world model, final evaluation); what is missing "
        "then is left out, and said",
    )
    steps: int | None = Field(
        None, ge=1, description="real training steps taken, or null for no limit"
    )


class World(_Section):
    id: str = Field(
        description="a Gymnasium id, e.g. envs:Reactor-v0; a stranger's package works the same way"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="given to the environment's constructor: texts, numbers, lists and mappings, "
        "e.g. {screenshots: true}",
    )
    groups: int = Field(2, ge=0, le=10_000, description="groups of this world in every update")
    demonstrations: int = Field(
        100, ge=0, le=1_000_000, description="episodes of the world's scripted expert, stored once"
    )
    rewards: dict[str, Annotated[float, Field(ge=-1e9, le=1e9)]] | None = Field(
        None, description="weights of signals; null takes the world's own"
    )


class Policy(_Section):
    engine: Literal["small", "hugging_face", "openai", "table"] = Field(
        "small", description="who runs the model"
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
    model: Annotated[str, AfterValidator(_model_here)] = Field(
        "", description="hugging_face: a folder, a .gguf file, or smollm2; openai: the model's name"
    )
    base_url: str = Field("", description="openai: the server, e.g. http://127.0.0.1:8000/v1")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="openai: NAME of the environment variable with the key"
    )
    timeout_seconds: float = Field(120.0, gt=0, le=86_400, description="openai: for one request")
    retries: int = Field(4, ge=0, le=20, description="openai: further tries after a failed request")
    listed: bool = Field(
        False,
        description="small, hugging_face: where a world lists its actions, nothing else "
        "is ever written",
    )
    epsilon: float = Field(
        0.1, ge=0, le=1, description="table: share of training actions taken at random"
    )
    learns: bool = Field(True, description="whether the learner updates this policy")


class Collecting(_Section):
    slots: int = Field(16, ge=1, le=4096, description="environments that one collector keeps going")
    group_size: int = Field(
        8, ge=2, le=1024, description="episodes of the same task and start: a group baseline"
    )
    step_timeout_seconds: float = Field(
        60.0, gt=0, le=86_400, description="a slower environment step ends its episode: timeout"
    )
    discount: float = Field(
        1.0, gt=0, le=1, description="γ after a step that did not end the world"
    )
    durability: Literal["sync", "group", "os"] = Field(
        "group", description="when a step is acknowledged"
    )
    commit_seconds: float = Field(
        0.05, gt=0, le=10, description="group: the longest wait for an acknowledgement"
    )
    seal_bytes: int = Field(
        64 << 20, ge=1 << 16, le=1 << 30, description="a segment of so many bytes is sealed"
    )
    seal_seconds: float = Field(
        600.0,
        gt=0,
        le=2_592_000,
        description="a segment as old as this is sealed, whatever it holds",
    )


class SandboxSection(_Section):
    min_tier: Literal["none", "landlock", "namespaces", "gvisor"] = Field(
        "namespaces",
        description="the weakest place that agent code may run in; what offers less is refused; "
        "none keeps nothing in, and needs --i-trust-this-code",
    )


_LEARNER = LearnerSettings()
"""Owns the defaults of `learning`: a test that makes a learner and a run must not differ."""


class Learning(_Section):
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
    objective: str = Field(
        _LEARNER.objective,
        min_length=1,
        description="what an update minimises: grpo, ppo_kl, sft, or your own as package:Class",
    )
    clip_below: float = Field(_LEARNER.clip_below, ge=0, lt=1, description="ratio clip, lower side")
    clip_above: float = Field(
        _LEARNER.clip_above, ge=0, le=1000, description="ratio clip, upper side"
    )
    kl_weight: float = Field(
        _LEARNER.kl_weight,
        ge=0,
        le=1000,
        description="ppo_kl: weight of the divergence from the policy that imitation left",
    )
    negative_weight: float = Field(
        _LEARNER.negative_weight, ge=0, le=1, description="weight of advantages below zero"
    )
    advantage: Literal["group", "state", "turn"] = Field(
        _LEARNER.advantage,
        description="group: an episode against its group; state: also a turn against the group's turns in "
        "that state (GiGPO); turn: a turn against a learned value function",
    )
    value_rate: float = Field(
        1e-3, gt=0, lt=1, description="turn: learning rate of the value function"
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


class Planning(_Section):
    enabled: bool = Field(True, description="learn a world model and imagine with it (Dyna)")
    model: Literal["language", "ensemble"] = Field(
        "language",
        description="of the world: text as it comes, or an "
        "ensemble of networks for screens of one form with numbers",
    )
    layers: int = Field(2, ge=1, le=64, description="language: blocks of the world model")
    width: int = Field(96, ge=16, le=4096, description="width of the world model")
    fit_steps: int = Field(
        6, ge=0, le=1_000_000, description="optimiser steps of the world model per update"
    )
    every: int = Field(2, ge=1, le=1_000_000, description="imagine at every n-th update")
    retrieve: int = Field(
        0,
        ge=0,
        le=8,
        description="similar real transitions that the world model reads before it "
        "predicts; each makes what it reads as much longer",
    )
    first_steps: int = Field(
        150,
        ge=0,
        le=1_000_000,
        description="optimiser steps of the world model on the demonstrations",
    )
    trusted_accuracy: float = Field(
        0.9,
        ge=0,
        le=1,
        description="gate: predictions are believed up to the uncertainty "
        "at which this share of held-out ones is right; 0: "
        "no gate, all are believed",
    )
    groups: int = Field(6, ge=0, le=10_000, description="imagined groups each time")
    horizon: int = Field(
        3, ge=1, le=32, description="longest imagined branch, in turns; errors add up along it"
    )
    roots: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="sweeps: real steps from which the model's reach is laid out "
        "and solved at each update; 0 is off",
    )
    states: int = Field(
        64, ge=2, le=1_000_000, description="sweeps, gumbel: states laid out for each"
    )
    updates: int = Field(
        10, ge=0, le=1_000_000, description="table: planning updates after each real step (Dyna-Q)"
    )
    curiosity: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="table: κ of Dyna-Q+, what an untried action promises in planning",
    )
    candidates: int = Field(
        0,
        ge=0,
        le=64,
        description="lookahead: actions tried in thought each turn (sweeps: where "
        "the world lists none); 0 is off",
    )
    search: Literal["rollouts", "sweeps", "gumbel", "campaign"] = Field(
        "rollouts",
        description="lookahead: follow the policy, lay out all that can be done, grow a tree; or plan a "
        "laboratory's next experiment",
    )
    rollouts: int = Field(
        1, ge=1, le=64, description="lookahead: thoughts of each action; their mean speaks for it"
    )
    thought: Literal["model", "fork"] = Field(
        "model",
        description="lookahead in the world model, or in forks of the worlds that can go back",
    )
    options: PathText = Field(
        "", description="a library of options written by hand (JSON): subgoals, programs"
    )
    skills: int = Field(
        0,
        ge=0,
        le=64,
        description="programs kept as options: found in successes, replayed before use",
    )
    weight: float = Field(
        0.5, ge=0, le=1, description="learning rate of imagined against real updates"
    )


class Evaluation(_Section):
    episodes: int = Field(
        32, ge=0, le=100_000, description="held-out episodes per world and evaluation"
    )
    final_episodes: int = Field(
        64, ge=0, le=100_000, description="held-out episodes per world, first and last evaluation"
    )
    every: int = Field(10, ge=1, le=1_000_000, description="evaluate each n-th policy version")
    temperature: float = Field(
        0.0, ge=0, le=10, description="sampling temperature when evaluating; 0 is greedy"
    )


class Config(_Section):
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
    sandbox: SandboxSection = SandboxSection()
    collecting: Collecting = Collecting()
    learning: Learning = Learning()
    planning: Planning = Planning()
    evaluation: Evaluation = Evaluation()
    monitors: list[str] = Field(
        ["flat_groups", "policy_drift", "failing_worlds", "skipped_updates", "value_collapse"],
        max_length=100,
        description="who watches the metrics: names, or package.module:function",
    )


def load(
    files: Sequence[str | Path], overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, str]]:
    """The configuration, and per key set which file:line or override set it.

    Raises ConfigError naming every problem found, each with its place and, where one is close, a suggestion.
    """
    problems = Problems()
    merged = Node({}, "defaults")
    for file in files:
        node = read_file(_at_home(file), problems)
        if node is not None:
            merge(merged, node, problems)
    for text in overrides:
        node = read_override(text, problems)
        if node is not None:
            _write_out_lists(merged, node)
            merge(merged, node, problems)
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
        _note_places(config, merged)
        _check_sense(config, merged, problems)
    if problems.found or config is None:
        raise problems.error()
    name_secrets(names_of_secrets(config.model_dump()))
    return _without_password(config), dict(_origins(merged))


def names_of_secrets(value: Any) -> Iterator[str]:
    """The environment variables that a configuration names: the value of every key that ends in `_env`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.endswith("_env") and isinstance(inner, str):
                yield inner
            yield from names_of_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_of_secrets(inner)


def _wrong_url(url: str) -> str:
    """What is wrong with a server's address, without a word of it, for it may hold a secret; empty if nothing is."""
    try:
        split = urlsplit(url)
        user, password, _ = split.username, split.password, split.port
    except ValueError:
        return "not an address"
    if split.scheme not in ("http", "https") or not split.hostname or "\\" in url:
        return "not an address of http or https"
    if user and not password:
        return "it names a user without a password: a token does not belong into an address"
    if (
        split.fragment
        or ";" in url
        or any(name != "api-version" for name, _ in parse_qsl(split.query, True))
    ):
        return "it has more than a host and a path (and api-version): a key does not belong into an address"
    if "@" in split.path:
        return "an @ in its path: a password stands before the host, or nowhere"
    return ""


def _without_password(config: Config) -> Config:
    """`config`, the password of its base_url moved into this process's environment: no copy of it holds one."""
    split = urlsplit(config.policy.base_url)  # _check_sense has seen that it can be split
    _, at, host = split.netloc.rpartition("@")
    password = unquote(split.password or "")
    if not at or password in ("", HIDDEN):
        return config
    os.environ[PASSWORD] = password
    name_secrets([PASSWORD])
    shown = urlunsplit(split._replace(netloc=f"{split.username}:{HIDDEN}@{host}"))
    return config.model_copy(
        update={"policy": config.policy.model_copy(update={"base_url": shown})}
    )


def dump(config: Config) -> str:
    """The resolved configuration as YAML that `xp run -c` takes."""
    return write(config.model_dump())


def _write_out_lists(merged: Node, override: Node) -> None:
    """Puts a default's list into `merged` where `override` reaches into one that no file has set."""
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


def _check_sense(config: Config, merged: Node, problems: Problems) -> None:
    """What no single key can tell."""
    policy = config.policy
    place = merged.value["policy"].place if "policy" in merged.value else "defaults"
    if _ADDRESS.match(config.runs_dir):
        where = merged.value["runs_dir"].place if "runs_dir" in merged.value else "defaults"
        problems.add(
            where,
            f"runs_dir: {config.runs_dir} is an address, and runs are written to a local folder",
            "name a folder; what is sealed can be sent on: experience.shards.storage.remote.mirror",
        )
    if policy.engine == "small" and policy.width % (2 * policy.heads):
        problems.add(
            place,
            f"policy.width: {policy.width} is not a multiple of 2 x heads = {2 * policy.heads}",
        )
    if policy.max_tokens >= policy.context:
        problems.add(
            place,
            f"policy.max_tokens: {policy.max_tokens} leaves no room for a prompt in a context of "
            f"{policy.context}",
            "raise policy.context or lower policy.max_tokens",
        )
    if policy.engine in ("small", "hugging_face") and policy.learns and policy.temperature == 0:
        problems.add(
            place,
            "policy.temperature: 0 is greedy, and a greedy action is no sample to learn from",
            "set policy.temperature=1, or policy.learns=false; evaluation.temperature is another",
        )
    if policy.engine == "openai" and not policy.base_url:
        problems.add(
            place,
            "policy.base_url: the openai engine needs its server",
            "set policy.base_url=http://127.0.0.1:8000/v1",
        )
    if policy.engine in ("hugging_face", "openai") and not policy.model:
        problems.add(
            place,
            f"policy.model: the {policy.engine} engine needs a model",
            "set policy.model=NAME",
        )
    if policy.base_url and (why := _wrong_url(policy.base_url)):
        problems.add(
            place,
            f"policy.base_url: {why}",
            "write http://HOST:PORT/v1, and name the key's variable in policy.api_key_env",
        )
    if f":{HIDDEN}@" in policy.base_url and not os.environ.get(PASSWORD):
        problems.add(
            place,
            "policy.base_url: its password is not kept in files, and is not set here",
            f"set the environment variable {PASSWORD}",
        )
    if policy.engine == "openai" and policy.learns:
        problems.add(
            place,
            "policy.learns: a server's weights cannot be updated from here",
            "set policy.learns=false",
        )
    for i, world in enumerate(config.worlds):
        if world.id in [w.id for w in config.worlds[:i]]:
            problems.add(
                place, f"worlds[{i}].id: {world.id} is listed twice", "raise its groups instead"
            )


def _note_places(section: _Section, told: Node) -> None:
    """Tells the section, and those within it, where each of their keys was set."""
    for name, child in told.value.items():
        section._places[name] = child.place
        inner = getattr(section, name)
        pairs = (
            zip(inner, child.value, strict=True) if isinstance(inner, list) else [(inner, child)]
        )
        for part, node in pairs:
            if isinstance(part, _Section):
                _note_places(part, node)


def _origins(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node.value, dict) and node.value:
        for key, child in node.value.items():
            yield from _origins(child, f"{path}.{key}" if path else key)
    elif path:
        yield path, node.place
