"""The seats of an episode of several agents: which work each of them has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.agents.players import is_script, name_of, players
from actors.collecting.work import Lane, Work
from experience.several.agents import POLICY
from experience.step import OTHERS
from experience.world import WorldCard

_LANES: dict[str, Lane] = {"random": "random", "expert": "demonstration"}


def works(card: WorldCard, work: Work) -> dict[str, Work]:
    """Agent -> the work of its seat: its share of the episode.

    Agents of the policy are grouped by their role, since each role has another baseline. The rows
    of all others belong to no group, and to the split OTHERS.
    """
    found = {}
    for agent, player in players(card, work.split, work.seed).items():
        if player == POLICY:
            group = f"{work.group_id}/{agent}" if work.group_id else ""
            found[agent] = replace(work, group_id=group)
        else:
            found[agent] = _of_another(work, player)
    return found


def _of_another(work: Work, player: Any) -> Work:
    theirs = replace(work, group_id="", split=OTHERS, version=-1)
    if is_script(player):
        return replace(theirs, lane=_LANES[player])
    return replace(theirs, lane="rival", rival=name_of(player))
