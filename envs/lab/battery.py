"""lab/battery: charge a lithium-ion cell fast without ruining it, on PyBaMM.

A protocol is two currents and the minutes of the first. `simulate` is the single-particle model,
which has no lithium plating. `prepare` puts a cell through the protocol: the Doyle-Fuller-Newman
model with irreversible plating (O'Kane et al. 2022), at an ambient temperature and with a plating
rate that the agent does not know. `measure` reads the charge that went in, with noise. `declare` is
judged by the charge in the allowed time, less the charge lost to plating.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np

from envs.authoring import Outcome, Range, action
from envs.lab.bench import Bench
from experience.errors import EnvironmentFailure, MissingPartError

CAPACITY_AH = 5.0
_PLATING = "Exchange-current density for plating [A.m-2]"
PLATING_WEIGHT = 8.0
"""How many times its own charge a lost ampere-hour counts."""

_one_at_a_time = threading.Lock()
"""PyBaMM's simulations keep their last solution: two threads would mix theirs up."""


@dataclass(frozen=True)
class Cell:
    """A cell to charge, and how long that may take."""

    minutes: int
    start_percent: int
    """The charge at the start."""
    ambient_celsius: int
    """Hidden."""
    plating_factor: float
    """Hidden: the plating rate over the published one."""


@dataclass(frozen=True)
class Protocol:
    """`first` ampere for `minutes`, then `second` ampere for the rest of the time."""

    first: float
    minutes: int
    second: float


@dataclass(frozen=True)
class Charged:
    """Fractions of the capacity."""

    gained: float
    plated: float
    """Lost for ever to plated lithium."""


@lru_cache(maxsize=4)
def _simulation(kind: str) -> Any:
    """PyBaMM's simulation of that kind, "cheap" or "real". Raises MissingPartError."""
    # Before the import: PyBaMM asks for consent to telemetry when it is loaded.
    os.environ.setdefault("PYBAMM_DISABLE_TELEMETRY", "true")
    try:
        import pybamm
    except ImportError as missing:
        raise MissingPartError(
            f"lab/battery needs PyBaMM: {missing}", "./xp setup worlds"
        ) from missing
    pybamm.set_logging_level("ERROR")
    values = pybamm.ParameterValues("OKane2022")
    values.update({"Current function [A]": "[input]"})
    if kind == "cheap":
        return _built(pybamm.Simulation(pybamm.lithium_ion.SPM(), parameter_values=values))
    rate = values[_PLATING]
    values.update(
        {
            _PLATING: lambda *a: rate(*a) * pybamm.InputParameter("Plating factor"),
            "Ambient temperature [K]": "[input]",
            "Initial temperature [K]": "[input]",
        }
    )
    model = pybamm.lithium_ion.DFN({"lithium plating": "irreversible"})
    return _built(pybamm.Simulation(model, parameter_values=values))


def _built(simulation: Any) -> Any:
    """The simulation, built at half charge.

    A simulation keeps the state of charge of its first solution, which shifts all later answers by
    0.1 %. Built here, it is the same whichever cell comes first.
    """
    simulation.build(
        initial_soc=0.5,
        inputs={
            "Current function [A]": -5.0,
            "Ambient temperature [K]": 298.15,
            "Initial temperature [K]": 298.15,
            "Plating factor": 1.0,
        },
    )
    return simulation


@lru_cache(maxsize=1 << 14)
def charge(kind: str, protocol: Protocol, cell: Cell) -> Charged:
    """The charge that goes in until the time is up or 4.2 V are reached.

    `kind` is "cheap" or "real". Raises EnvironmentFailure if the solver fails.
    """
    with _one_at_a_time:
        solution = _solution(kind, protocol, cell)
    if solution is None:
        return Charged(0.0, 0.0)
    gained = -float(solution["Discharge capacity [A.h]"].entries[-1]) / CAPACITY_AH
    plated = 0.0
    if kind == "real":
        lost = solution["Loss of capacity to negative lithium plating [A.h]"].entries[-1]
        plated = float(lost) / CAPACITY_AH
    return Charged(round(gained, 4), round(plated, 6))


def _solution(kind: str, protocol: Protocol, cell: Cell) -> Any:
    """PyBaMM's solution; None if the charger stops at once. The caller holds the lock."""
    inputs: dict[str, Any] = {}
    if kind == "real":
        kelvin = 273.15 + cell.ambient_celsius
        inputs = {
            "Ambient temperature [K]": kelvin,
            "Initial temperature [K]": kelvin,
            "Plating factor": cell.plating_factor,
        }
    first_minutes = min(protocol.minutes, cell.minutes)
    stages = [
        (protocol.first, first_minutes),
        (protocol.second, cell.minutes - first_minutes),
    ]
    # Before the import: its error says how to install PyBaMM.
    simulation = _simulation(kind)
    import pybamm

    simulation._solution = None
    solution = None
    try:
        for ampere, minutes in stages:
            at_its_limit = solution is not None and solution.termination != "final time"
            if minutes <= 0 or at_its_limit:
                continue
            current = inputs | {"Current function [A]": -ampere}
            seconds = 60 * minutes
            if solution is None:
                charge_now = cell.start_percent / 100
                solution = simulation.solve([0, seconds], inputs=current, initial_soc=charge_now)
            else:
                solution = simulation.step(seconds, inputs=current, starting_solution=solution)
    except pybamm.SolverError as failed:
        # A current that lifts the voltage to its limit at once is no failure: the charger stops.
        if "non-positive at initial conditions" not in str(failed):
            raise EnvironmentFailure(
                f"PyBaMM found no solution for {protocol}: {failed}"
            ) from failed
    return solution


class Battery(Bench[Cell, Protocol]):
    briefing: ClassVar[str] = (
        f"Charge a lithium-ion cell of {CAPACITY_AH:g} Ah fast, without ruining it: a large "
        "current plates lithium, and that charge is lost for ever. A charging protocol is three "
        "numbers: FIRST, a current in ampere; MINUTES, how long it flows; SECOND, the current in "
        "ampere for the rest of the time. Charging stops at 4.2 V. You do not know how warm the "
        "cell is or how easily it plates."
    )
    forms: ClassVar[dict[str, str]] = {
        "simulate": "Compute the charge taken, as a fraction of the capacity. Knows no plating",
        "prepare": "Charge a real cell by this protocol; samples are numbered from 1",
        "measure": "Read which fraction of the capacity went into a charged cell, off by about "
        "0.01. EXPECT is the reading that you expect; a good guess is paid for",
        "declare": "Hand in a charged cell for good, which ends the task",
    }
    meanings: ClassVar[dict[str, str]] = Bench.meanings | {
        "value": "times the value of the declared cell: the charge that went in, less "
        f"{PLATING_WEIGHT:g} times what was lost to plating, over the charge of a current of "
        f"{CAPACITY_AH:g} A in the same time; at most 1"
    }
    oracle_target: ClassVar[float] = 0.4
    cheats = (
        "declare 1",
        "declare 0",
        "measure 1",
        "prepare 15 nan 3",
        "prepare 99 10 99",
        "prepare -5 10 5",
        '{"name": "prepare", "arguments": {"first": true, "minutes": 10}}',
        "simulate 5 10 5 value=1",
    )

    def draw(self, rng: np.random.Generator) -> Cell:
        return Cell(
            int(rng.integers(3, 10)) * 5,
            int(rng.integers(1, 9)) * 5,
            int(rng.integers(-1, 4)) * 5 + 10,
            float(rng.choice([0.5, 1.0, 2.0])),
        )

    def signature(self, task: Cell) -> str:
        # Without ambient temperature and plating: the signature stands in the info of each step.
        return f"{task.minutes} min from {task.start_percent} %"

    def goal(self) -> str:
        return f"charge from {self.task.start_percent} % in {self.task.minutes} min"

    def goal_in_words(self) -> str:
        return (
            f"Charge the cell, which is {self.task.start_percent} % full now, in "
            f"{self.task.minutes} minutes."
        )

    def recipe_in_words(self, recipe: str) -> str:
        first, minutes, second = recipe.split()
        return f"{first} A for {minutes} min, then {second} A"

    def example(self) -> str:
        return f"simulate 4 {self.task.minutes // 2} 2"

    @action
    def simulate(
        self,
        first: Annotated[float, Range(0.5, 12, 0.5)],
        minutes: Annotated[int, Range(1, 45)],
        second: Annotated[float, Range(0.5, 12, 0.5)],
    ) -> Outcome:
        """Compute the charge taken by so many ampere for so many minutes and then by the second \
current."""
        return self.simulated(Protocol(first, minutes, second))

    @action
    def prepare(
        self,
        first: Annotated[float, Range(0.5, 12, 0.5)],
        minutes: Annotated[int, Range(1, 45)],
        second: Annotated[float, Range(0.5, 12, 0.5)],
    ) -> Outcome:
        """Put a real cell through the protocol."""
        return self.prepared(Protocol(first, minutes, second))

    def cheap(self, recipe: Protocol) -> float:
        return charge(
            "cheap", recipe, Cell(self.task.minutes, self.task.start_percent, 25, 1.0)
        ).gained

    def real(self, recipe: Protocol) -> float:
        return charge("real", recipe, self.task).gained

    def worth(self, recipe: Protocol, truth: float) -> float:
        """The useful charge over that of a charger at one capacity an hour, without plating."""
        useful = truth - PLATING_WEIGHT * charge("real", recipe, self.task).plated
        return min(1.0, useful / (self.task.minutes / 60))

    def grid(self) -> list[Protocol]:
        most = self.task.minutes
        return [
            Protocol(first, minutes, second)
            for first in (3.0, 5.0, 7.0, 9.0)
            for second in (1.0, 3.0, 5.0)
            for minutes in (most // 3, 2 * most // 3)
        ]
