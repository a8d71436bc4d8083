"""Who a person is when a stream begins: the facts that stay the same for life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GOALS = ("sleep", "fitness", "weight", "glucose")
FAMILIES = (
    "nurse",
    "student",
    "driver",
    "teacher",
    "retired",
    "parent",
    "baker",
    "programmer",
    "athlete",
    "founder",
)


@dataclass(frozen=True)
class Persona:
    """The facts of one person.

    `name` is a family: families are split between training and held out.
    """

    name: str
    goal: str
    age: int
    kg: float
    bedtime: float
    """The usual hour, from 22 to 25 (25 is one at night)."""
    chaos: float
    """Standard deviation of the bedtime, in hours."""
    motivation: float
    sensitivity: float
    """Insulin sensitivity as a share of a healthy person's."""
    night_owl: float
    """Hours of evening light after the bedtime."""

    @classmethod
    def drawn(cls, families: Sequence[str], rng: np.random.Generator) -> Persona:
        """A random person of one of `families`."""
        # The order of these draws decides who lives at a seed: a new draw goes last.
        return cls(
            name=str(rng.choice(families)),
            goal=str(rng.choice(GOALS)),
            age=int(rng.integers(20, 75)),
            kg=round(float(rng.normal(80, 10)), 1),
            bedtime=float(rng.integers(44, 51)) / 2,
            chaos=round(float(rng.uniform(0.2, 1.5)), 2),
            motivation=round(float(rng.uniform(0.3, 0.9)), 2),
            sensitivity=round(float(rng.uniform(0.4, 1.0)), 2),
            night_owl=float(rng.integers(0, 3)),
        )
