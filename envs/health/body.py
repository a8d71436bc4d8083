"""The body of one person: its state, and what an hour, a meal or a day of training does to it.

The equations stand in `physiology`; here they get the person's own constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from envs.health import physiology
from envs.health.persona import Persona

HOUR_STEPS = 6
"""Steps of ten minutes in an hour, for glucose."""
_STEP_MINUTES = 10.0
_IN_RANGE = (70, 140)
"""Plasma glucose of a healthy day, in mg/dL."""


@dataclass
class Body:
    """What changes in a body within hours and days."""

    persona: Persona
    kg: float
    sugar: physiology.Sugar
    clock: physiology.Clock = (0.84, 3.5, 0.5)
    pressure: float = 0.2
    asleep: bool = False
    fitness: float = 20.0
    fatigue: float = 5.0

    @classmethod
    def of(cls, persona: Persona) -> Body:
        return cls(persona, persona.kg, (_basal(persona), 0.0, 0.0, 0.0, 0.0))

    @property
    def basal(self) -> float:
        return _basal(self.persona)

    @property
    def performance(self) -> float:
        return physiology.performance(self.fitness, self.fatigue)

    @property
    def tired(self) -> bool:
        """Whether the person would fall asleep in bed."""
        # The model's threshold (0.57 to 0.77) is that of sleep in a chair: in bed, less is enough.
        return physiology.falls_asleep(self.pressure, self.clock[1]) or self.pressure > 0.4

    @property
    def rested(self) -> bool:
        return physiology.wakes_up(self.pressure, self.clock[1])

    def pass_hour(self, lux: float) -> None:
        """One hour of the circadian clock and of sleep pressure, at a light of `lux`."""
        self.clock = physiology.step_clock(self.clock, lux, 1.0)
        self.pressure = physiology.step_pressure(self.pressure, self.asleep, 1.0)

    def digest(self, carbs_g: float, active_minutes: float) -> int:
        """One hour of glucose after eating `carbs_g`; returns how many steps were in range."""
        # Most of a night changes nothing: leaving its steps out makes a life a quarter faster.
        if not carbs_g and self._at_rest:
            return HOUR_STEPS * _in_range(self.sugar[0])
        trained = 0.3 * min(self.fitness, 60) / 60
        boost = 1 + 0.4 * min(active_minutes, 60) / 60 + trained
        in_range = 0
        for step in range(HOUR_STEPS):
            self.sugar = physiology.step_sugar(
                self.sugar,
                carbs_g if step == 0 else 0.0,
                self.kg,
                5e-4 * self.persona.sensitivity * boost,
                0.12 * (0.4 + 0.6 * self.persona.sensitivity),
                self.basal,
                _STEP_MINUTES,
            )
            in_range += _in_range(self.sugar[0])
        return in_range

    @property
    def _at_rest(self) -> bool:
        glucose, _, _, gut1, gut2 = self.sugar
        return gut1 + gut2 < 50 and abs(glucose - self.basal) < 1

    def train(self, load: float) -> None:
        """One day's training load."""
        self.fitness, self.fatigue = physiology.step_training(self.fitness, self.fatigue, load)

    def weigh(self, surplus_kcal: float) -> None:
        """One day's surplus of energy."""
        self.kg = physiology.step_weight(self.kg, self.persona.kg, surplus_kcal)


def _basal(persona: Persona) -> float:
    """Fasting glucose in mg/dL: higher if insulin works less."""
    return 88.0 + 40.0 * (1 - persona.sensitivity)


def _in_range(glucose: float) -> bool:
    low, high = _IN_RANGE
    return low <= glucose <= high
