"""What the worlds of a run say of themselves: signals, rewards, rules and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.agents.agent import prompt_context
from actors.agents.players import check_players
from actors.collecting.hosts.look import look_at
from actors.config.schema import Config
from actors.engines.engine import Situation
from actors.making import reward_function
from experience.errors import ConfigError
from experience.preferences.naming import versioned
from experience.reward import RewardFunction, RewardModel
from experience.signal import SignalKind
from experience.world import PLAIN_SIGNALS, WorldCard


@dataclass(frozen=True)
class Described:
    """What the worlds of a run offer.

    catalogue: the union of their signals. The others are by environment id. weights: the reward
    weights in force. prompt_contexts: what the policy reads there whatever it observes.
    segment_turns: turns of a segment where the world is endless, else 0. functions: of the worlds
    whose reward is code of their own. deadlines: seconds, of the worlds that set their own.
    with_pictures: the ids of the worlds that say that they give pictures. shared: the cards of
    the worlds with several agents.
    """

    catalogue: dict[str, SignalKind] = field(default_factory=lambda: dict(PLAIN_SIGNALS))
    weights: dict[str, Mapping[str, float]] = field(default_factory=dict)
    prompt_contexts: dict[str, Situation] = field(default_factory=dict)
    segment_turns: dict[str, int] = field(default_factory=dict)
    functions: dict[str, RewardFunction] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    with_pictures: list[str] = field(default_factory=list)
    shared: dict[str, WorldCard] = field(default_factory=dict)

    @property
    def rewards(self) -> RewardModel:
        return RewardModel(self.weights, self.functions)


def describe_worlds(config: Config) -> Described:
    """Makes each world of the run once, reads what it offers, and closes it."""
    found = Described()
    for world in config.worlds:
        seconds = config.collecting.step_timeout_seconds
        seen = look_at(world, seconds)
        if config.agents and not seen.card.runs_programs:
            raise ConfigError(
                f"agents: {world.id} gives a program no place to act in: it has no run_program",
                "choose a world that has, such as envs:Repo-v0, or leave `agents` out",
            )
        found.catalogue.update(seen.card.signals)
        weights = seen.card.rewards if world.rewards is None else world.rewards
        found.weights[world.id] = versioned(weights)
        if seen.card.deadline_seconds is not None:
            found.deadlines[world.id] = seen.card.deadline_seconds
        if seen.card.reward_source:
            found.functions[world.id] = reward_function(world.id, seen.card.reward_source)
        found.prompt_contexts[world.id] = prompt_context(seen.view, seen.card.tools)
        found.segment_turns[world.id] = world.segment_turns or seen.card.segment_turns
        if seen.card.gives_images:
            found.with_pictures.append(world.id)
        if seen.card.agents:
            _check_shared(config, world.id, seen.card)
            found.shared[world.id] = seen.card
    return found


def _check_shared(config: Config, env_id: str, card: WorldCard) -> None:
    """Raises ConfigError for what cannot be done where an agent is one of several."""
    check_players(env_id, card)
    planning = config.planning
    for key, wants in (
        ("planning.options.skills", planning.options.skills > 0),
        ("planning.lookahead.candidates", planning.lookahead.candidates > 0),
    ):
        if wants:
            raise ConfigError(
                f"{env_id}: {key} and several agents exclude each other: what an action leads to "
                "depends on what the others do next",
                f"set {key}=0",
            )


def listed_actions(config: Config) -> tuple[str, ...]:
    """The actions of the run's worlds, for policies that choose from one list.

    Raises ConfigError if the worlds have no such list, or different ones.
    """
    seconds = config.collecting.step_timeout_seconds
    lists = {look_at(world, seconds).view.actions for world in config.worlds}
    if len(lists) != 1 or not (actions := lists.pop()):
        raise ConfigError(
            "policy.engine=table and planning.model.kind=ensemble need one list of actions, and "
            "these worlds have none or several",
            "use worlds with an attribute `actions`, e.g. envs:KeyDoor-v0, one kind a run",
        )
    return actions
