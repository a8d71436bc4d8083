"""lab/materials: make a binary alloy with a wanted amount of a phase, on pycalphad's CALPHAD
databases.

`simulate` computes the equilibrium with the published database. `prepare` is the furnace. In it the
phases' interaction energies differ a little from the published ones, the temperature is some kelvin
off, and some of the second element is lost; the agent does not know how much. `measure` is a noisy
phase fraction (XRD). `declare` is judged by how close the sample's true fraction is to the wanted
one, and by how hot the furnace had to be. Systems are from databases that pycalphad ships: Al-Zn
(an Mey 1993), Cu-Mg (Coughanowr 1991), Pb-Sn (Dinsdale).
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from envs.authoring import Outcome, Range, action
from envs.lab.bench import PRICES, Bench
from envs.refused import Refused
from experience.errors import EnvironmentFailure, MissingPartError
from experience.planning.campaign import Laboratory, Plan

SYSTEMS = {  # name: database, elements, kelvin range, phases that a task may ask for
    "Al-Zn": ("alzn_mey.tdb", ("AL", "ZN"), (400, 800), ("FCC_A1", "HCP_A3", "LIQUID")),
    "Cu-Mg": ("cumg.tdb", ("CU", "MG"), (600, 1100), ("FCC_A1", "CU2MG", "CUMG2", "LIQUID")),
    "Pb-Sn": ("pbsn.tdb", ("PB", "SN"), (380, 600), ("FCC_A1", "BCT_A5", "LIQUID")),
}
_WORTHLESS_OFF = 0.2
"""The difference to the wanted fraction at which a sample is worth nothing."""
HOTTEST = 0.2
"""The share of the value that a furnace at the top of its range costs."""

_one_at_a_time = threading.Lock()
"""pycalphad promises no safety between threads, and `warnings.catch_warnings` has none."""


@dataclass(frozen=True)
class Order:
    """A wanted phase fraction, and the furnace's hidden errors."""

    system: str
    phase: str
    percent: int
    """The wanted fraction."""
    kelvin_off: int
    """Hidden: real less set temperature."""
    lost_percent: int
    """Hidden: the part of the second element that is lost."""
    energy_permille: int
    """Hidden: how much the interaction energies differ from the published ones."""


@dataclass(frozen=True)
class Recipe:
    """Atomic percent of the second element, and kelvin."""

    percent: int
    kelvin: int


@lru_cache(maxsize=32)
def _database(system: str, energy_permille: int) -> Any:
    """The system's database with interaction energies scaled by 1 + permille / 1000."""
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
    # Digits after the fourth are below the solver's tolerance.
    fractions = {name: round(amount, 4) for name, amount in fractions.items()}
    if not fractions or not np.isclose(sum(fractions.values()), 1, atol=1e-3):
        raise EnvironmentFailure(f"{system} at {percent} %, {kelvin} K: no equilibrium was found")
    return fractions


class Materials(Bench[Order, Recipe]):
    briefing: ClassVar[str] = (
        "Make an alloy of two metals in which a given phase has a given share. A recipe is two "
        "whole numbers: PERCENT, the atomic percent of the second metal, and KELVIN, the set "
        "temperature of the furnace. The furnace's real temperature and what it loses of the "
        "second metal are a little off, and you do not know how much."
    )
    forms: ClassVar[dict[str, str]] = {
        "simulate": "Compute the phase's share from a published database: cheap, a little wrong",
        "prepare": "Make a real sample in the furnace; samples are numbered from 1",
        "measure": "Take a reading of a prepared sample, off by about 0.01. EXPECT is "
        "the reading that you expect; a good guess is paid for",
        "declare": "Hand in a prepared sample for good, which ends the task",
    }
    meanings: ClassVar[dict[str, str]] = Bench.meanings | {
        "value": "times the value of the declared sample: 1 if the share is as wanted, 0 if it is "
        f"off by {_WORTHLESS_OFF:g}, and up to a fifth less for a hot furnace"
    }
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
        wanted = f"{self.task.percent / 100:.1f} {self.task.phase}"
        return f"{self.task.system}: {wanted}, {low} to {high} K"

    def goal_in_words(self) -> str:
        first, second = self.task.system.split("-")
        low, high = SYSTEMS[self.task.system][2]
        return (
            f"Make an alloy of {first} and {second} in which the phase {self.task.phase} has a "
            f"share of {self.task.percent / 100:.1f} (1 is all of it). PERCENT is the atomic "
            f"percent of {second}; KELVIN must be from {low} to {high}."
        )

    def recipe_in_words(self, recipe: str) -> str:
        percent, kelvin = recipe.split()
        second = self.task.system.partition("-")[2]
        return f"{percent} % {second} at {kelvin} K"

    def example(self) -> str:
        low, high = SYSTEMS[self.task.system][2]
        return f"simulate 50 {(low + high) // 2}"

    def _checked(self, percent: int, kelvin: int) -> Recipe:
        low, high = SYSTEMS[self.task.system][2]
        if not low <= kelvin <= high:
            raise Refused(
                f"kelvin from {low} to {high}",
                f"For this alloy KELVIN must be from {low} to {high}, not {kelvin}.",
            )
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
        fractions = phase_fractions(self.task.system, 0, recipe.percent, recipe.kelvin)
        return fractions.get(self.task.phase, 0.0)

    def real(self, recipe: Recipe) -> float:
        kept = recipe.percent * (1 - self.task.lost_percent / 100)
        kelvin = recipe.kelvin + self.task.kelvin_off
        fractions = phase_fractions(self.task.system, self.task.energy_permille, kept, kelvin)
        return fractions.get(self.task.phase, 0.0)

    def worth(self, recipe: Recipe, truth: float) -> float:
        low, high = SYSTEMS[self.task.system][2]
        close = max(0.0, 1 - abs(truth - self.task.percent / 100) / _WORTHLESS_OFF)
        return close * (1 - HOTTEST * (recipe.kelvin - low) / (high - low))

    def laboratory(self) -> Laboratory:
        """The recipes, and the value that simulation and readings promise for each."""
        low, high = SYSTEMS[self.task.system][2]
        samples = {sample.recipe: number for number, sample in enumerate(self._samples, 1)}
        fine = _recipes(range(3, 99, 5), range(low, high + 1, (high - low) // 8))
        recipes = list(dict.fromkeys([*fine, *samples]))
        promised = {recipe: self._promised(recipe, read) for recipe, read in self._readings()}
        return Laboratory(
            recipes=np.array([(r.percent / 100, (r.kelvin - low) / (high - low)) for r in recipes]),
            simulated=np.array([self.worth(r, self.cheap(r)) for r in recipes]),
            readings={i: promised[r] for i, r in enumerate(recipes) if r in promised},
            noise=self.noise / _WORTHLESS_OFF,
            measure=[self._plan_to_measure(r, samples.get(r)) for r in recipes],
            declare=[self._plan_to_declare(r, samples.get(r)) for r in recipes],
            turns=self.max_turns - self._turn,
        )

    def _readings(self) -> Iterable[tuple[Recipe, list[float]]]:
        """The readings in the notebook, by recipe: several samples may have the same one."""
        readings: dict[Recipe, list[float]] = {}
        for line in self._notebook:
            if reading := re.fullmatch(r"read (\d+) = (\S+)", line):
                recipe = self._samples[int(reading[1]) - 1].recipe
                readings.setdefault(recipe, []).append(float(reading[2]))
        return readings.items()

    def _promised(self, recipe: Recipe, readings: Iterable[float]) -> float:
        """The mean value by `readings`."""
        return float(np.mean([self.worth(recipe, reading) for reading in readings]))

    def _plan_to_measure(self, recipe: Recipe, sample: int | None) -> Plan:
        if sample:
            return Plan(f"measure {sample}", PRICES["measure"], 1)
        price = PRICES["prepare"] + PRICES["measure"]
        return Plan(f"prepare {self.words(recipe)}", price, 2)

    def _plan_to_declare(self, recipe: Recipe, sample: int | None) -> Plan:
        if sample:
            return Plan(f"declare {sample}", 0.0, 1)
        return Plan(f"prepare {self.words(recipe)}", PRICES["prepare"], 2)

    def grid(self) -> list[Recipe]:
        low, high = SYSTEMS[self.task.system][2]
        return _recipes(range(6, 98, 7), range(low, high + 1, (high - low) // 5))


def _recipes(percents: Sequence[int], kelvins: Sequence[int]) -> list[Recipe]:
    return [Recipe(percent, kelvin) for kelvin in kelvins for percent in percents]
