"""What `./xp bench planning` says of one claim: what was published, what came out here, and whether
it is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experience.evaluation.statistics import Estimate, mean_estimate, ratio_estimate, shown


@dataclass(frozen=True)
class Row:
    """`ours` is in `unit`, with its 95 % interval (None where there are fewer than five seeds, or
    no mean is taken) and the value of each seed; `goal` is a bound on it, `>= x` or `<= x`, or
    empty where there is only something to tell. `controls` are what must come out otherwise, and
    `published` tells what the source has, in its words."""

    name: str
    published: str
    unit: str
    ours: float
    interval: tuple[float, float] | None
    seeds: int
    goal: str
    controls: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    values: tuple[float, ...] = ()

    @property
    def goal_met(self) -> bool:
        if not self.goal:
            return True
        sign, _, bound = self.goal.partition(" ")
        return self.ours >= float(bound) if sign == ">=" else self.ours <= float(bound)

    @property
    def here(self) -> str:
        """The figure, and how sure it is: its interval, or what each seed came to."""
        sure = f" ({self.interval[0]:.3g} to {self.interval[1]:.3g})" if self.interval else ""
        if not sure and len(self.values) > 1:
            sure = f" (each: {shown(self.values)})"
        return f"{self.ours:.3g} {self.unit}{sure}"

    def record(self) -> dict[str, object]:
        return {
            "name": self.name,
            "published": self.published,
            "unit": self.unit,
            "ours": round(self.ours, 6),
            "interval": [round(v, 6) for v in self.interval] if self.interval else None,
            "seeds": self.seeds,
            "values": [round(v, 6) for v in self.values],
            "goal": self.goal,
            "goal_met": self.goal_met,
            "controls": {k: round(v, 4) for k, v in self.controls.items()},
            "note": self.note,
        }

    @classmethod
    def read(cls, kept: Mapping[str, object]) -> Row:
        """What `record` wrote."""
        said = {name: value for name, value in kept.items() if name != "goal_met"}
        interval, values = said.pop("interval"), said.pop("values")
        return cls(
            **said,
            interval=tuple(interval) if interval else None,  # type: ignore[arg-type]
            values=tuple(values),
        )  # type: ignore[arg-type]


def row(
    name: str,
    published: str,
    unit: str,
    values: Sequence[float],
    goal: str,
    controls: Mapping[str, float] | None = None,
    note: str = "",
) -> Row:
    """A row of the mean over seeds."""
    return _of(mean_estimate(values), name, published, unit, goal, controls, note)


def ratio_row(
    name: str,
    published: str,
    unit: str,
    above: Sequence[float],
    below: Sequence[float],
    goal: str,
    controls: Mapping[str, float] | None = None,
    note: str = "",
) -> Row:
    """A row of above / below over the same seeds: the geometric mean of the seeds' ratios."""
    return _of(ratio_estimate(above, below), name, published, unit, goal, controls, note)


def _of(
    found: Estimate,
    name: str,
    published: str,
    unit: str,
    goal: str,
    controls: Mapping[str, float] | None,
    note: str,
) -> Row:
    return Row(
        name,
        published,
        unit,
        found.value,
        found.interval,
        len(found.values),
        goal,
        controls or {},
        note,
        found.values,
    )
