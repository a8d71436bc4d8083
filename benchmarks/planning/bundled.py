"""Planning on and off in three bundled worlds: real steps of whole runs until a held-out return.

The settings are the demo's, with one world alone. The browser has 80 demonstrations instead of 120:
with more, imitation alone reaches the return. A run that does not reach the return counts with its
cap, and the row says how many did not. The rows have no goal: they tell what planning is worth
where a task takes one to five turns.
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
"""Room -> (world, its share of a round, the mean held-out return to reach, over how many episodes).
"""


def bundled(
    seeds: int = 3, budget: int = 4000, watch: Callable[[str], None] = lambda _: None
) -> Iterator[Row]:
    for room, (world, share, goal, episodes) in WORLDS.items():
        taken: dict[bool, list[float]] = {}
        # The same seeds with and without: a ratio of one seed compares equal tasks.
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
                    lambda line, p=planned, r=room: watch(f"{r} planning={p} {line}"),
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
