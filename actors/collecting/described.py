"""What the worlds of a run say of themselves: signals, rewards, rules and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.agents.agent import actions_of, told
from actors.config.schema import Config
from actors.engines.engine import Situation
from actors.worlds import close_worlds, make_world
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
        made = make_world(world.id, world.arguments)
        found.catalogue.update(getattr(made.unwrapped, "signal_catalogue", {}))
        own = getattr(made.unwrapped, "reward_weights", {"env_reward": 1.0})
        found.weights[world.id] = own if world.rewards is None else world.rewards
        found.told[world.id] = told(made.unwrapped)
        close_worlds([made])
    return found


def listed_actions(config: Config) -> tuple[str, ...]:
    """All actions of the run's one world, for policies that choose from a list. Raises ConfigError where there is no
    such list, or more than one."""
    made = [make_world(world.id, world.arguments) for world in config.worlds]
    lists = {actions_of(env.unwrapped) for env in made}
    close_worlds(made)
    if len(lists) != 1 or not (actions := lists.pop()):
        raise ConfigError(
            "policy.engine=table and planning.model=ensemble need one list of actions, and these worlds "
            "have none or several",
            "use worlds with an attribute `actions`, e.g. envs:KeyDoor-v0, one kind a run",
        )
    return actions
