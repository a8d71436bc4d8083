"""lab/battery: charge a lithium-ion cell fast without ruining it, on PyBaMM.

A protocol is two currents and the minutes of the first. `simulate` is the single-particle model,
which knows no lithium plating. `prepare` puts a cell through the protocol: the Doyle-Fuller-Newman
model with irreversible plating (O'Kane et al. 2022), at an ambient temperature and with a plating
rate that nobody tells the agent. `measure` reads the charge that went in, with noise. `declare` is
judged by the charge in the allowed time, less what plating cost.
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
PLATING_WEIGHT = 8.0
"""How many times its own charge a lost ampere-hour counts."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Cell:
    """Minutes that charging may take, charge at the start (percent); hidden: ambient °C, plating
    rate factor."""

    minutes: int
    start_percent: int
    ambient_celsius: int
    plating_factor: float


@dataclass(frozen=True)
class Protocol:
    """Ampere for the first `minutes`, then the second current."""

    first: float
    minutes: int
    second: float


@dataclass(frozen=True)
class Charged:
    """Fraction of the capacity that went in, and that plating took for ever."""

    gained: float
    plated: float


@lru_cache(maxsize=4)
def _simulation(kind: str) -> Any:
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
    rate = values["Exchange-current density for plating [A.m-2]"]
    values.update(
        {
            "Exchange-current density for plating [A.m-2]": lambda *a: (
                rate(*a) * pybamm.InputParameter("Plating factor")
            ),
            "Ambient temperature [K]": "[input]",
            "Initial temperature [K]": "[input]",
        }
    )
    model = pybamm.lithium_ion.DFN({"lithium plating": "irreversible"})
    return _built(pybamm.Simulation(model, parameter_values=values))


def _built(simulation: Any) -> Any:
    """Built at one state of charge for ever: what PyBaMM keeps of the first one shifts all later
    answers by 0.1 %."""
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
    """What goes in until the time is up or 4.2 V are reached.

    Raises EnvironmentFailure if the solver fails.
    """
    inputs: dict[str, Any] = {}
    if kind == "real":
        kelvin = 273.15 + cell.ambient_celsius
        inputs = {
            "Ambient temperature [K]": kelvin,
            "Initial temperature [K]": kelvin,
            "Plating factor": cell.plating_factor,
        }
    stages = [
        (protocol.first, min(protocol.minutes, cell.minutes)),
        (protocol.second, cell.minutes - min(protocol.minutes, cell.minutes)),
    ]
    with _one_at_a_time:
        simulation, solution = (
            _simulation(kind),
            None,
        )  # first: it tells what to type where PyBaMM is missing
        import pybamm

        simulation._solution = None
        try:
            for ampere, minutes in stages:
                if minutes <= 0 or (solution is not None and solution.termination != "final time"):
                    continue
                with_current = inputs | {"Current function [A]": -ampere}
                if solution is None:
                    solution = simulation.solve(
                        [0, 60 * minutes], inputs=with_current, initial_soc=cell.start_percent / 100
                    )
                else:
                    solution = simulation.step(
                        60 * minutes, inputs=with_current, starting_solution=solution
                    )
        except pybamm.SolverError as failed:
            if "non-positive at initial conditions" not in str(failed):
                raise EnvironmentFailure(
                    f"PyBaMM found no solution for {protocol}: {failed}"
                ) from failed
        if (
            solution is None
        ):  # the first current alone lifts the voltage to its limit: the charger stops at once
            return Charged(0.0, 0.0)
        gained = -float(solution["Discharge capacity [A.h]"].entries[-1]) / CAPACITY_AH
        plated = 0.0
        if kind == "real":
            plated = (
                float(solution["Loss of capacity to negative lithium plating [A.h]"].entries[-1])
                / CAPACITY_AH
            )
    return Charged(round(gained, 4), round(plated, 6))


class Battery(Bench[Cell, Protocol]):
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
        return (
            f"{task.minutes} min from {task.start_percent} %"  # temperature and plating stay hidden
        )

    def goal(self) -> str:
        return f"charge from {self.task.start_percent} % in {self.task.minutes} min"

    @action
    def simulate(
        self,
        first: Annotated[float, Range(0.5, 12, 0.5)],
        minutes: Annotated[int, Range(1, 45)],
        second: Annotated[float, Range(0.5, 12, 0.5)],
    ) -> Outcome:
        """Compute the charge taken by so many ampere for so many minutes and then by the second current."""
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
        """Against a charge at one capacity an hour that plates nothing."""
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
