"""Mixing stocks to an absorbance: what is wanted, what was asked of the pipette, and its worth."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import numpy as np

from envs.lab.bench import Sample
from envs.lab.deck import ABSORBANCE, WELL_UL, WELLS, Hidden, Liquid, LiquidBench, PyLabRobotBench

_JUDGED_READINGS = 8
_TOLERANCE = 0.05
"""The share by which volume and blue may differ from what is wanted."""


@dataclass(frozen=True)
class Mix:
    """µL of each stock, as asked of the pipette."""

    red: float
    blue: float
    water: float

    @property
    def volume(self) -> float:
        return self.red + self.blue + self.water

    @property
    def label_absorbance(self) -> float:
        """The absorbance if all labels were right."""
        if not self.volume:
            return 0.0
        total: float = sum(ABSORBANCE[name] * part for name, part in vars(self).items())
        return total / self.volume

    def real_absorbance(self, hidden: Hidden) -> float:
        """The absorbance of the mix if each stock is moved once, with a fresh tip."""
        # Nothing is moved for a stock that is not asked for: the pipette's offset is then 0.
        parts = {n: hidden.volume(part) if part else 0.0 for n, part in vars(self).items()}
        return hidden.absorbance(Liquid(parts))

    def with_more(self, stock: str, volume: float) -> Mix:
        return replace(self, **{stock: getattr(self, stock) + volume})

    def checked(self) -> Mix:
        """The mix itself. Raises ValueError if no well could hold it."""
        in_range = all(0 <= part <= WELL_UL for part in vars(self).values())
        if not in_range or self.volume == 0:
            raise ValueError(f"volumes from 0 to {WELL_UL:g} uL, and not all of them 0")
        return self


@dataclass(frozen=True)
class Wanted:
    """A wanted mix: µL in all, µL of blue, and absorbance at 520 nm.

    `hidden` is the seed of what the labels do not say.
    """

    volume: float
    blue: float
    absorbance: float
    hidden: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Wanted:
        volume = float(rng.choice([150, 180, 200, 220, 250]))
        blue = float(rng.integers(2, 9)) * 5
        red = float(rng.integers(3, 16)) * 5
        # The absorbance of a mix that exists: each task can be solved.
        absorbance = round(Mix(red, blue, volume - red - blue).label_absorbance, 2)
        return cls(volume, blue, absorbance, int(rng.integers(2**31)))

    def worth(self, mix: Mix, absorbance: float) -> float:
        """1 for the wanted absorbance, falling to 0 at a tenth off.

        0 for a mix whose volume or blue is not as wanted.
        """
        # Red and water alone reach any absorbance: without this rule blue would not matter.
        volume_off = abs(mix.volume - self.volume) > _TOLERANCE * self.volume
        if volume_off or abs(mix.blue - self.blue) > _TOLERANCE * self.blue:
            return 0.0
        return max(0.0, 1 - abs(absorbance - self.absorbance) / (0.1 * self.absorbance))

    def candidates(self) -> list[Mix]:
        """All mixes of the wanted volume and blue, by the µL of red."""
        rest = self.volume - self.blue
        reds = np.arange(5, min(rest, 140), 1)
        return [Mix(float(red), self.blue, rest - float(red)) for red in reds]


class Workbench:
    """A pipetting bench, and the mixes that were asked for in its wells."""

    def __init__(self, bench: LiquidBench) -> None:
        self._bench = bench
        self._mixes = [Mix(0, 0, 0)] * WELLS

    @property
    def contaminations(self) -> int:
        """How often a film was carried into a stock; an instrument cannot see that: 0."""
        return self._bench.contaminations if isinstance(self._bench, PyLabRobotBench) else 0

    def new_tip(self) -> None:
        self._bench.new_tip()

    def pipette(self, stock: str, well: int, volume: float) -> None:
        """Moves `volume` µL of a stock into a well. Raises LiquidFault, having moved nothing."""
        self._bench.transfer(stock, well, volume)
        # After the move: a mix must not count what a fault has kept back.
        self._mixes[well - 1] = self._mixes[well - 1].with_more(stock, volume)

    def filled_wells(self) -> list[int]:
        return [well for well, mix in enumerate(self._mixes, 1) if mix.volume > 0]

    def sample(self, well: int) -> Sample[Mix]:
        """The mix in a well, and its absorbance: the true one, or one reading of an instrument.

        Raises ValueError for a well without liquid.
        """
        if well not in self.filled_wells():
            raise ValueError(f"nothing is in well {well}; wells are 1 to {WELLS}")
        mix = self._mixes[well - 1]
        if isinstance(self._bench, PyLabRobotBench):
            return Sample(mix, self._bench.true_absorbance(well))
        return Sample(mix, self._bench.absorbance(well))

    def judged_absorbance(self, well: int) -> float:
        """The absorbance that a declared well is judged by."""
        if isinstance(self._bench, PyLabRobotBench):
            return self._bench.true_absorbance(well)
        # Nobody knows an instrument's truth: the mean of eight readings has a third of their noise.
        readings = [self._bench.absorbance(well) for _ in range(_JUDGED_READINGS)]
        return statistics.fmean(readings)
