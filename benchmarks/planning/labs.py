"""Campaigns in two bundled labs: measurements until a good recipe, and returns of a planning agent.

A good recipe is among the best hundredth. The cheap model is the lab's own simulation: equilibrium
in the reactor, the nominal database in materials. A measurement shows the lab's hidden truth with
the noise that the agent meets. A recipe's worth is what the action `declare` pays for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import gymnasium
import numpy as np

from actors.collecting.work import Lane
from actors.config.schema import load
from benchmarks.planning.held_out import returns
from benchmarks.planning.record import Row, ratio_row, row
from benchmarks.planning.science import until_found
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.planning.campaign import Campaign, Floats

CAP = 40
Problem = tuple[Floats, Floats, Floats, float]
"""Recipes [N, D] in [0, 1], their true and simulated worths [N], noise of a measurement."""


def reactor(seed: int) -> Problem:
    from envs.lab.reactor import Product, equilibrium, stirred_reactor

    world = gymnasium.make("envs:Reactor-v0").unwrapped
    world.reset(seed=seed)
    task = world.task
    recipes = list(product(range(900, 1601, 50), np.arange(1.25, 4.0, 0.25).tolist()))

    def worth(kelvin: float, made: Product) -> float:
        return 4 * made.syngas - (kelvin - 900) / 1000 - 0.2 * made.burnt

    truth = [
        worth(k, stirred_reactor(float(k - task.heat_loss_k), r, task.pressure, task.residence_ms))
        for k, r in recipes
    ]
    simulated = [worth(k, equilibrium(float(k), r, task.pressure)) for k, r in recipes]
    # A measured syngas share has noise of 0.01, and `worth` multiplies it by 4.
    return _unit(np.array(recipes, float)), np.array(truth), np.array(simulated), 4 * 0.01


def materials(seed: int) -> Problem:
    from envs.lab.materials import SYSTEMS, Recipe

    world = gymnasium.make("envs:Materials-v0").unwrapped
    world.reset(seed=seed)
    low, high = SYSTEMS[world.task.system][2]
    recipes = [
        Recipe(p, k) for k in range(low, high + 1, (high - low) // 8) for p in range(3, 99, 5)
    ]
    truth = [world.worth(r, world.real(r)) for r in recipes]
    simulated = [world.worth(r, world.cheap(r)) for r in recipes]
    axes = np.array([[r.percent, r.kelvin] for r in recipes], float)
    return _unit(axes), np.array(truth), np.array(simulated), 0.01 / 0.2


LABS: dict[str, Callable[[int], Problem]] = {"reactor": reactor, "materials": materials}


def _unit(x: Floats) -> Floats:
    scaled: Floats = (x - x.min(0)) / np.ptp(x, axis=0)
    return scaled


def measurements(problem: Problem, seed: int, how: str) -> float:
    """Measurements until one is among the best hundredth; the cap if none is."""
    x, truth, simulated, noise = problem
    rng = np.random.default_rng(seed)
    best = set(np.flatnonzero(truth >= np.quantile(truth, 0.99)).tolist())
    model = simulated if how == "simulation and lab" else None
    # The campaign's values are scaled to unit variance, so its noise is too.
    campaign = Campaign(x, model, noise / max(float(truth.std()), 1e-9))
    order = {
        "random": rng.permutation(len(x)),
        "simulation alone": np.argsort(-simulated, kind="stable"),
    }.get(how)
    return until_found(campaign, order, truth, best, noise, CAP, rng)


def campaigns(seeds: int = 12) -> Iterator[Row]:
    for lab, drawn in LABS.items():
        problems = [drawn(seed) for seed in range(seeds)]
        taken = {}
        for how in ("random", "simulation alone", "lab alone", "simulation and lab"):
            taken[how] = [measurements(p, s, how) for s, p in enumerate(problems)]
        yield ratio_row(
            f"{lab}: lab measurements, Bayesian optimisation alone over with the lab's own "
            "simulation",
            "none",
            "ratio",
            taken["lab alone"],
            taken["simulation and lab"],
            ">= 1",
            {f"measurements, {how}": float(np.mean(n)) for how, n in taken.items()},
            f"{len(problems[0][0])} recipes, the best hundredth, cap {CAP}, the lab's own "
            "noise; a task a seed",
        )
    for lab in LABS:
        yield agent(f"envs:{lab.capitalize()}-v0")


def agent(env_id: str, tasks: int = 96) -> Row:
    """Held-out returns of an agent that plans by campaign, and of the expert on equal tasks."""
    config, _ = load(
        [],
        [
            f"worlds=[{{id: '{env_id}'}}]",
            "policy.engine=table",
            "planning.lookahead.candidates=1",
            "planning.lookahead.search=campaign",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        planned, expert = (
            returns(
                config,
                env_id,
                PolicyBundle(Table.weights((), {}, 0)),
                tasks,
                Path(folder) / lane,
                lane,
            )
            for lane in LANES
        )
    return row(
        f"{env_id}: held-out return of an agent that plans its experiments, less the scripted "
        "expert's",
        "none",
        "reward",
        [a - b for a, b in zip(planned, expert, strict=True)],
        ">= 0",
        {"planned": float(np.mean(planned)), "expert": float(np.mean(expert))},
        "planning.lookahead.search=campaign; the expert trusts the simulation and measures "
        "nothing; a task a seed",
    )


LANES: tuple[Lane, Lane] = ("evaluation", "demonstration")
