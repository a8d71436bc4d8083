"""Options in the four rooms of Sutton, Precup & Singh 1999: planning, learning and discovery."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from actors.config.schema import load
from actors.pool.local import LocalPool
from benchmarks.planning.record import Row, ratio_row
from benchmarks.planning.worlds import CELLS, HALLWAYS, MOVES, WALLS, Cell, moved
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.options.option import Learned, Library
from experience.planning.discovery import reward_respecting, shortest_path
from experience.planning.smdp import (
    FiniteWorld,
    Floats,
    Model,
    OptionLearner,
    OptionSettings,
    value_iteration,
)
from experience.shards.catalog import Catalog
from experience.step import Step

WORLD = "benchmarks.planning.worlds:FourRooms-v0"


def shown(cell: Cell) -> str:
    return f"{cell[0]} {cell[1]}"


def four_rooms(
    goal: Cell | None, discount: float, penalties: Mapping[Cell, float] | None = None
) -> FiniteWorld:
    """The exact model: a move succeeds with 2/3, and goes in each other direction with 1/9.

    Arrival at `goal` pays 1 and ends the episode; arrival at a cell of `penalties` pays that.
    """
    index = {cell: i for i, cell in enumerate(CELLS)}
    models = []
    for action in MOVES:
        r = np.zeros(len(CELLS))
        p = np.zeros((len(CELLS), len(CELLS)))  # discounted, as an option's model is
        for cell, i in index.items():
            for done in MOVES:
                share = 2 / 3 if done == action else 1 / 9
                ahead = moved(cell, done, 11, 11, WALLS)
                r[i] += share * (float(ahead == goal) + (penalties or {}).get(ahead, 0.0))
                p[i, index[ahead]] += share * discount * (ahead != goal)
        models.append(Model(r, p, np.array([cell != goal for cell in CELLS])))
    return FiniteWorld(tuple(map(shown, CELLS)), tuple(MOVES), tuple(models))


def rooms() -> list[frozenset[Cell]]:
    """The cells of each room: the connected parts that are left without the hallways."""
    left = set(CELLS) - set(HALLWAYS.values())
    found = []
    while left:
        wave = {left.pop()}
        room = set(wave)
        while wave:
            wave = {moved(c, m, 11, 11, WALLS) for c in wave for m in MOVES} & left
            room |= wave
            left -= wave
        found.append(frozenset(room))
    return found


def hallway_options(discount: float) -> list[Learned]:
    """Two options a room: each takes the shortest way to one of the room's two hallways.

    It may start anywhere in the room and in the other hallway, and stops outside of these cells.
    """
    options = []
    for number, room in enumerate(rooms()):
        near = {name: cell for name, cell in HALLWAYS.items() if _is_next_to(cell, room)}
        for name, target in near.items():
            inside = room | (set(near.values()) - {target})
            whole = four_rooms(None, discount)
            kept = np.array([cell in inside for cell in CELLS])
            world = FiniteWorld(
                whole.states,
                whole.actions,
                tuple(Model(m.reward, m.arrival, m.starts & kept) for m in whole.models),
            )
            feature = np.array([cell == target for cell in CELLS])
            found = shortest_path(world, f"to-{name}-{number}", feature)
            actions = {cell: found.act(cell, 0) for cell in map(shown, inside)}
            taken = {cell: action for cell, action in actions.items() if action is not None}
            options.append(Learned.over(found.name, taken, []))
    return options


def _is_next_to(cell: Cell, room: frozenset[Cell]) -> bool:
    return any(moved(cell, move, 11, 11, WALLS) in room for move in MOVES)


def reached(history: Sequence[Floats], optimal: Floats) -> list[float]:
    """The share of the total optimal value after each sweep."""
    return [float(v.sum() / optimal.sum()) for v in history]


def planning() -> Iterator[Row]:
    """Value iteration with hallway options against primitive actions (figures 3 and 4).

    The goal is a hallway.
    """
    discount = 0.9
    goal = HALLWAYS["east"]
    world = four_rooms(goal, discount)
    optimal = value_iteration(world.models, 400)[-1]
    options = [world.model_of(o) for o in hallway_options(discount)]
    with_options = reached(value_iteration([*world.models, *options], 40), optimal)
    without = reached(value_iteration(world.models, 40), optimal)
    yield Row(
        "four rooms: optimal value reached after 2 sweeps with hallway options",
        "“by the second iteration” (Sutton, Precup & Singh 1999, fig. 4)",
        "share",
        with_options[2],
        None,
        1,
        ">= 0.95",
        {
            "primitive actions": without[2],
            "sweeps to 99 %, options": float(np.argmax(np.array(with_options) > 0.99)),
            "sweeps to 99 %, primitive": float(np.argmax(np.array(without) > 0.99)),
        },
        "exact; γ=.9, 104 cells",
    )
    if without[2] >= 0.2:
        raise AssertionError(
            f"primitive actions reach {without[2]:.2f} in 2 sweeps: the control does not hold"
        )


def stomp() -> Iterator[Row]:
    """Reward-respecting against shortest-path options to the hallways; ten cells cost 1 each."""
    discount = 0.95
    goal = (7, 9)
    sweeps: dict[str, list[float]] = {"respecting": [], "shortest": [], "primitive": []}
    costs: dict[str, list[float]] = {"respecting": [], "shortest": []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        free = [c for c in CELLS if c != goal and c not in HALLWAYS.values()]
        penalties = {free[i]: -1.0 for i in rng.choice(len(free), 10, replace=False)}
        world = four_rooms(goal, discount, penalties)
        optimal = value_iteration(world.models, 1000)[-1]
        for kind in sweeps:
            models = list(world.models)
            for name, cell in HALLWAYS.items():
                feature = np.array([c == cell for c in CELLS])
                if kind == "respecting":
                    option = reward_respecting(
                        world, f"to-{name}", feature, np.zeros(len(CELLS)), 1.0
                    )
                elif kind == "shortest":
                    option = shortest_path(world, f"to-{name}", feature)
                else:
                    continue
                models.append(world.model_of(option))
                costs[kind].append(float(models[-1].reward[models[-1].starts].mean()))
            error = [np.abs(v - optimal).mean() for v in value_iteration(models, 100)]
            sweeps[kind].append(float(np.argmax(np.array(error) < 0.01 * np.abs(optimal).mean())))
    yield ratio_row(
        "STOMP: sweeps to 1 % of the optimal value, reward-respecting over shortest-path options",
        "arXiv 2202.03466: fewer (plot)",
        "ratio",
        sweeps["respecting"],
        sweeps["shortest"],
        "<= 0.8",
        {
            "reward-respecting options": float(np.mean(sweeps["respecting"])),
            "shortest-path options": float(np.mean(sweeps["shortest"])),
            "primitive actions": float(np.mean(sweeps["primitive"])),
            "mean reward of a respecting option": float(np.mean(costs["respecting"])),
            "mean reward of a shortest-path option": float(np.mean(costs["shortest"])),
        },
        "four rooms, 10 cells that cost 1, γ=.95; features: the hallways; exact models",
    )


def learning(lives: int = 12, episodes: int = 30) -> Iterator[Row]:
    """Intra-option and SMDP learning against primitive actions.

    The collector executes the options, and the learners read its rows.
    """
    taken = {}
    for kind in ("intra-option", "SMDP", "primitive"):
        library = Library()
        for option in hallway_options(0.9) if kind != "primitive" else ():
            library = library.add(option)
        taken[kind] = [
            float(sum(_lengths(library, kind == "intra-option", seed, episodes)))
            for seed in range(lives)
        ]
    yield ratio_row(
        f"four rooms: real steps in {episodes} episodes, options over primitive actions",
        "Sutton, Precup & Singh 1999, fig. 5: options learn faster at first (plot)",
        "ratio",
        taken["intra-option"],
        taken["primitive"],
        "<= 0.8",
        {f"steps, {kind}": float(np.mean(values)) for kind, values in taken.items()},
        "α=.1 ε=.1 γ=.9, goal inside a room; executed and recorded by the collector",
    )


def _lengths(library: Library, intra: bool, seed: int, episodes: int) -> list[int]:
    """The world's turns in each of the first `episodes` of one life."""
    learner = OptionLearner(tuple(MOVES), library, OptionSettings(intra=intra))
    last: Step | None = None
    lengths: list[int] = []
    turns = 0
    config, _ = load(
        [],
        [
            f"worlds=[{{id: '{WORLD}'}}]",
            f"seed={seed}",
            "policy.engine=table",
            "policy.epsilon=0.1",
            "collecting.slots=1",
            "collecting.group_size=2",
            "collecting.durability=os",
            "collecting.commit_seconds=1e-6",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        pool = LocalPool(config, "bench", Path(folder), Catalog(Path(folder)))
        try:
            shards = pool.shards(lambda: len(lengths) >= episodes)
            for version, shard in enumerate(shards):
                for step in shard:
                    if last is not None and last.decision is not None:
                        learner.learn(last, step)
                    last = step
                    # The choice of an option is a row too, but no turn of the world.
                    turns += step.decision is not None and not step.is_choice
                    if step.decision is None:
                        lengths.append(turns)
                        turns = 0
                if shard or not lengths:
                    pool.push(
                        PolicyBundle(
                            Table.weights(learner.actions, learner.values, version),
                            library.dump(),
                        ),
                        10**9,
                    )
        finally:
            pool.close()
    return lengths[:episodes]
