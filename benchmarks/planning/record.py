"""What `./xp bench planning` says of one claim: what was published, what came out here, and whether it is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experience.evaluation.statistics import mean_with_interval


@dataclass(frozen=True)
class Row:
    """`ours` and the ends of its 95 % interval are in `unit`; `goal` is a bound on it, `>= x` or `<= x`, or empty where
    there is only something to tell. `controls` are what must come out otherwise, and `published` tells what the source
    has, in its words."""

    name: str
    published: str
    unit: str
    ours: float
    interval: tuple[float, float]
    seeds: int
    goal: str
    controls: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def goal_met(self) -> bool:
        if not self.goal:
            return True
        sign, _, bound = self.goal.partition(" ")
        return self.ours >= float(bound) if sign == ">=" else self.ours <= float(bound)

    def record(self) -> dict[str, object]:
        return {"name": self.name, "published": self.published, "unit": self.unit, "ours": round(self.ours, 4),
                "interval": [round(v, 4) for v in self.interval], "seeds": self.seeds, "goal": self.goal,
                "goal_met": self.goal_met, "controls": {k: round(v, 4) for k, v in self.controls.items()},
                "note": self.note}


def row(name: str, published: str, unit: str, values: Sequence[float], goal: str,
        controls: Mapping[str, float] | None = None, note: str = "") -> Row:
    """A row of the mean over seeds."""
    mean = mean_with_interval(values)
    return Row(name, published, unit, mean.mean, (mean.mean - mean.half, mean.mean + mean.half), len(values), goal,
               controls or {}, note)


def ratio_row(name: str, published: str, unit: str, above: Sequence[float], below: Sequence[float], goal: str,
              controls: Mapping[str, float] | None = None, note: str = "") -> Row:
    """A row of mean(above) / mean(below) over the same seeds, with its paired bootstrap interval."""
    a, b = np.asarray(above, float), np.asarray(below, float)
    draws = np.random.default_rng(0).integers(len(a), size=(1000, len(a)))
    low, high = np.quantile(a[draws].mean(1) / b[draws].mean(1), [0.025, 0.975])
    return Row(name, published, unit, float(a.mean() / b.mean()), (float(low), float(high)), len(a), goal,
               controls or {}, note)
