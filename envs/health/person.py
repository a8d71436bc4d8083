"""A person over months: a body, habits, attention and circumstances, hour by hour.

Nothing here resets: illness, travel, holidays, a watch that is not worn and the body's slow changes
go on for as long as the stream does. All randomness comes from one generator of the person's own:
a pickled person goes on bit by bit as the original would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from envs.health.body import HOUR_STEPS, Body
from envs.health.circumstances import Attention, Circumstances
from envs.health.persona import Persona

KEPT_DAYS = 28
_MEALS = {7: 0.25, 12: 0.35, 19: 0.40}
"""The hour of each meal, and its share of a day's carbohydrates."""
_DAILY_CARBS_G = 260
_DAYLIGHT_LUX = 1000.0
_LAMP_LUX = 60.0
_EVENING_LAMP_LUX = 150.0


@dataclass
class Day:
    """The measurements of one day."""

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
class Intentions:
    """What the person means to do: by habit, and as agreed with the coach."""

    bedtime: float
    delay: float = 0.0
    """Hours by which tonight's bedtime is late."""
    diet_kcal: float = 0.0
    training_minutes: float = 0.0
    training_load: float = 0.0

    def agree_to_train(self, minutes: float, load: float) -> None:
        self.training_minutes += minutes
        self.training_load += load

    def drop_training(self) -> None:
        self.training_minutes = 0.0
        self.training_load = 0.0

    def fade(self, usual_bedtime: float) -> None:
        """One day: what was agreed on goes back to the old habits by a tenth."""
        self.diet_kcal *= 0.9
        self.bedtime += 0.1 * (usual_bedtime - self.bedtime)


@dataclass
class Person:
    """A persona in time. Invariant: `hour` counts from the stream's beginning, and only grows.

    `days` holds the last 28 days that are over.
    """

    persona: Persona
    rng: np.random.Generator
    body: Body
    intentions: Intentions
    attention: Attention = field(default_factory=Attention)
    circumstances: Circumstances = field(default_factory=Circumstances)
    hour: int = 6
    today: Day = field(default_factory=Day)
    days: list[Day] = field(default_factory=list)
    worn: bool = True
    """Whether the watch is worn today."""
    heart_rate: float = 60.0

    @classmethod
    def born(cls, persona: Persona, seed: int) -> Person:
        rng = np.random.default_rng([seed, 7])
        return cls(persona, rng, Body.of(persona), Intentions(persona.bedtime))

    @property
    def local_hour(self) -> int:
        return self.hour % 24

    @property
    def day(self) -> int:
        return self.hour // 24

    @property
    def ill(self) -> bool:
        return self.circumstances.ill

    def live(self, hours: int) -> None:
        for _ in range(hours):
            self._hour()

    def hears(self, fits: float) -> bool:
        """Whether a proposal is followed; `fits` in [-1, 1] is how well it suits the moment."""
        followed = self.attention.follows(fits, self.persona.motivation, self.ill, self.rng)
        self.today.messages += 1
        self.today.followed += followed
        return followed

    def is_asked(self) -> None:
        self.attention.answer_question()
        self.today.messages += 1

    def _hour(self) -> None:
        # A day ends at four, not at midnight: a late bedtime still belongs to its evening.
        if self.local_hour == 4:
            self._end_day()
        self._go_to_bed_or_get_up()
        self.body.pass_hour(self._lux())
        if self.body.asleep:
            self.today.asleep_hours += 1
        self._eat()
        if self.local_hour == 17 and not self.body.asleep:
            self._train()
        self.hour += 1

    def _go_to_bed_or_get_up(self) -> None:
        """Bed at about the intended hour; up when rested, or when the alarm rings at seven."""
        hour = self.local_hour
        late = (hour - self.intentions.bedtime - self._tonights_delay()) % 24
        if not self.body.asleep:
            in_the_night = hour >= 20 or hour < 5
            if late < 6 and self.body.tired and in_the_night:
                self.body.asleep = True
                self.today.bedtime = hour if hour >= 12 else hour + 24
        elif self.body.rested or self._alarm_rings():
            self.body.asleep = False

    def _alarm_rings(self) -> bool:
        return 7 <= self.local_hour < 12 and not self.circumstances.on_holiday

    def _tonights_delay(self) -> float:
        if self.local_hour == 19:
            varied = float(self.rng.normal(0, self.persona.chaos))
            by_light = self.persona.night_owl * (1 - 0.5 * self.attention.engagement)
            self.intentions.delay = varied + by_light
        return self.intentions.delay

    def _lux(self) -> float:
        if self.body.asleep:
            return 0.0
        if 8 <= (self.local_hour + self.circumstances.zone_shift) % 24 < 18:
            return _DAYLIGHT_LUX
        return _EVENING_LAMP_LUX if self.persona.night_owl > 0 else _LAMP_LUX

    def _eat(self) -> None:
        carbs = 0.0
        if share := _MEALS.get(self.local_hour):
            varied = 1 + 0.2 * float(self.rng.normal())
            carbs = share * _DAILY_CARBS_G * varied * (1 + self.intentions.diet_kcal / 2000)
        self.today.in_range += self.body.digest(carbs, self.today.active_minutes)
        self.today.glucose_steps += HOUR_STEPS

    def _train(self) -> None:
        own = max(0.0, float(self.rng.normal(15, 8)) * self.persona.motivation)
        planned = self.intentions
        # In illness the day's own movement still loads the body, but no minute of it counts.
        self.today.load += own / 10
        if not self.ill:
            self.today.active_minutes += own + planned.training_minutes
            self.today.load += planned.training_load
        elif planned.training_minutes:
            self.circumstances.ill_days += 1  # training while ill makes it longer
        planned.drop_training()

    def _end_day(self) -> None:
        """Moves on to the next day: training, weight, attention, habits and circumstances."""
        day = self.today
        # A night without sleep has no bedtime of its own: the last one stays.
        self.today = Day(bedtime=day.bedtime)
        self.body.train(day.load)
        usual = 1.0 + 0.15 * float(self.rng.normal())
        day.kcal_surplus = 150 * usual + self.intentions.diet_kcal - 6 * day.active_minutes
        self.body.weigh(day.kcal_surplus)
        self.attention.recover()
        self.intentions.fade(self.persona.bedtime)
        self.worn = bool(self.rng.random() < 0.9)
        self.circumstances.next_day(max(0.0, -self.body.performance) / 50, self.rng)
        self.days.append(day)
        del self.days[:-KEPT_DAYS]
        self.heart_rate = self._resting_heart_rate() + float(self.rng.normal(0, 1))

    def _resting_heart_rate(self) -> float:
        """Beats a minute: falls with fitness, rises with fatigue, illness and short nights."""
        short = max(0.0, 7 - self.days[-1].asleep_hours)
        rested = 70 - 0.25 * self.body.fitness + 0.3 * self.body.fatigue
        return rested + 12 * self.ill + 1.5 * short
