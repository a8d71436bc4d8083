"""lab/reactor: make synthesis gas from methane in a stirred reactor, on Cantera's GRI-Mech 3.0.

The agent chooses a temperature and a fuel-air ratio. `simulate` is cheap and biased: it assumes
chemical equilibrium. `measure` is dear and noisy: one run of the real reactor, which is perfectly
stirred, has full kinetics, a residence time and a heat loss that the agent does not know. `declare`
ends the campaign: the recipe is run once more, without noise, and judged by its yield, its heating
and the carbon that it burns.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from envs.lab.drawing import notebook_drawn
from envs.refused import Refused
from experience.errors import EnvironmentFailure, MissingPartError
from experience.planning.campaign import Laboratory, Plan
from experience.signal import SignalKind
from experience.step import Step

TEMPERATURES_K = (900, 1600)
RATIOS = (1.2, 4.0)
_NOISE = 0.01
PRICES = {"simulate": 0.01, "measure": 0.05}
_SETTLED = 10
"""Residence times until the gas of the start is gone: e^-10 of it is left."""


@dataclass(frozen=True)
class Campaign:
    """The reactor's settings, which the agent cannot change."""

    pressure: int
    """In atm."""
    residence_ms: int
    heat_loss_k: int
    """Hidden: how much colder the reactor is than its set temperature."""


@dataclass(frozen=True)
class Product:
    """The gas that leaves."""

    syngas: float
    """(H2 + CO) out per 3 CH4 in: 1 is perfect."""
    burnt: float
    """Fraction of the carbon that leaves as CO2."""


_one_at_a_time = threading.Lock()
"""Cantera's objects must not be shared between threads, and a new one costs more than an answer."""


@lru_cache(maxsize=1)
def _gas() -> Any:
    try:
        import cantera
    except ImportError as missing:
        raise MissingPartError(
            f"the lab needs Cantera: {missing}", "pip install cantera"
        ) from missing
    cantera.suppress_deprecation_warnings()
    return cantera.Solution("gri30.yaml")


def _feed(temperature_k: float, ratio: float, pressure: float) -> Any:
    """The gas, set to methane and air at fuel-air equivalence `ratio`."""
    gas = _gas()
    gas.TPX = temperature_k, pressure * 101325.0, {"CH4": ratio, "O2": 2.0, "N2": 7.52}
    return gas


def _product(gas: Any, carbon_per_kg: float) -> Product:
    per_kg = 1.0 / gas.mean_molecular_weight
    return Product(
        float(gas["H2"].X[0] + gas["CO"].X[0]) * per_kg / (3 * carbon_per_kg),
        float(gas["CO2"].X[0]) * per_kg / carbon_per_kg,
    )


@lru_cache(maxsize=4096)
def equilibrium(temperature_k: float, ratio: float, pressure: float) -> Product:
    """The product at infinite residence time: the cheap simulation."""
    gas = _feed(temperature_k, ratio, pressure)
    carbon = float(gas["CH4"].X[0]) / gas.mean_molecular_weight
    gas.equilibrate("TP")
    return _product(gas, carbon)


@lru_cache(maxsize=4096)
def stirred_reactor(
    temperature_k: float, ratio: float, pressure: float, residence_ms: float
) -> Product:
    """The product of an isothermal perfectly stirred reactor in steady state: the real one.

    Raises EnvironmentFailure if the integration diverges.
    """
    import cantera

    gas = _feed(temperature_k, ratio, pressure)
    carbon = float(gas["CH4"].X[0]) / gas.mean_molecular_weight
    upstream = cantera.Reservoir(gas, clone=False)
    # Ignited at the start: cold gas could settle in the reactor's other steady state, unburnt.
    gas.equilibrate("TP")
    reactor = cantera.IdealGasConstPressureReactor(gas, energy="off", volume=1e-3, clone=False)
    downstream = cantera.Reservoir(gas, clone=False)
    flow = reactor.mass * 1000 / residence_ms
    inlet = cantera.MassFlowController(upstream, reactor, mdot=flow)
    outlet = cantera.MassFlowController(reactor, downstream, mdot=flow)
    network = cantera.ReactorNet([reactor])
    network.rtol = 1e-6
    network.atol = 1e-12
    try:
        network.advance(_SETTLED * residence_ms / 1000)
    except cantera.CanteraError as diverged:
        raise EnvironmentFailure(
            f"the reactor did not settle at {temperature_k} K, {ratio}: {diverged}"
        ) from diverged
    # Named until here: a controller that Python drops takes its flow with it.
    del inlet, outlet
    return _product(reactor.phase, carbon)


class Reactor(World[Campaign]):
    max_turns = 4
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 0.4
    cheats = (
        "declare nan 2.0",
        "declare inf 2.0",
        "declare 1300 nan",
        "declare 900 1e-9",
        "declare 1300 -1",
        "measure 1300 2.0; declare",
        "DECLARE 1300 2.0",
        "simulate 1300 2.0 syngas_yield=1",
    )
    instructions: ClassVar[str] = (
        "Reply with one line: `simulate K RATIO` (cheap), `measure K RATIO` (dear) or "
        "`declare K RATIO` (final), e.g. `measure 1300 1.5`"
    )
    briefing: ClassVar[str] = (
        "You run a stirred reactor that makes synthesis gas (hydrogen and carbon monoxide) from "
        "methane and air. Find a good recipe. A recipe is two numbers: K, the set temperature in "
        f"kelvin, from {TEMPERATURES_K[0]} to {TEMPERATURES_K[1]}, and RATIO, the fuel-air "
        f"equivalence ratio, from {RATIOS[0]} to {RATIOS[1]} (at 1 there is just enough air to "
        "burn all methane; a larger ratio is more fuel). A yield of 1 is perfect."
    )
    forms: ClassVar[dict[str, str]] = {
        "simulate K RATIO": "compute the yield at chemical equilibrium: cheap, but the real "
        "reactor may be colder than K, and its time is short.",
        "measure K RATIO": f"run the real reactor; the reading is off by about {_NOISE:g}.",
        "declare K RATIO": "choose this recipe for good. It is run once more, and the task ends.",
    }
    meanings: ClassVar[dict[str, str]] = {
        "syngas_yield": "times the yield of the declared recipe",
        "heating": f"times (K - {TEMPERATURES_K[0]}) / 1000 of the declared recipe",
        "carbon_burnt": "times the share of its carbon that leaves as CO2",
        "cost": f"times the costs: {PRICES['simulate']:g} for each simulate and "
        f"{PRICES['measure']:g} for each measure",
    }
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "syngas_yield": SignalKind("fraction", "instrument"),
        "heating": SignalKind("1000 K", "env_state"),
        "carbon_burnt": SignalKind("fraction", "instrument"),
        "measured_yield": SignalKind("fraction", "instrument"),
        "predicted_yield": SignalKind("fraction", "model"),
        "cost": SignalKind("kEUR", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {
        "syngas_yield": 4.0,
        "heating": -1.0,
        "carbon_burnt": -0.2,
        "cost": -1.0,
        INVALID: -0.1,
    }

    def draw(self, rng: np.random.Generator) -> Campaign:
        return Campaign(
            int(rng.integers(1, 11)),
            int(rng.choice([5, 10, 20, 30, 50, 70, 100, 150, 200])),
            int(rng.integers(0, 4)) * 20,
        )

    def signature(self, task: Campaign) -> str:
        return f"{task.pressure} atm, {task.residence_ms} ms"  # the heat loss stays hidden

    def begin(self) -> None:
        self._notebook: list[str] = []

    def observe(self) -> str:
        return "\n".join(
            [f"syngas {self.task.pressure}atm {self.task.residence_ms}ms", *self._notebook]
        )

    def describe(self) -> str:
        task = self.task
        lines = [
            f"The reactor works at a pressure of {task.pressure} atm; the gas stays in it for "
            f"{task.residence_ms} ms.",
            "Your results so far:" if self._notebook else "You have no results yet.",
        ]
        for line in self._notebook:
            recipe, _, found = line[4:].partition("=")
            kelvin, ratio = recipe.split()
            how = "simulated" if line.startswith("sim ") else "measured"
            lines.append(f"- {how} at {kelvin} K, ratio {ratio}: yield {found}")
        return "\n".join(lines)

    @staticmethod
    def draw_turn(step: Step) -> list[dict[str, Any]]:
        return notebook_drawn(step.obs_text)

    def example(self) -> str:
        return "simulate 1350 2.5"

    def act(self, action: str) -> Outcome:
        verb, temperature_k, ratio = read_recipe(action)
        if verb == "simulate":
            with _one_at_a_time:
                foreseen = equilibrium(temperature_k, ratio, self.task.pressure)
            self._notebook.append(f"sim {temperature_k:.0f} {ratio:.1f}={foreseen.syngas:.2f}")
            return {"predicted_yield": foreseen.syngas, "cost": PRICES["simulate"]}, False
        with _one_at_a_time:
            made = self._run(temperature_k, ratio)
        if verb == "measure":
            reading = made.syngas + float(self.np_random.normal(0, _NOISE))
            self._notebook.append(f"lab {temperature_k:.0f} {ratio:.1f}={reading:.2f}")
            return {"measured_yield": reading, "cost": PRICES["measure"]}, False
        return {
            "syngas_yield": (made.syngas, f"{temperature_k:.0f} K, ratio {ratio:.1f}"),
            "heating": _heating(temperature_k),
            "carbon_burnt": made.burnt,
        }, True

    def _run(self, temperature_k: float, ratio: float) -> Product:
        """One run of the real reactor; the caller holds the lock."""
        inside_k = float(temperature_k - self.task.heat_loss_k)
        return stirred_reactor(inside_k, ratio, self.task.pressure, self.task.residence_ms)

    def laboratory(self) -> Laboratory:
        """The recipes, and the reward that simulation and measurements promise for each.

        That is the yield less the heating: burnt carbon is measured only when a recipe is declared.
        """
        readings = readings_in(self._notebook)
        recipes = list(dict.fromkeys([*_GRID, *readings]))
        with _one_at_a_time:
            simulated = [equilibrium(k, r, self.task.pressure).syngas for k, r in recipes]
        measured = {
            number: _promised(recipe, float(np.mean(readings[recipe])))
            for number, recipe in enumerate(recipes)
            if recipe in readings
        }
        return Laboratory(
            recipes=np.array([_in_unit_square(recipe) for recipe in recipes]),
            simulated=np.array(list(map(_promised, recipes, simulated))),
            readings=measured,
            noise=4 * _NOISE,
            measure=[Plan(f"measure {k:.0f} {r:.1f}", PRICES["measure"], 1) for k, r in recipes],
            declare=[Plan(f"declare {k:.0f} {r:.1f}", 0.0, 1) for k, r in recipes],
            turns=self.max_turns - self._turn,
        )

    def expert_action(self) -> str:
        """An engineer who trusts the simulation: declares the better of two simulated recipes."""
        if len(self._notebook) < 2:
            return f"simulate {self._some_recipe(self.np_random)}"
        best = max(self._notebook, key=lambda line: line.partition("=")[2])
        return f"declare {best[4:].partition('=')[0]}"

    def oracle_action(self) -> str:
        """Declares the best recipe of a grid, tried in the real reactor without its noise."""
        coarse = [(k, r / 2) for k in range(900, 1601, 100) for r in range(3, 9)]
        with _one_at_a_time:
            kelvin, ratio = max(coarse, key=self._declared_worth)
        return f"declare {kelvin} {ratio:.1f}"

    def _declared_worth(self, recipe: tuple[int, float]) -> float:
        """The reward for declaring `recipe`; the caller holds the lock."""
        kelvin, ratio = recipe
        made = self._run(kelvin, ratio)
        return 4 * made.syngas - _heating(kelvin) - 0.2 * made.burnt

    def random_action(self, rng: np.random.Generator) -> str:
        return f"{rng.choice(['simulate', 'measure', 'declare'])} {self._some_recipe(rng)}"

    @staticmethod
    def _some_recipe(rng: np.random.Generator) -> str:
        return f"{int(rng.integers(18, 33)) * 50} {int(rng.integers(3, 9)) / 2:.1f}"


Conditions = tuple[float, float]
"""A recipe: set temperature in K, fuel-air ratio."""
_GRID = tuple(product(map(float, range(900, 1601, 50)), (r / 5 for r in range(6, 21))))
"""The recipes that a campaign of experiments considers."""


def readings_in(notebook: Sequence[str]) -> dict[Conditions, list[float]]:
    """The measured yields in a notebook, by recipe."""
    readings: dict[Conditions, list[float]] = {}
    for line in notebook:
        if line.startswith("lab "):
            recipe, _, reading = line.removeprefix("lab ").partition("=")
            kelvin, ratio = map(float, recipe.split())
            readings.setdefault((kelvin, ratio), []).append(float(reading))
    return readings


def _heating(kelvin: float) -> float:
    """Kelvin above the coldest setting, in thousands: the cost of heat."""
    return (kelvin - TEMPERATURES_K[0]) / 1000


def _promised(recipe: Conditions, syngas: float) -> float:
    """The reward for a yield, before any burnt carbon is known."""
    return 4 * syngas - _heating(recipe[0])


def _in_unit_square(recipe: Conditions) -> Conditions:
    """The recipe with both of its ranges scaled to [0, 1]."""
    kelvin, ratio = recipe
    coldest, hottest = TEMPERATURES_K
    leanest, richest = RATIOS
    return (kelvin - coldest) / (hottest - coldest), (ratio - leanest) / (richest - leanest)


def read_recipe(action: str) -> tuple[str, float, float]:
    """(verb, K, ratio) of an action.

    Raises ValueError saying what to write, or which limit was passed.
    """
    words = action.split()
    if len(words) != 3 or words[0] not in ("simulate", "measure", "declare"):
        raise Refused(
            "write: simulate|measure|declare K RATIO",
            "The answer must be three words: simulate, measure or declare, then K, then RATIO.",
        )
    try:
        temperature_k, ratio = float(words[1]), float(words[2])
    except ValueError:
        raise Refused(
            "K and RATIO are numbers",
            f"K and RATIO must be plain numbers, not {' '.join(words[1:])[:40]!r}.",
        ) from None
    _check("K", temperature_k, TEMPERATURES_K)
    _check("RATIO", ratio, RATIOS)
    return words[0], temperature_k, ratio


def _check(name: str, value: float, limits: tuple[float, float]) -> None:
    low, high = limits
    # Written so that NaN fails too: every comparison with it is false.
    if not low <= value <= high:
        raise Refused(
            f"{name} from {low} to {high}",
            f"{name} must be a number from {low} to {high}, not {value:g}.",
        )
