"""Rivals: engines and fixed policies that play agents beside the policy of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from actors.agents.agent import Agent
from actors.agents.players import rivals
from actors.config.schema import Config, Policy
from actors.engines.registry import is_pretrained, make_engine, make_model
from actors.runs.policies import run_of, saved_policy
from experience.errors import ConfigError
from experience.models.weights import PolicyBundle, Weights
from experience.world import WorldCard


def make_rivals(config: Config, shared: Iterable[WorldCard]) -> dict[str, Agent]:
    """By name, an agent for each run or engine that plays in one of the worlds.

    Raises ConfigError for a run or a setting that does not exist.
    """
    found: dict[str, Agent] = {}
    for card in shared:
        for name, player in rivals(card).items():
            if name not in found:
                found[name] = _rival(config, player)
    return found


def _rival(config: Config, player: Any) -> Agent:
    if isinstance(player, Mapping):
        policy = _settings(config, player)
        bundle = None
        if not is_pretrained(policy):
            # without a checkpoint it is the policy untrained, of the same weights everywhere
            trained = make_model(policy, config.seed)
            assert trained is not None, "an engine that is not pretrained has a model"
            bundle = PolicyBundle(Weights.of(trained.model, 0))
    else:
        run, version = run_of(player)
        policy = run.config().policy
        bundle = saved_policy(run, version) if policy.learns else None
    agent = Agent(make_engine(policy, config.seed), policy.temperature)
    if bundle is not None:
        agent.load(bundle)
    return agent


def _settings(config: Config, player: Mapping[str, Any]) -> Policy:
    """The run's section `policy`, with the settings of a rival in it."""
    try:
        return Policy.model_validate(config.policy.model_dump() | dict(player) | {"learns": False})
    except ValidationError as wrong:
        error = wrong.errors(include_url=False)[0]
        key = ".".join(map(str, error["loc"]))
        raise ConfigError(
            f"others: {key}: {error['msg']}",
            "the settings of an engine that plays are those of the section policy: ./xp config",
        ) from wrong
