"""What the worlds of a run say of themselves: signals, rewards, rules and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.agents.agent import actions_of, told
from actors.config.schema import Config
from actors.engines.engine import Situation
from actors.worlds import look_at
from experience.errors import ConfigError
from experience.signal import SignalKind


@dataclass(frozen=True)
class Described:
    """The union of the worlds' signal catalogues, and per environment id the reward weights in force and what the
    policy is told there."""

    catalogue: dict[str, SignalKind]
    weights: dict[str, Mapping[str, float]]
    told: dict[str, Situation]


def describe_worlds(config: Config) -> Described:
    found = Described({"env_reward": SignalKind("1", "env_state")}, {}, {})
    for world in config.worlds:
        seconds = config.collecting.step_timeout_seconds
        catalogue, own, situation = look_at(world.id, world.arguments, seconds, _described)
        found.catalogue.update(catalogue)
        found.weights[world.id] = own if world.rewards is None else world.rewards
        found.told[world.id] = situation
    return found


def _described(world: Any) -> tuple[Mapping[str, SignalKind], Mapping[str, float], Situation]:
    """(signal catalogue, reward weights, what the policy is told) of a world, by itself."""
    inner = world.unwrapped
    return (
        getattr(inner, "signal_catalogue", {}),
        getattr(inner, "reward_weights", {"env_reward": 1.0}),
        told(inner),
    )


def listed_actions(config: Config) -> tuple[str, ...]:
    """All actions of the run's one world, for policies that choose from a list. Raises ConfigError where there is no
    such list, or more than one."""
    seconds = config.collecting.step_timeout_seconds
    lists = {
        look_at(world.id, world.arguments, seconds, lambda made: actions_of(made.unwrapped))
        for world in config.worlds
    }
    if len(lists) != 1 or not (actions := lists.pop()):
        raise ConfigError(
            "policy.engine=table and planning.model=ensemble need one list of actions, and these worlds "
            "have none or several",
            "use worlds with an attribute `actions`, e.g. envs:KeyDoor-v0, one kind a run",
        )
    return actions
