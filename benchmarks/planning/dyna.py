"""Dyna-Q and Dyna-Q+ in the mazes of Sutton & Barto 2018, through collector, shards and learner.

Each life is a stream with its own learner. The policy acts on the rows that were committed before
its last turn, as every policy of this framework does: it is one turn behind the book's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from actors.config.schema import Config, load
from actors.pool.local import LocalPool
from benchmarks.planning.record import Row, ratio_row
from benchmarks.planning.worlds import Maze
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.planning.tabular import Dyna, DynaSettings
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.step import Step

WORLD = "benchmarks.planning.worlds:Maze-v0"
ACTIONS = Maze.actions
BOOK = DynaSettings(step_size=0.1, discount=0.95, updates=0)
"""The settings of Sutton & Barto 2018, chapter 8, without planning updates."""


@dataclass
class Life:
    """One stream's learner, its rewards, and two figures for each episode that has ended.

    `lengths` are turns; `planned` is the number of planning updates until then.
    """

    learner: Dyna
    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    planned: list[int] = field(default_factory=list)
    last: Step | None = None

    def take(self, step: Step) -> None:
        """Takes the next row of the stream, and learns from the row before it."""
        # A row's transition needs the next row: its observation is where the action led.
        if self.last is not None and self.last.decision is not None:
            self.learner.learn(self.last, step)
        self.last = step
        if step.decision is not None:
            self.rewards.append(step.reward or 0.0)
        else:
            self.lengths.append(step.step_in_episode)
            self.planned.append(self.learner.planned)


def live(
    layout: str, lives: int, settings: DynaSettings, until: Callable[[Life], bool]
) -> list[Life]:
    """`lives` streams with learners of these settings; ends when `until` holds for each of them."""
    with tempfile.TemporaryDirectory() as folder:
        config, _ = load(
            [],
            [
                f"worlds=[{{id: '{WORLD}', arguments: {{layout: {layout}}}}}]",
                "policy.engine=table",
                "policy.epsilon=0.1",
                f"collecting.slots={lives}",
                "collecting.group_size=2",
                "collecting.durability=os",
                "collecting.commit_seconds=0.002",
                f"seed={settings.seed}",
            ],
        )
        return list(_live(config, Path(folder), settings, until))


def _live(
    config: Config, folder: Path, settings: DynaSettings, until: Callable[[Life], bool]
) -> Iterator[Life]:
    folder.mkdir(parents=True, exist_ok=True)
    pool = LocalPool(config, "bench", folder, Catalog(folder))
    rewards = RewardModel({WORLD: {"env_reward": 1.0}})
    found: dict[bytes, Life] = {}
    shards = pool.shards(
        lambda: len(found) == config.collecting.slots and all(map(until, found.values()))
    )
    try:
        for version, shard in enumerate(shards):
            for step in shard:
                if step.stream_id not in found:
                    own = replace(settings, seed=settings.seed + len(found))
                    found[step.stream_id] = Life(Dyna(ACTIONS, rewards, own))
                found[step.stream_id].take(step)
            values = {o: v for life in found.values() for o, v in life.learner.values.items()}
            # One table for all lives: each life's observations name it, so none reads another's.
            pool.push(PolicyBundle(Table.weights(ACTIONS, values, version)), 10**9)
    finally:
        pool.close()
    yield from found.values()


def figure_8_2(lives: int = 30, episodes: int = 50) -> Iterator[Row]:
    """Dyna maze, figure 8.2: the first episode whose mean length is near the shortest (14 steps).

    One row for each number of planning updates a step.
    """
    for updates, book in ((0, 25), (5, 5), (50, 3)):
        lived = live(
            "dyna",
            lives,
            replace(BOOK, updates=updates),
            lambda life: len(life.lengths) >= episodes,
        )
        lengths = np.array([life.lengths[:episodes] for life in lived])
        yield Row(
            f"Dyna maze, n={updates}: first episode of mean length ≤ 20",
            f"S&B fig. 8.2: about {book}",
            "episode",
            near(lengths.mean(0)),
            None,
            lives,
            f"<= {book + (2 if updates else 5)}",
            {f"real steps in {episodes} episodes": float(lengths.sum(1).mean())},
            "α=.1 ε=.1 γ=.95; read off the mean curve of all lives, as the book does: no interval",
        )


def near(curve: np.ndarray) -> float:
    """The first episode, counted from 1, that takes at most 20 steps."""
    return float(np.argmax(curve <= 20)) + 1 if (curve <= 20).any() else float(len(curve) + 1)


def changing_mazes(lives: int = 20) -> Iterator[Row]:
    """Figures 8.4 and 8.5: the reward that curiosity earns after the world has changed."""
    for figure, layout, steps, updates, curiosity, goal in (
        ("8.4", "blocking", 3000, 10, 1e-4, ">= 1.3"),
        ("8.5", "shortcut", 6000, 50, 1e-3, ">= 1.1"),
    ):
        earned = {}
        for kappa in (0.0, curiosity):
            lived = live(
                layout,
                lives,
                replace(BOOK, step_size=1.0, updates=updates, curiosity=kappa),
                lambda life, steps=steps: len(life.rewards) >= steps,
            )
            earned[kappa] = np.array([sum(life.rewards[:steps]) for life in lived])
        plus = earned[curiosity]
        plain = earned[0.0]
        yield ratio_row(
            f"{layout} maze: reward of Dyna-Q+ over Dyna-Q after {steps} steps",
            f"S&B fig. {figure}: Dyna-Q+ above Dyna-Q (plot)",
            "ratio",
            list(plus),
            list(plain),
            goal,
            {"Dyna-Q+": float(plus.mean()), "Dyna-Q": float(plain.mean())},
            f"n={updates}, κ={curiosity:g}, α=1 ε=.1 γ=.95",
        )


def sweeping(lives: int = 20) -> Iterator[Row]:
    """Prioritised sweeping against uniform planning: updates until a near-shortest episode."""
    needed = {}
    for name, settings in (
        ("uniform", replace(BOOK, step_size=0.5, updates=5)),
        ("sweeping", replace(BOOK, step_size=0.5, updates=5, sweep=1e-4)),
    ):
        lived = live("dyna", lives, settings, lambda life: len(life.lengths) >= 25)
        needed[name] = [_updates_until_near(life) for life in lived]
    yield ratio_row(
        "prioritised sweeping over uniform planning: planning updates to the first "
        "near-shortest episode",
        "S&B ex. 8.4: 5 to 10 × fewer updates",
        "ratio",
        needed["sweeping"],
        needed["uniform"],
        "<= 0.5",
        {f"updates, {name}": float(np.mean(v)) for name, v in needed.items()},
        "Dyna maze, n≤5, α=.5, θ=1e-4",
    )


def _updates_until_near(life: Life) -> float:
    """Planning updates until the first episode of at most 20 steps; all updates without one."""
    for length, planned in zip(life.lengths, life.planned, strict=True):
        if length <= 20:
            return float(planned)
    return float(life.planned[-1])
