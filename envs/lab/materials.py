"""lab/materials: make a binary alloy with a wanted amount of a phase, on pycalphad's CALPHAD
databases.

`simulate` computes the equilibrium with the published database. `prepare` is the furnace: its own
phases' interaction energies differ a little from the published ones, it is some kelvin off, and
loses some of the second element; nobody tells the agent how much. `measure` is a noisy phase
fraction (XRD). `declare` is judged by how close the sample's true fraction is to the wanted one,
and by how hot the furnace had to be. Systems are from databases that pycalphad ships: Al-Zn (an Mey
1993), Cu-Mg (Coughanowr 1991), Pb-Sn (Dinsdale).
"""

from __future__ import annotations

import re
import threading
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from envs.authoring import Outcome, Range, action
from envs.lab.bench import PRICES, Bench
from experience.errors import EnvironmentFailure, MissingPartError
from experience.planning.campaign import Laboratory, Plan

SYSTEMS = {  # name: database, second element, kelvin range, phases one may want
    "Al-Zn": ("alzn_mey.tdb", ("AL", "ZN"), (400, 800), ("FCC_A1", "HCP_A3", "LIQUID")),
    "Cu-Mg": ("cumg.tdb", ("CU", "MG"), (600, 1100), ("FCC_A1", "CU2MG", "CUMG2", "LIQUID")),
    "Pb-Sn": ("pbsn.tdb", ("PB", "SN"), (380, 600), ("FCC_A1", "BCT_A5", "LIQUID")),
}
HOTTEST = 0.2
"""What a furnace at the top of its range costs, in units of value."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Order:
    """A wanted phase fraction (percent), and what is wrong with the furnace: kelvin off, percent of
    the second element lost, per mille by which interaction energies differ."""

    system: str
    phase: str
    percent: int
    kelvin_off: int
    lost_percent: int
    energy_permille: int


@dataclass(frozen=True)
class Recipe:
    """Atomic percent of the second element, and kelvin."""

    percent: int
    kelvin: int


@lru_cache(maxsize=32)
def _database(system: str, energy_permille: int) -> Any:
    """The system's database, its interaction energies scaled by 1 + permille / 1000."""
    try:
        import pycalphad
    except ImportError as missing:
        raise MissingPartError(
            f"lab/materials needs pycalphad: {missing}", "./xp setup worlds"
        ) from missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        database = pycalphad.Database(
            str(Path(pycalphad.__file__).parent / "tests/databases" / SYSTEMS[system][0])
        )
    for parameter in database._parameters.all():
        if parameter["parameter_type"] == "L":
            database._parameters.update(
                {"parameter": parameter["parameter"] * (1 + energy_permille / 1000)},
                doc_ids=[parameter.doc_id],
            )
    return database


@lru_cache(maxsize=1 << 14)
def phase_fractions(
    system: str, energy_permille: int, percent: float, kelvin: float
) -> dict[str, float]:
    """Mole fraction of each stable phase at 1 atm.

    Raises EnvironmentFailure where no equilibrium is found.
    """
    database = _database(system, energy_permille)
    from pycalphad import equilibrium
    from pycalphad import variables as v

    elements = SYSTEMS[system][1]
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = equilibrium(
            database,
            [*elements, "VA"],
            sorted(database.phases),
            {
                v.X(elements[1]): min(max(percent / 100, 1e-4), 1 - 1e-4),
                v.T: kelvin,
                v.P: 101325,
                v.N: 1,
            },
        )
    fractions: dict[str, float] = {}
    for name, amount in zip(found.Phase.values.squeeze(), found.NP.values.squeeze(), strict=True):
        if str(name):
            fractions[str(name)] = fractions.get(str(name), 0.0) + float(amount)
    fractions = {
        name: round(amount, 4) for name, amount in fractions.items()
    }  # what the solver's tolerance decides
    if not fractions or not np.isclose(sum(fractions.values()), 1, atol=1e-3):
        raise EnvironmentFailure(f"{system} at {percent} %, {kelvin} K: no equilibrium was found")
    return fractions


class Materials(Bench[Order, Recipe]):
    oracle_target: ClassVar[float] = 0.7
    cheats = (
        "declare 1",
        "declare 0",
        "declare -1",
        "measure 1 0.5",
        "prepare nan 700",
        "prepare 20 1e9",
        '{"name": "declare", "arguments": {"sample": true}}',
        "simulate 20 600 value=1",
    )

    def draw(self, rng: np.random.Generator) -> Order:
        system = str(rng.choice(sorted(SYSTEMS)))
        phases = SYSTEMS[system][3]
        return Order(
            system,
            str(phases[rng.integers(len(phases))]),
            int(rng.integers(2, 10)) * 10,
            int(rng.integers(-4, 5)) * 5,
            int(rng.integers(0, 4)),
            int(rng.integers(-3, 4)) * 20,
        )

    def signature(self, task: Order) -> str:
        return f"{task.percent} % {task.phase} of {task.system}"  # the furnace stays hidden

    def goal(self) -> str:
        low, high = SYSTEMS[self.task.system][2]
        return f"{self.task.system}: {self.task.percent / 100:.1f} {self.task.phase}, {low} to {high} K"

    def _checked(self, percent: int, kelvin: int) -> Recipe:
        low, high = SYSTEMS[self.task.system][2]
        if not low <= kelvin <= high:
            raise ValueError(f"kelvin from {low} to {high}")
        return Recipe(percent, kelvin)

    @action
    def simulate(
        self, percent: Annotated[int, Range(1, 99)], kelvin: Annotated[int, Range(380, 1100, 20)]
    ) -> Outcome:
        """Compute the phase's fraction for that much of the second element at that temperature."""
        return self.simulated(self._checked(percent, kelvin))

    @action
    def prepare(
        self, percent: Annotated[int, Range(1, 99)], kelvin: Annotated[int, Range(380, 1100, 20)]
    ) -> Outcome:
        """Make a real sample in the furnace."""
        return self.prepared(self._checked(percent, kelvin))

    def cheap(self, recipe: Recipe) -> float:
        return phase_fractions(self.task.system, 0, recipe.percent, recipe.kelvin).get(
            self.task.phase, 0.0
        )

    def real(self, recipe: Recipe) -> float:
        kept = recipe.percent * (1 - self.task.lost_percent / 100)
        return phase_fractions(
            self.task.system, self.task.energy_permille, kept, recipe.kelvin + self.task.kelvin_off
        ).get(self.task.phase, 0.0)

    def worth(self, recipe: Recipe, truth: float) -> float:
        low, high = SYSTEMS[self.task.system][2]
        close = max(0.0, 1 - abs(truth - self.task.percent / 100) / 0.2)
        return close * (1 - HOTTEST * (recipe.kelvin - low) / (high - low))

    def laboratory(self) -> Laboratory:
        """Recipes and what is promised for each: by the published database, or by the notebook's
        readings."""
        low, high = SYSTEMS[self.task.system][2]
        samples = {sample.recipe: number for number, sample in enumerate(self._samples, 1)}
        recipes = list(
            dict.fromkeys(
                [
                    *(
                        Recipe(p, k)
                        for k in range(low, high + 1, (high - low) // 8)
                        for p in range(3, 99, 5)
                    ),
                    *samples,
                ]
            )
        )
        read = [re.fullmatch(r"read (\d+) = (\S+)", line) for line in self._notebook]
        readings: dict[Recipe, list[float]] = {}
        for line in read:
            if line:
                readings.setdefault(self._samples[int(line[1]) - 1].recipe, []).append(
                    float(line[2])
                )
        measure, declare = zip(
            *(self._ways(recipe, samples.get(recipe)) for recipe in recipes), strict=True
        )
        return Laboratory(
            np.array([(r.percent / 100, (r.kelvin - low) / (high - low)) for r in recipes]),
            np.array([self.worth(r, self.cheap(r)) for r in recipes]),
            {
                i: float(np.mean([self.worth(r, v) for v in readings[r]]))
                for i, r in enumerate(recipes)
                if r in readings
            },
            self.noise / 0.2,
            measure,
            declare,
            self.max_turns - self._turn,
        )

    def _ways(self, recipe: Recipe, sample: int | None) -> tuple[Plan, Plan]:
        """To a reading of it, and to hand it in."""
        if sample:
            return Plan(f"measure {sample}", PRICES["measure"], 1), Plan(
                f"declare {sample}", 0.0, 1
            )
        prepare = f"prepare {self.words(recipe)}"
        return Plan(prepare, PRICES["prepare"] + PRICES["measure"], 2), Plan(
            prepare, PRICES["prepare"], 2
        )

    def grid(self) -> list[Recipe]:
        low, high = SYSTEMS[self.task.system][2]
        return [
            Recipe(p, k) for k in range(low, high + 1, (high - low) // 5) for p in range(6, 98, 7)
        ]
