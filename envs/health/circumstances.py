"""What happens to a person from outside: a coach's messages, and illness, travel and holidays.

Adherence follows the habituation and disengagement of just-in-time adaptive interventions
(Nahum-Shani et al. 2018; Klasnja et al. 2019): each message makes the next one weaker, and helps
only if it fits the moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Attention:
    """How much a person listens, both in [0, 1]: `engagement` ends the coaching near 0."""

    engagement: float = 1.0
    habituation: float = 0.0

    def follows(self, fits: float, motivation: float, ill: bool, rng: np.random.Generator) -> bool:
        """Whether a message is followed; `fits` in [-1, 1] is how well it suits the moment.

        Each message wears the attention out, followed or not.
        """
        x = 1.5 * (motivation - 0.5) + 1.5 * fits - 2.5 * self.habituation + (self.engagement - 0.5)
        willing = bool(rng.random() < 1 / (1 + math.exp(-2 * x)))
        followed = willing and not (ill and fits < 0.5)
        change = 0.03 if followed else -0.04
        misfit = 0.05 if fits < 0 else 0.0
        self.habituation = min(1.0, self.habituation + 0.15)
        self.engagement = max(0.0, self.engagement + change - misfit)
        return followed

    def answer_question(self) -> None:
        """A question tires a third as much as a proposal."""
        self.habituation = min(1.0, self.habituation + 0.05)

    def recover(self) -> None:
        """One night without messages."""
        self.habituation *= 0.85
        self.engagement = min(1.0, self.engagement + 0.02)


@dataclass
class Circumstances:
    """Illness, travel and holidays, as they stand today."""

    ill_days: float = 0.0
    zone_shift: float = 0.0
    """Hours by which the local sun is off the person's clock after a flight."""
    holiday_days: float = 0.0

    @property
    def ill(self) -> bool:
        return self.ill_days > 0

    @property
    def on_holiday(self) -> bool:
        return self.holiday_days > 0

    def next_day(self, strain: float, rng: np.random.Generator) -> None:
        """An illness every three months or so, a flight every two, a holiday every 80 days.

        `strain` times 0.1 is added to the probability of an illness that begins today.
        """
        self.ill_days = max(0.0, self.ill_days - 1)
        self.holiday_days = max(0.0, self.holiday_days - 1)
        self.zone_shift *= 0.5 if abs(self.zone_shift) > 0.5 else 0.0
        # A length is drawn only if its event happens: this order decides each life at a seed.
        if rng.random() < 1 / 90 + 0.1 * strain:
            self.ill_days = float(rng.integers(3, 8))
        if rng.random() < 1 / 60:
            self.zone_shift = float(rng.integers(-8, 9))
        if rng.random() < 1 / 80:
            self.holiday_days = float(rng.integers(4, 11))
