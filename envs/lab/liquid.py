"""lab/liquid: mix stocks to an absorbance on a pipetting bench (PyLabRobot), with its real faults.

The simulation trusts the labels. The bench does not keep to them: the pipette is a little off, the
stocks are not quite as strong as written, and a used tip carries a film. `instrument="host:port"`
puts a SiLA 2 device in the bench's place (see envs.lab.sila): then the sample handed in is judged
by its readings alone, for nothing knows its truth.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from envs.authoring import Outcome, SignalKind
from envs.lab.bench import PRICES, Bench, Range, Sample, action
from envs.lab.deck import (
    ABSORBANCE,
    STOCKS,
    WELL_UL,
    WELLS,
    Hidden,
    LiquidBench,
    LiquidFault,
    PyLabRobotBench,
)

_UL = Annotated[float, Range(0, WELL_UL, 5)]
_JUDGED_READINGS = 8


@dataclass(frozen=True)
class Wanted:
    """Volume in µL, of it blue, and absorbance at 520 nm; `hidden` seeds what the labels do not
    say."""

    volume: float
    blue: float
    absorbance: float
    hidden: int


@dataclass(frozen=True)
class Mix:
    """µL of each stock, as asked of the pipette."""

    red: float
    blue: float
    water: float

    @property
    def volume(self) -> float:
        return self.red + self.blue + self.water


class LiquidLab(Bench[Wanted, Mix]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = Bench.signal_catalogue | {
        "fault": SignalKind("count", "instrument"),
        "contamination": SignalKind("count", "instrument"),
    }
    reward_weights: ClassVar[dict[str, float]] = Bench.reward_weights | {
        "fault": -0.05,
        "contamination": -0.05,
    }
    max_turns = 16
    oracle_target: ClassVar[float] = 0.7
    cheats: ClassVar[Sequence[str | Sequence[str]]] = (
        "declare 1",
        "declare 0",
        "declare 9",
        "measure 1",
        "prepare red 1 nan",
        "prepare red 1 -50",
        "new_tip",
        "prepare red 1 1e9",
        "prepare red 99 10",
        "prepare green 1 10",
        "simulate inf 0 0",
        "measure 1 inf",
        ["new_tip", "prepare water 1 100", "declare 1"],
        ["new_tip", "prepare red 1 100", "declare 1"],
        ["new_tip", "prepare blue 1 300", "prepare blue 1 300", "declare 1"],
    )

    def __init__(self, instrument: str = "") -> None:
        super().__init__()
        self._instrument = instrument

    def draw(self, rng: np.random.Generator) -> Wanted:
        volume, blue = float(rng.choice([150, 180, 200, 220, 250])), float(rng.integers(2, 9)) * 5
        red = float(rng.integers(3, 16)) * 5
        return Wanted(
            volume,
            blue,
            round(_by_label(Mix(red, blue, volume - red - blue)), 2),
            int(rng.integers(2**31)),
        )

    def signature(self, task: Wanted) -> str:
        return f"{task.volume:g} uL, {task.blue:g} uL blue, A {task.absorbance:g}"

    def goal(self) -> str:
        return (
            f"Mix {self.task.volume:g} uL with {self.task.blue:g} uL of blue in a well of 1 to "
            f"{WELLS}, so that "
            f"its absorbance is {self.task.absorbance:g}. Stocks, by their labels: red "
            f"{ABSORBANCE['red']:g}, blue "
            f"{ABSORBANCE['blue']:g}, water 0."
        )

    def begin(self) -> None:
        super().begin()
        self._mixes = [Mix(0, 0, 0)] * WELLS
        self._hidden = Hidden.drawn(np.random.default_rng(self.task.hidden))
        self._bench: LiquidBench
        if self._instrument:
            from envs.lab.sila import SilaBench

            self._bench = SilaBench(self._instrument, self.task.hidden)
        else:
            self._bench = PyLabRobotBench(self._hidden, self.task.hidden)

    # ── what can be done

    @action
    def simulate(self, red: _UL, blue: _UL, water: _UL) -> Outcome:
        """What a mix of so many uL would absorb, by the labels."""
        return self.simulated(_checked(Mix(red, blue, water)))

    @action
    def new_tip(self) -> Outcome:
        """Throw the tip away and take a fresh one."""
        return self._tried("new tip", self._bench.new_tip)

    @action
    def prepare(
        self,
        stock: Literal["red", "blue", "water"],
        well: Annotated[int, Range(1, WELLS)],
        volume: _UL,
    ) -> Outcome:
        """Pipette so many uL of a stock into a well."""
        if not 0 < volume <= WELL_UL:
            raise ValueError(f"volume above 0 and at most {WELL_UL:g} uL")
        before = getattr(self._bench, "contaminations", 0)

        def move() -> None:
            self._bench.transfer(stock, well, volume)
            held = self._mixes[well - 1]
            self._mixes[well - 1] = Mix(**(vars(held) | {stock: getattr(held, stock) + volume}))

        signals, ended = self._tried(f"{stock} {volume:g} uL into {well}", move)
        carried = getattr(self._bench, "contaminations", 0) - before
        return signals | (
            {"contamination": (float(carried), "a film in the stock")} if carried else {}
        ), ended

    def _tried(self, what: str, move: Callable[[], None]) -> Outcome:
        try:
            move()
        except LiquidFault as fault:
            self._notebook.append(f"{what}: {fault}")
            return {"fault": (1.0, str(fault)[:80]), "cost": PRICES["simulate"]}, False
        self._notebook.append(what)
        return {"cost": PRICES["simulate"]}, False

    def _sample(self, number: int) -> Sample[Mix]:
        """A well is a sample once something is in it."""
        if not 1 <= number <= WELLS or self._mixes[number - 1].volume == 0:
            raise ValueError(f"nothing is in well {number}; wells are 1 to {WELLS}")
        if isinstance(self._bench, PyLabRobotBench):
            return Sample(
                self._mixes[number - 1],
                self._bench.hidden.absorbance(self._bench.wells[number - 1]),
            )
        return Sample(self._mixes[number - 1], self._bench.absorbance(number))

    @action
    def declare(self, sample: int) -> Outcome:
        """Hand in a well, which ends the campaign."""
        held = self._sample(sample)
        truth = held.truth
        if not isinstance(self._bench, PyLabRobotBench):
            truth = statistics.fmean(
                self._bench.absorbance(sample) for _ in range(_JUDGED_READINGS)
            )
        return {
            "value": (self.worth(held.recipe, truth), f"{self.words(held.recipe)}: {truth:.3f}")
        }, True

    # ── what it is worth

    def cheap(self, recipe: Mix) -> float:
        return _by_label(recipe)

    def real(self, recipe: Mix) -> float:
        parts = {name: self._hidden.volume(v) if v else 0.0 for name, v in vars(recipe).items()}
        total = sum(parts.values())
        return (
            sum(ABSORBANCE[n] * self._hidden.strength[n] * v for n, v in parts.items()) / total
            if total
            else 0.0
        )

    def worth(self, recipe: Mix, truth: float) -> float:
        """1 for the absorbance itself, 0 from a tenth off; nothing if volume or blue are not as
        asked (within 5 %)."""
        if abs(recipe.volume - self.task.volume) > 0.05 * self.task.volume or (
            abs(recipe.blue - self.task.blue) > 0.05 * self.task.blue
        ):
            return 0.0
        return max(0.0, 1 - abs(truth - self.task.absorbance) / (0.1 * self.task.absorbance))

    def grid(self) -> list[Mix]:
        rest = self.task.volume - self.task.blue
        return [
            Mix(float(red), self.task.blue, rest - float(red))
            for red in np.arange(5, min(rest, 140), 1)
        ]

    # ── who acts

    def _steps(self, mix: Mix) -> list[str]:
        return [
            step
            for name in STOCKS[::-1]
            if getattr(mix, name) > 0
            for step in ("new_tip", f"prepare {name} 1 {getattr(mix, name):g}")
        ] + ["declare 1"]

    def oracle_action(self) -> str:
        best = max(self.grid(), key=lambda mix: self.worth(mix, self.real(mix)))
        return self._steps(best)[min(self._turn, 6)]

    def expert_action(self) -> str:
        """One who trusts the labels, and changes tips."""
        best = max(self.grid(), key=lambda mix: self.worth(mix, self.cheap(mix)))
        return self._steps(best)[min(self._turn, 6)]

    def random_action(self, rng: np.random.Generator) -> str:
        well = int(rng.integers(1, 3))
        choices = [
            "new_tip",
            *(f"prepare {name} {well} {5 * int(rng.integers(1, 20))}" for name in STOCKS),
        ]
        held = [i + 1 for i, mix in enumerate(self._mixes) if mix.volume > 0]
        choices += [line for i in held for line in (f"measure {i}", f"declare {i}")]
        return str(rng.choice(choices))

    def snapshot(self) -> bytes:
        if self._instrument:
            raise NotImplementedError("an instrument does not go back")
        return super().snapshot()


def _by_label(mix: Mix) -> float:
    return sum(ABSORBANCE[n] * v for n, v in vars(mix).items()) / mix.volume if mix.volume else 0.0


def _checked(mix: Mix) -> Mix:
    if not all(0 <= v <= WELL_UL for v in vars(mix).values()) or mix.volume == 0:
        raise ValueError(f"volumes from 0 to {WELL_UL:g} uL, and not all of them 0")
    return mix
