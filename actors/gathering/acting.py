"""Who acts where nothing learns: a script, the configuration's engine, or a checkpoint of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.agents.skills import library_from
from actors.collecting.work import Lane
from actors.config.schema import Config
from actors.config.section import absolute
from actors.engines import scripted
from actors.engines.registry import is_pretrained, make_model
from actors.runs.directory import RunDirectory
from actors.runs.policies import run_of, saved_policy
from actors.runs.trust import read_bounded
from experience.models.weights import PolicyBundle, Weights
from experience.text.strict_json import dumps

ENGINE = "engine"
"""The policy of the configuration as it is, without any training."""
_SCRIPTS: dict[str, Lane] = {"random": "random", "expert": "demonstration"}
_WEIGHTS = ".safetensors"
_OF_NO_MATTER = {"temperature", "learns", "timeout_seconds", "retries", "api_key_env"}
"""Keys of `policy` that do not make it another policy; the temperature is named beside it."""
_SHAPE = ("engine", "model", "layers", "width", "heads", "context", "pixels", "base_url")
"""Keys of `policy` that belong to a checkpoint. The others are how it is sampled."""


@dataclass(frozen=True)
class Acting:
    """A policy that does not change.

    label: what it is called. lane: who answers. config: the configuration with
    this policy in it. bundle: the weights to be sent to the collectors; None where each engine has
    them already, or where a script acts.
    """

    label: str
    lane: Lane
    config: Config
    bundle: PolicyBundle | None = None

    @property
    def version(self) -> int:
        return 0 if self.bundle is None else self.bundle.version

    @property
    def name(self) -> str:
        """The label, and for a model a hash of all that decides what it answers. It names the
        work, so that another policy never gets the results of this one."""
        if self.is_script:
            return self.label
        settings = self.config.policy.model_dump(exclude=_OF_NO_MATTER)
        parts = [dumps(settings, sort_keys=True)]
        if self.bundle is not None:
            parts += [self.bundle.weights.sha256, self.bundle.options.hex()]
        return f"{self.label}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:8]}"

    @property
    def is_script(self) -> bool:
        return self.lane != "train"

    def at(self, temperature: float) -> Config:
        """The configuration of collectors in which this policy alone acts, at `temperature`."""
        policy: dict[str, Any] = {"temperature": temperature, "learns": self.bundle is not None}
        if self.is_script:
            policy |= {"engine": scripted.NAME, "learns": False}
        config = self.config
        updates: dict[str, Any] = {
            "policy": config.policy.model_copy(update=policy),
            # a run shares out exactly the steps that it may learn from; here the caller counts
            "budget": config.budget.model_copy(update={"steps": None}),
        }
        if config.planning.lookahead.search != "campaign":
            # its models of the world and of values are the learner's, and there is none
            lookahead = config.planning.lookahead.model_copy(update={"candidates": 0})
            updates["planning"] = config.planning.model_copy(update={"lookahead": lookahead})
        return config.model_copy(update=updates)


def is_run(policy: str) -> bool:
    """Whether a policy is named by a run: not a script, an engine or a file of weights."""
    return policy not in (ENGINE, *_SCRIPTS) and not policy.endswith(_WEIGHTS)


def acting(policy: str, config: Config) -> Acting:
    """The policy that is called `policy`: random, expert, engine, RUN, RUN@VERSION, or a file of
    weights.

    A run's policy is of the shape that the run gave it; how it is sampled is what `config` sets,
    else as the run did. Raises ConfigError where there is no such policy, run or checkpoint;
    ShardError or WeightsError where its bytes are damaged.
    """
    if policy in _SCRIPTS:
        return Acting(policy, _SCRIPTS[policy], config)
    if policy == ENGINE:
        return _engine(config)
    if policy.endswith(_WEIGHTS):
        return _file(absolute(policy), config)
    return _checkpoint(*run_of(policy), config)


def _engine(config: Config) -> Acting:
    settings = config.policy
    label = f"{settings.engine}-{settings.model.rpartition('/')[2]}".rstrip("-")
    if is_pretrained(settings):
        return Acting(label, "train", config)
    # The seed decides the weights: all collectors must have the same, of one model made here.
    trained = make_model(settings, config.seed)
    assert trained is not None, "an engine that is not pretrained has a model"
    file = config.planning.options.library
    options = library_from(file).dump() if file else b""
    return Acting(label, "train", config, PolicyBundle(Weights.of(trained.model, 0), options))


def _file(path: Path, config: Config) -> Acting:
    weights = Weights.read(0, read_bounded(path))
    return Acting(path.stem, "train", config, PolicyBundle(weights))


def _checkpoint(run: RunDirectory, version: int | None, config: Config) -> Acting:
    config = config.model_copy(update={"policy": _policy_of(run, config)})
    if not config.policy.learns:  # such as a server: its checkpoints hold no weights
        return Acting(run.name, "train", config)
    bundle = saved_policy(run, version)
    return Acting(f"{run.name}@{bundle.version}", "train", config, bundle)


def _policy_of(run: RunDirectory, config: Config) -> Any:
    """The run's section `policy`, sampled as `config` says where it says so."""
    own = run.config().policy
    given = {
        name: getattr(config.policy, name)
        for name in config.policy.model_fields_set
        if name not in _SHAPE and name != "learns"
    }
    return own.model_copy(update=given)


def short(text: str) -> str:
    """A name of a file for any text: its plain characters, and a hash of all of it."""
    plain = "".join(c if c.isalnum() or c in "@-_." else "-" for c in text).strip(".-")[:60]
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
