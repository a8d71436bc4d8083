"""What the worlds of a run say of themselves: signals, rewards, rules and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.agents.agent import prompt_context
from actors.config.schema import Config
from actors.engines.engine import Situation
from actors.worlds import look_at
from experience.errors import ConfigError
from experience.signal import SignalKind
from experience.world import PLAIN_SIGNALS, WorldCard, actions_of


@dataclass(frozen=True)
class Described:
    """What the worlds of a run offer.

    catalogue: the union of their signals. weights and prompt_contexts are by environment id: the
    reward weights in force, and what the policy reads there whatever it observes.
    """

    catalogue: dict[str, SignalKind]
    weights: dict[str, Mapping[str, float]]
    prompt_contexts: dict[str, Situation]


def describe_worlds(config: Config) -> Described:
    """Makes each world of the run once, reads what it offers, and closes it."""
    found = Described(dict(PLAIN_SIGNALS), {}, {})
    for world in config.worlds:
        seconds = config.collecting.step_timeout_seconds
        card, situation = look_at(world.id, world.arguments, seconds, _described)
        found.catalogue.update(card.signals)
        found.weights[world.id] = card.rewards if world.rewards is None else world.rewards
        found.prompt_contexts[world.id] = situation
    return found


def _described(world: Any) -> tuple[WorldCard, Situation]:
    return WorldCard.of(world.unwrapped), prompt_context(world.unwrapped)


def listed_actions(config: Config) -> tuple[str, ...]:
    """The actions of the run's worlds, for policies that choose from one list.

    Raises ConfigError if the worlds have no such list, or different ones.
    """
    seconds = config.collecting.step_timeout_seconds
    lists = {
        look_at(world.id, world.arguments, seconds, lambda made: actions_of(made.unwrapped))
        for world in config.worlds
    }
    if len(lists) != 1 or not (actions := lists.pop()):
        raise ConfigError(
            "policy.engine=table and planning.model.kind=ensemble need one list of actions, and "
            "these worlds have none or several",
            "use worlds with an attribute `actions`, e.g. envs:KeyDoor-v0, one kind a run",
        )
    return actions
