"""The base of the labs: simulate (cheap, biased), prepare and measure (dear, noisy), declare.

The declared sample ends the campaign and is judged without noise. An agent may predict a reading
before it takes it. The signal `calibration` says how good the prediction was: an agent is paid for
knowing what it does not know.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.refused import Refused

Task = TypeVar("Task")
Recipe = TypeVar("Recipe")

__all__ = ["Bench", "Range", "action"]

PRICES = {"simulate": 0.01, "prepare": 0.05, "measure": 0.03}


@dataclass(frozen=True)
class Sample(Generic[Recipe]):
    """A sample on the bench: the recipe that was asked for, and the sample's real property."""

    recipe: Recipe
    truth: float


class Bench(ToolWorld[Task], Generic[Task, Recipe]):
    """A campaign of experiments towards one property.

    Subclasses define the actions `simulate` and `prepare` with the parameters of their recipe, and
    how much a property is worth.
    """

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "value": SignalKind("fraction", "instrument"),
        "reading": SignalKind("property", "instrument"),
        "simulated": SignalKind("property", "model"),
        "calibration": SignalKind("fraction", "instrument"),
        "cost": SignalKind("kEUR", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"value": 1.0, "calibration": 0.02, "cost": -1.0}
    meanings: ClassVar[dict[str, str]] = {
        "value": "times the value of the sample that you declare, at most 1",
        "calibration": "times the quality of each EXPECT, which is 1 if the reading is as expected",
        "cost": f"times the costs: {PRICES['simulate']:g} for each simulate, "
        f"{PRICES['prepare']:g} for each prepare, {PRICES['measure']:g} for each measure",
    }
    max_turns = 8
    goes_back: ClassVar[bool] = True
    noise: ClassVar[float] = 0.01
    """Standard deviation of a reading, in the property's unit."""
    scale: ClassVar[float] = 0.05
    """The error of a prediction at which `calibration` has fallen to 1/e, in the same unit."""

    @abstractmethod
    def goal(self) -> str:
        """The wanted property, in one line for the agent."""

    @abstractmethod
    def cheap(self, recipe: Recipe) -> float:
        """The property as the simulation has it."""

    @abstractmethod
    def real(self, recipe: Recipe) -> float:
        """The real property. Never shown without noise."""

    @abstractmethod
    def worth(self, recipe: Recipe, truth: float) -> float:
        """The value of a declared sample with the property `truth`, at most 1."""

    @abstractmethod
    def grid(self) -> list[Recipe]:
        """The recipes among which the oracle and the expert choose."""

    def words(self, recipe: Recipe) -> str:
        return " ".join(f"{v:g}" for v in vars(recipe).values())

    def begin(self) -> None:
        self._notebook: list[str] = []
        self._samples: list[Sample[Recipe]] = []

    def observe(self) -> str:
        return "\n".join([self.goal(), *self._notebook])

    def goal_in_words(self) -> str:
        """The wanted property in sentences, with units."""
        return self.goal()

    def recipe_in_words(self, recipe: str) -> str:
        """A recipe of the notebook, with names and units."""
        return recipe

    def describe(self) -> str:
        found = [f"- {self._in_words(line)}" for line in self._notebook]
        heading = "Your notebook:" if found else "Your notebook is empty."
        return "\n".join([self.goal_in_words(), heading, *found])

    def _in_words(self, line: str) -> str:
        """A line of the notebook in words; as it stands, if it is of another form."""
        if simulated := re.fullmatch(r"sim (.*) = (\S+)", line):
            return f"simulated {self.recipe_in_words(simulated[1])}: {simulated[2]}"
        if read := re.fullmatch(r"read (\d+) = (\S+)", line):
            return f"measured sample {read[1]}: {read[2]}"
        if made := re.fullmatch(r"sample (\d+): (.*)", line):
            return f"prepared sample {made[1]}: {self.recipe_in_words(made[2])}"
        return line

    def simulated(self, recipe: Recipe) -> Outcome:
        found = self.cheap(recipe)
        self._notebook.append(f"sim {self.words(recipe)} = {found:.2f}")
        return {"simulated": found, "cost": PRICES["simulate"]}, False

    def prepared(self, recipe: Recipe) -> Outcome:
        self._samples.append(Sample(recipe, self.real(recipe)))
        self._notebook.append(f"sample {len(self._samples)}: {self.words(recipe)}")
        return {"cost": PRICES["prepare"]}, False

    def _sample(self, number: int) -> Sample[Recipe]:
        if not 1 <= number <= len(self._samples):
            made = f"1 to {len(self._samples)}" if self._samples else "none"
            raise Refused(
                f"no sample {number}; prepare one first",
                f"There is no sample {number}. Samples that were prepared: {made}.",
            )
        return self._samples[number - 1]

    @action
    def measure(self, sample: int, expect: float = math.nan) -> Outcome:
        """Take a noisy reading of a sample, and say what you expect it to be."""
        held = self._sample(sample)
        # NaN means that nothing is expected. An infinite number is refused before the draw below:
        # a refused action must leave the random numbers as they were.
        if math.isinf(expect):
            raise Refused("expect is a finite number", "EXPECT must be a finite number.")
        reading = held.truth + float(self.np_random.normal(0, self.noise))
        self._notebook.append(f"read {sample} = {reading:.2f}")
        signals: dict[str, Any] = {
            "reading": (reading, f"sample {sample}"),
            "cost": PRICES["measure"],
        }
        if not math.isnan(expect):
            close = math.exp(-(((reading - expect) / self.scale) ** 2))
            signals["calibration"] = (close, f"expected {expect:g}")
        return signals, False

    @action
    def declare(self, sample: int) -> Outcome:
        """Hand in a sample, which ends the campaign."""
        held = self._sample(sample)
        evidence = f"{self.words(held.recipe)}: {held.truth:.3f}"
        return {"value": (self.worth(held.recipe, held.truth), evidence)}, True

    def random_action(self, rng: np.random.Generator) -> str:
        recipes = self.grid()
        recipe = self.words(recipes[int(rng.integers(len(recipes)))])
        if not self._samples:
            return f"{rng.choice(['simulate', 'prepare'])} {recipe}"
        number = int(rng.integers(len(self._samples))) + 1
        on_recipe = [f"simulate {recipe}", f"prepare {recipe}"]
        on_sample = [f"measure {number}", f"declare {number}"]
        return str(rng.choice(on_recipe + on_sample))

    def oracle_action(self) -> str:
        """Knows the real properties: prepares the best recipe of the grid, and declares it."""
        if not self._samples:
            best = max(self.grid(), key=lambda r: self.worth(r, self.real(r)))
            return f"prepare {self.words(best)}"
        return f"declare {len(self._samples)}"

    def expert_action(self) -> str:
        """An engineer who trusts the simulation: simulates three recipes and prepares the best."""
        if self._samples:
            return f"declare {len(self._samples)}"
        recipes = self.grid()
        if sum(line.startswith("sim ") for line in self._notebook) < 3:
            return f"simulate {self.words(recipes[int(self.np_random.integers(len(recipes)))])}"
        by_words = {self.words(recipe): recipe for recipe in recipes}
        simulated = self._simulated_properties()
        best = max(simulated, key=lambda words: self.worth(by_words[words], simulated[words]))
        return f"prepare {best}"

    def _simulated_properties(self) -> dict[str, float]:
        """The property by the words of each recipe that the notebook has simulated."""
        # Read from the notebook: the expert knows what an agent sees, rounded to two decimals.
        lines = [line.removeprefix("sim ") for line in self._notebook if line.startswith("sim ")]
        parts = [line.partition(" = ") for line in lines]
        return {words: float(value) for words, _, value in parts}
