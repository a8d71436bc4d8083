"""A person over months: a body (see physiology), habits, and what a coach's words do to them.

One call of `live(hours)` is a stretch of the day. Nothing here resets: illness, travel, holidays, a
watch that is not worn and the body's slow changes go on for as long as the stream does. All
randomness comes from one generator of the person's own, so that a pickled person goes on bit by bit
as the original would have. Adherence follows the habituation and disengagement of just-in-time
adaptive interventions (Nahum-Shani et al. 2018; Klasnja et al. 2019): each message wears the next
one out a little, and helps only where it fits the moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from envs.health import physiology as body

GOALS = ("sleep", "fitness", "weight", "glucose")
_HOUR_STEPS = 6  # of ten minutes, for glucose
_MEALS = {7: 0.25, 12: 0.35, 19: 0.40}


@dataclass(frozen=True)
class Persona:
    """What a person is when the stream begins.

    `name` is a family: families are split between training and held out.
    """

    name: str
    goal: str
    age: int
    kg: float
    bedtime: float
    chaos: float
    """Hours by which bedtimes vary."""
    motivation: float
    sensitivity: float
    """Insulin sensitivity as a share of a healthy person's."""
    night_owl: float
    """Hours of evening light beyond bedtime's."""


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


@dataclass
class Day:
    """What a day's measurements come to."""

    asleep_hours: float = 0.0
    bedtime: float = 0.0
    active_minutes: float = 0.0
    load: float = 0.0
    kcal_surplus: float = 0.0
    in_range: int = 0
    glucose_steps: int = 0
    messages: int = 0
    followed: int = 0


@dataclass
class Person:
    """A persona in time. Invariant: `hour` counts from the stream's beginning, and only grows."""

    persona: Persona
    rng: np.random.Generator
    hour: int = 6
    clock: body.Clock = (0.84, 3.5, 0.5)
    pressure: float = 0.2
    asleep: bool = False
    sugar: body.Sugar = (95.0, 0.0, 0.0, 0.0, 0.0)
    fitness: float = 20.0
    fatigue: float = 5.0
    kg: float = 0.0
    ill_days: float = 0.0
    zone_shift: float = 0.0
    holiday_days: float = 0.0
    worn: bool = True
    engagement: float = 1.0
    habituation: float = 0.0
    planned_minutes: float = 0.0
    planned_load: float = 0.0
    wanted_bedtime: float = 0.0
    late: float = 0.0
    diet_kcal: float = 0.0
    today: Day = field(default_factory=Day)
    days: list[Day] = field(default_factory=list)
    heart_rate: float = 60.0

    @classmethod
    def born(cls, persona: Persona, seed: int) -> Person:
        person = cls(
            persona, np.random.default_rng([seed, 7]), kg=persona.kg, wanted_bedtime=persona.bedtime
        )
        person.sugar = (person.basal, 0.0, 0.0, 0.0, 0.0)
        return person

    @property
    def basal(self) -> float:
        """Fasting glucose, mg/dL: higher where insulin works less."""
        return 88.0 + 40.0 * (1 - self.persona.sensitivity)

    @property
    def local_hour(self) -> float:
        return self.hour % 24

    @property
    def ill(self) -> bool:
        return self.ill_days > 0

    def resting_heart_rate(self) -> float:
        """Beats a minute: falls with fitness, rises with fatigue, illness and short nights."""
        short = max(0.0, 7 - (self.days[-1].asleep_hours if self.days else 7))
        return 70 - 0.25 * self.fitness + 0.3 * self.fatigue + 12 * self.ill + 1.5 * short

    def live(self, hours: int) -> None:
        for _ in range(hours):
            self._hour()

    def _hour(self) -> None:
        local = self.local_hour
        if local == 4:
            self._night_falls_to_the_next_day()
        self._sleep(local)
        lux = (
            0.0
            if self.asleep
            else 1000.0
            if 8 <= (local + self.zone_shift) % 24 < 18
            else (150.0 if self.persona.night_owl > 0 else 60.0)
        )
        self.clock = body.step_clock(self.clock, lux, 1.0)
        self.pressure = body.step_pressure(self.pressure, self.asleep, 1.0)
        if self.asleep:
            self.today.asleep_hours += 1
        self._eat(local)
        if local == 17 and not self.asleep:
            self._train()
        self.hour += 1

    def _sleep(self, local: float) -> None:
        """Bed at the wanted hour (more or less), up when rested or when the alarm rings."""
        since = (local - self.wanted_bedtime - self._tonight()) % 24
        if not self.asleep:
            tired = body.falls_asleep(self.pressure, self.clock[1]) or self.pressure > 0.4
            if since < 6 and tired and (local >= 20 or local < 5):
                self.asleep, self.today.bedtime = True, local if local >= 12 else local + 24
        elif body.wakes_up(self.pressure, self.clock[1]) or (
            5 < local < 12 and self.holiday_days <= 0 and local >= 7
        ):
            self.asleep = False

    def _tonight(self) -> float:
        if self.local_hour == 19:
            self.late = float(self.rng.normal(0, self.persona.chaos)) + self.persona.night_owl * (
                1 - 0.5 * self.engagement
            )
        return self.late

    def _eat(self, local: float) -> None:
        share = _MEALS.get(int(local), 0.0)
        carbs = (
            share * 260 * (1 + 0.2 * float(self.rng.normal())) * (1 + self.diet_kcal / 2000)
            if share
            else 0.0
        )
        boost = 1 + 0.4 * min(self.today.active_minutes, 60) / 60 + 0.3 * min(self.fitness, 60) / 60
        if not share and self.sugar[3] + self.sugar[4] < 50 and abs(self.sugar[0] - self.basal) < 1:
            self.today.in_range += _HOUR_STEPS * (
                70 <= self.sugar[0] <= 140
            )  # nothing moves: no need to step it
        else:
            sensitivity = 5e-4 * self.persona.sensitivity * boost
            response = 0.12 * (0.4 + 0.6 * self.persona.sensitivity)
            for i in range(_HOUR_STEPS):
                self.sugar = body.step_sugar(
                    self.sugar,
                    carbs if i == 0 else 0.0,
                    self.kg,
                    sensitivity,
                    response,
                    self.basal,
                    10.0,
                )
                self.today.in_range += 70 <= self.sugar[0] <= 140
        self.today.glucose_steps += _HOUR_STEPS

    def _train(self) -> None:
        own = max(0.0, float(self.rng.normal(15, 8)) * self.persona.motivation)
        minutes = 0.0 if self.ill else own + self.planned_minutes
        self.today.active_minutes += minutes
        self.today.load += own / 10 + (0.0 if self.ill else self.planned_load)
        if self.ill and self.planned_minutes:
            self.ill_days += 1  # training while ill makes it longer
        self.planned_minutes = self.planned_load = 0.0

    def _night_falls_to_the_next_day(self) -> None:
        day, self.today = self.today, Day()
        self.today.bedtime = day.bedtime
        self.fitness, self.fatigue = body.step_training(self.fitness, self.fatigue, day.load)
        usual = 1.0 + 0.15 * float(self.rng.normal())
        day.kcal_surplus = 150 * usual + self.diet_kcal - 6 * day.active_minutes
        self.kg = body.step_weight(self.kg, self.persona.kg, day.kcal_surplus)
        self.habituation *= 0.85
        self.engagement = min(1.0, self.engagement + 0.02)
        self.diet_kcal *= 0.9
        self.wanted_bedtime += 0.1 * (self.persona.bedtime - self.wanted_bedtime)
        self.worn = bool(self.rng.random() < 0.9)
        self._events()
        self.days.append(day)
        del self.days[:-28]
        self.heart_rate = self.resting_heart_rate() + float(self.rng.normal(0, 1))

    def _events(self) -> None:
        """Life: an illness every few months, a journey every two, a holiday now and then."""
        self.ill_days = max(0.0, self.ill_days - 1)
        self.holiday_days = max(0.0, self.holiday_days - 1)
        self.zone_shift *= 0.5 if abs(self.zone_shift) > 0.5 else 0.0
        strain = max(0.0, -body.performance(self.fitness, self.fatigue)) / 50
        if self.rng.random() < 1 / 90 + 0.1 * strain:
            self.ill_days = float(self.rng.integers(3, 8))
        if self.rng.random() < 1 / 60:
            self.zone_shift = float(self.rng.integers(-8, 9))
        if self.rng.random() < 1 / 80:
            self.holiday_days = float(self.rng.integers(4, 11))

    def hears(self, fits: float) -> bool:
        """Whether a message is followed; `fits` in [-1, 1] is how well it suits the moment.

        Costs attention.
        """
        x = (
            1.5 * (self.persona.motivation - 0.5)
            + 1.5 * fits
            - 2.5 * self.habituation
            + (self.engagement - 0.5)
        )
        followed = bool(self.rng.random() < 1 / (1 + math.exp(-2 * x))) and not (
            self.ill and fits < 0.5
        )
        self.habituation = min(1.0, self.habituation + 0.15)
        self.engagement = max(
            0.0, self.engagement + (0.03 if followed else -0.04) - (0.05 if fits < 0 else 0.0)
        )
        self.today.messages += 1
        self.today.followed += followed
        return followed
