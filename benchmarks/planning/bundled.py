"""Planning on and off in three bundled worlds, one at a time: real steps until a held-out return,
by whole runs.

The demo's settings, each world alone, but that the browser is shown 80 tasks instead of 120, for
imitation alone must stand below what is to be reached. A run that does not get there is counted
with its cap, and the row says how many did not. There is no goal but honesty: what planning is
worth where a task is one to five turns long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.planning.language import steps_to
from benchmarks.planning.record import Row, ratio_row

CONFIG = "configs/demo.yaml"
WORLDS = {
    "code": ("envs:PythonTask-v0", "groups: 4, demonstrations: 60", 0.45, 48),
    "browser": ("envs:Office-v0", "groups: 3, demonstrations: 80", 0.45, 96),
    "lab": ("envs:Reactor-v0", "groups: 2, demonstrations: 50", 0.35, 48),
}
"""Room -> (world, its share of a round, the mean held-out return to reach, in how many episodes).
"""


def bundled(
    seeds: int = 3, budget: int = 4000, watch: Callable[[str], None] = lambda _: None
) -> Iterator[Row]:
    for room, (world, share, goal, episodes) in WORLDS.items():
        taken: dict[bool, list[float]] = {}
        for planned in (False, True):
            settings = [
                f"worlds=[{{id: '{world}', {share}}}]",
                "workers=0",
                f"planning.enabled={str(planned).lower()}",
                "evaluation.every=5",
                f"evaluation.episodes={episodes}",
            ]
            taken[planned] = [
                steps_to(
                    goal,
                    world,
                    CONFIG,
                    settings,
                    seed,
                    budget,
                    lambda told, p=planned, r=room: watch(f"{r} planning={p} {told}"),
                )  # type: ignore[misc]
                for seed in range(seeds)
            ]
        yield ratio_row(
            f"{room}: real steps to a held-out return of {goal:g}, with planning over without",
            "none",
            "ratio",
            taken[True],
            taken[False],
            "",
            {
                "real steps, with": float(np.mean(taken[True])),
                "real steps, without": float(np.mean(taken[False])),
                "not reached, with": sum(t >= budget for t in taken[True]),
                "not reached, without": sum(t >= budget for t in taken[False]),
            },
            f"{world} alone, {share}, at most {budget} real steps; no goal: below 1 planning helps",
        )
