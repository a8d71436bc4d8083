"""The bench that every lab stands on: simulate what is cheap and biased, prepare and measure what
is dear and noisy, declare one sample, which is judged without noise.

A reading may be predicted before it is taken; how well is a signal of its own (`calibration`), so
that an agent that knows what it does not know is paid for it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action

Task = TypeVar("Task")
Recipe = TypeVar("Recipe")

__all__ = ["Bench", "Range", "action"]

PRICES = {"simulate": 0.01, "prepare": 0.05, "measure": 0.03}


@dataclass(frozen=True)
class Sample(Generic[Recipe]):
    """What stands on the bench: what was asked for, and the property that it really has."""

    recipe: Recipe
    truth: float


class Bench(ToolWorld[Task], Generic[Task, Recipe]):
    """A campaign. Subclasses give `simulate` and `prepare` with the parameters of their recipe, and
    say how good a property is. `scale` is the error of a prediction that is still worth something,
    in the property's unit."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "value": SignalKind("fraction", "instrument"),
        "reading": SignalKind("property", "instrument"),
        "simulated": SignalKind("property", "model"),
        "calibration": SignalKind("fraction", "instrument"),
        "cost": SignalKind("kEUR", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"value": 1.0, "calibration": 0.02, "cost": -1.0}
    max_turns = 8
    goes_back: ClassVar[bool] = True
    noise: ClassVar[float] = 0.01
    scale: ClassVar[float] = 0.05

    @abstractmethod
    def goal(self) -> str:
        """What is wanted, in one line."""

    @abstractmethod
    def cheap(self, recipe: Recipe) -> float:
        """What the simulation says that the property is."""

    @abstractmethod
    def real(self, recipe: Recipe) -> float:
        """What it is. Never shown without noise."""

    @abstractmethod
    def worth(self, recipe: Recipe, truth: float) -> float:
        """How good it is to have made this, at most 1."""

    @abstractmethod
    def grid(self) -> list[Recipe]:
        """The recipes that the oracle looks through."""

    def words(self, recipe: Recipe) -> str:
        return " ".join(f"{v:g}" for v in vars(recipe).values())

    def begin(self) -> None:
        self._notebook: list[str] = []
        self._samples: list[Sample[Recipe]] = []

    def observe(self) -> str:
        return "\n".join([self.goal(), *self._notebook])

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
            raise ValueError(f"no sample {number}; prepare one first")
        return self._samples[number - 1]

    @action
    def measure(self, sample: int, expect: float = math.nan) -> Outcome:
        """Take a noisy reading of a sample, and say what you expect it to be."""
        held = self._sample(sample)
        if math.isinf(expect):
            raise ValueError("expect is a finite number")
        reading = held.truth + float(self.np_random.normal(0, self.noise))
        self._notebook.append(f"read {sample} = {reading:.2f}")
        found: dict[str, Any] = {
            "reading": (reading, f"sample {sample}"),
            "cost": PRICES["measure"],
        }
        if not math.isnan(expect):
            found["calibration"] = (
                math.exp(-(((reading - expect) / self.scale) ** 2)),
                f"expected {expect:g}",
            )
        return found, False

    @action
    def declare(self, sample: int) -> Outcome:
        """Hand in a sample, which ends the campaign."""
        held = self._sample(sample)
        return {
            "value": (
                self.worth(held.recipe, held.truth),
                f"{self.words(held.recipe)}: {held.truth:.3f}",
            )
        }, True

    def random_action(self, rng: np.random.Generator) -> str:
        recipes = self.grid()
        recipe = self.words(recipes[int(rng.integers(len(recipes)))])
        if not self._samples:
            return f"{rng.choice(['simulate', 'prepare'])} {recipe}"
        number = int(rng.integers(len(self._samples))) + 1
        return str(
            rng.choice(
                [
                    f"simulate {recipe}",
                    f"prepare {recipe}",
                    f"measure {number}",
                    f"declare {number}",
                ]
            )
        )

    def oracle_action(self) -> str:
        """Knows what is real: prepares the best recipe of the grid, and declares it."""
        if not self._samples:
            best = max(self.grid(), key=lambda r: self.worth(r, self.real(r)))
            return f"prepare {self.words(best)}"
        return f"declare {len(self._samples)}"

    def expert_action(self) -> str:
        """An engineer who trusts the simulation: tries three recipes there, prepares the best,
        declares it."""
        if self._samples:
            return f"declare {len(self._samples)}"
        tried = [line for line in self._notebook if line.startswith("sim ")]
        recipes = self.grid()
        if len(tried) < 3:
            return f"simulate {self.words(recipes[int(self.np_random.integers(len(recipes)))])}"
        by_words = {self.words(r): r for r in recipes}
        told = {line[4:].partition(" = ")[0]: float(line.rpartition(" = ")[2]) for line in tried}
        return f"prepare {max(told, key=lambda w: self.worth(by_words[w], told[w]))}"
