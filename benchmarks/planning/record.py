"""One claim of `./xp bench planning`: the published figure, ours, and whether the goal is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experience.evaluation.statistics import Estimate, mean_estimate, ratio_estimate, shown


@dataclass(frozen=True)
class Row:
    """One claim, measured.

    `ours` is in `unit`; `values` are those of the seeds. `interval` covers 95 %; it is None with
    fewer than five seeds, or if `ours` is no mean. `goal` is a bound on `ours`, `>= x` or `<= x`;
    it is empty if the row only reports. `controls` are figures of the methods compared with.
    `published` is the source's figure, in its words.
    """

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
        if sign == ">=":
            return self.ours >= float(bound)
        return self.ours <= float(bound)

    @property
    def here(self) -> str:
        """The figure with its interval, or with the value of each seed."""
        spread = ""
        if self.interval:
            spread = f" ({self.interval[0]:.3g} to {self.interval[1]:.3g})"
        elif len(self.values) > 1:
            spread = f" (each: {shown(self.values)})"
        return f"{self.ours:.3g} {self.unit}{spread}"

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
        """The row that `record` wrote."""
        # `goal_met` follows from `ours` and `goal`: a changed goal must not keep the old verdict.
        fields = {name: value for name, value in kept.items() if name != "goal_met"}
        interval = fields.pop("interval")
        values = fields.pop("values")
        return cls(
            **fields,
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
