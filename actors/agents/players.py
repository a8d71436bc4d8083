"""Who plays the agents of a world with several: the policy, a script, or somebody else.

The world says it by `others` and `others_heldout` (see envs/several/world.py): "policy" plays all
agents; any other name plays all but one, which the task draws; a mapping says it by agent, and
leaves to the policy whom it does not name. Beside "policy", "random" and "expert", a name is a run,
RUN or RUN@VERSION, whose policy stays as it was then; a mapping of settings is an engine, such as
{engine: openai, model: ..., base_url: ...}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experience.errors import ConfigError
from experience.several.agents import POLICY
from experience.text.strict_json import dumps
from experience.world import WorldCard

SCRIPTS = ("random", "expert")
"""Scripts of the world, which play as its own actions at random, and as its expert."""
_DRAW = 0x5EA7
"""Mixed into a task's seed to draw the policy's seat, so that the world's numbers are others."""


def players(card: WorldCard, split: str, seed: int) -> dict[str, Any]:
    """Agent -> who plays it, in the episode of a task."""
    said = card.others
    if split != "train" and card.others_heldout is not None:
        said = card.others_heldout
    if isinstance(said, Mapping):
        return {agent: said.get(agent, POLICY) for agent in card.agents}
    seats = dict.fromkeys(card.agents, said)
    if said != POLICY:
        draw = int(np.random.default_rng([seed, _DRAW]).integers(len(card.agents)))
        seats[card.agents[draw]] = POLICY
    return seats


def name_of(player: Any) -> str:
    """The name of an engine or a run that plays."""
    return player if isinstance(player, str) else dumps(dict(player), sort_keys=True)


def roles(card: WorldCard) -> int:
    """How many agents the policy plays in each training episode: so many groups come of one."""
    return sum(player == POLICY for player in players(card, "train", 0).values()) or 1


def rivals(card: WorldCard) -> dict[str, Any]:
    """Name -> the run or engine, of all that play in a world beside policy and scripts."""
    found = {}
    for said in (card.others, card.others_heldout):
        for player in said.values() if isinstance(said, Mapping) else [said]:
            if player is not None and player != POLICY and not is_script(player):
                found[name_of(player)] = player
    return found


def is_script(player: Any) -> bool:
    return isinstance(player, str) and player in SCRIPTS


def check_players(env_id: str, card: WorldCard) -> None:
    """Raises ConfigError where a world says wrongly who plays its agents."""
    for name, said in (("others", card.others), ("others_heldout", card.others_heldout)):
        for wrong in _wrong(card, said):
            raise ConfigError(
                f"{env_id}: {name}: {wrong}",
                f"write policy, random, expert, RUN or RUN@VERSION, or a mapping by agent, "
                f"e.g. {{{card.agents[0]}: random}}",
            )


def _wrong(card: WorldCard, said: Any) -> Iterator[str]:
    if said is None or isinstance(said, str):
        return
    if not isinstance(said, Mapping):
        yield f"{said!r} names nobody"
        return
    for agent, player in said.items():
        if agent not in card.agents:
            yield f"{agent!r} is no agent of it; there are {', '.join(card.agents)}"
        elif not isinstance(player, str | Mapping):
            yield f"{agent} is played by {player!r}, which names nobody"
    if all(said.get(agent, POLICY) != POLICY for agent in card.agents):
        yield "the policy plays nobody"
