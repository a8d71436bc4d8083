"""How far an agent has followed a gold path: the list of actions that a game says solve a task."""

from __future__ import annotations

from collections.abc import Sequence

OFF_THE_PATH = 10**6


def steps_done(gold: Sequence[str], done: int, action: str) -> int:
    """The number of steps of the gold path that were done, after `action`.

    A huge number once the agent has left the path: the path does not lead on from there.
    """
    if done < len(gold) and action == gold[done]:
        return done + 1
    return OFF_THE_PATH
