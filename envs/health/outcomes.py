"""What a coach is judged by: the body's measurements, less those of the same person uncoached."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.health.person import KEPT_DAYS, Day, Person

MILESTONES = (28, 90, 180)
"""The days on which the person's own goal is measured."""
_WEEK = 7


@dataclass(frozen=True)
class Start:
    """The body when the coaching begins."""

    kg: float
    fitness: float


@dataclass(frozen=True)
class Baseline:
    """The same person's first four weeks without a coach: daily measurements, and the goal."""

    start: Start
    facts: Mapping[str, float]
    goal: float

    @classmethod
    def of(cls, person: Person) -> Baseline:
        start = Start(person.body.kg, person.body.fitness)
        uncoached = copy.deepcopy(person)
        uncoached.live(KEPT_DAYS * 24)
        # From the first whole week on: before it, the regularity of bedtimes says little.
        ends = range(_WEEK, len(uncoached.days) + 1)
        by_day = [facts_of(uncoached.days[:end]) for end in ends]
        means = {name: float(np.mean([facts[name] for facts in by_day])) for name in by_day[0]}
        return cls(start, means, goal_reached(uncoached, start))


def facts_of(days: Sequence[Day]) -> dict[str, float]:
    """The last day's sleep, glucose and training, and the week's regularity, each in [0, 1]."""
    day = days[-1]
    bedtimes = [each.bedtime for each in days[-_WEEK:]]
    return {
        "sleep": max(0.0, 1 - abs(day.asleep_hours - 8) / 4),
        "sleep_regularity": max(0.0, 1 - float(np.std(bedtimes))),
        "glucose_in_range": in_range(day),
        "training": min(day.load / 6, 1.0),
    }


def in_range(day: Day) -> float:
    """The share of the day's glucose values in range; 0 before the first one."""
    return day.in_range / max(day.glucose_steps, 1)


def goal_reached(person: Person, start: Start) -> float:
    """How much of the person's own goal is reached, in [0, 1]."""
    weeks = max(person.hour / 168, 1.0)
    recent = person.days[-14:]
    reached: Any = {
        "sleep": np.mean([1 - abs(day.asleep_hours - 8) / 4 for day in recent]),
        "fitness": (person.body.fitness - start.fitness) / 60 + 0.3,
        # The whole goal is a pace, 150 g a week: it must last until the milestone.
        "weight": (start.kg - person.body.kg) / (0.15 * weeks),
        # Nearly all are in range half of the time: only the other half tells people apart.
        "glucose": np.mean([in_range(day) for day in recent]) * 2 - 1,
    }[person.persona.goal]
    return min(max(float(reached), 0.0), 1.0)


def signals_of(person: Person, baseline: Baseline) -> dict[str, Any]:
    """The signals of the day that is over, each with its own measurement as evidence."""
    signals: dict[str, Any] = {
        name: (value - baseline.facts[name], f"{value:.2f}")
        for name, value in facts_of(person.days).items()
    }
    signals["overtrained"] = float(person.body.fatigue > person.body.fitness)
    if person.day in MILESTONES:
        reached = goal_reached(person, baseline.start)
        evidence = f"{person.persona.goal} {reached:.2f} at day {person.day}"
        signals["goal"] = (reached - baseline.goal, evidence)
    return signals
