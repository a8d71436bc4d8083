"""lab/liquid: mix stocks to an absorbance on a pipetting bench (PyLabRobot), with its real faults.

The simulation trusts the labels. The bench differs from them: the pipette is a little off, the
stocks are a little weaker or stronger than written, and a used tip carries a film.
`instrument="host:port"` puts a SiLA 2 device in the bench's place (see `envs.lab.sila`). Its
samples are judged by their readings alone: nobody knows their true absorbance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from envs.lab.mixing import Mix, Wanted, Workbench

_UL = Annotated[float, Range(0, WELL_UL, 5)]


class LiquidLab(Bench[Wanted, Mix]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = Bench.signal_catalogue | {
        "fault": SignalKind("count", "instrument"),
        "contamination": SignalKind("count", "instrument"),
    }
    reward_weights: ClassVar[dict[str, float]] = Bench.reward_weights | {
        "fault": -0.05,
        "contamination": -0.05,
    }
    briefing: ClassVar[str] = (
        "You work at a pipetting bench. Mix red and blue dye and water in one well, so that the "
        "mix has the wanted volume, blue and absorbance. The labels say how much light each stock "
        "absorbs; in truth pipette and stocks are a little off. A tip that has touched a liquid "
        "carries a film of it: take a new tip before each stock, and before the first."
    )
    forms: ClassVar[dict[str, str]] = {
        "simulate": "Compute the absorbance of a mix of so many uL, by the labels",
        "new_tip": "Throw the tip away and take a fresh one",
        "prepare": "Pipette VOLUME uL of STOCK into a well",
        "measure": "Read the absorbance of a well, off by about 0.01. SAMPLE is the number of the "
        "well. EXPECT is the reading that you expect; a good guess is paid for",
        "declare": "Hand in the well with the number SAMPLE, which ends the task",
    }
    meanings: ClassVar[dict[str, str]] = Bench.meanings | {
        "value": "times the value of the declared well: 1 for the wanted absorbance, 0 if it is a "
        "tenth off, or if the volume or the blue is not as wanted",
        "cost": f"times the costs: {PRICES['simulate']:g} for each simulate, new_tip and prepare, "
        f"{PRICES['measure']:g} for each measure",
        "fault": "for each move that the bench refuses",
        "contamination": "for each stock that a used tip has spoilt",
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
        return Wanted.drawn(rng)

    def signature(self, task: Wanted) -> str:
        return f"{task.volume:g} uL, {task.blue:g} uL blue, A {task.absorbance:g}"

    def goal(self) -> str:
        return (
            f"Mix {self.task.volume:g} uL with {self.task.blue:g} uL of blue in a well of 1 to "
            f"{WELLS}, so that its absorbance is {self.task.absorbance:g}. Stocks, by their "
            f"labels: red {ABSORBANCE['red']:g}, blue {ABSORBANCE['blue']:g}, water 0."
        )

    def goal_in_words(self) -> str:
        task = self.task
        return (
            f"Wanted in one well (wells are 1 to {WELLS}): {task.volume:g} uL in all, of which "
            f"{task.blue:g} uL are blue, with an absorbance of {task.absorbance:g}. By the labels, "
            f"pure red has an absorbance of {ABSORBANCE['red']:g}, pure blue of "
            f"{ABSORBANCE['blue']:g} and water of 0; a mix has the mean, weighted by volume."
        )

    def recipe_in_words(self, recipe: str) -> str:
        red, blue, water = recipe.split()
        return f"{red} uL red, {blue} uL blue, {water} uL water"

    def _in_words(self, line: str) -> str:
        return super()._in_words(line).replace("measured sample", "measured well")

    def example(self) -> str:
        return "simulate 60 30 110"

    def begin(self) -> None:
        super().begin()
        self._hidden = Hidden.drawn(np.random.default_rng(self.task.hidden))
        self._workbench = Workbench(self._bench())

    def _bench(self) -> LiquidBench:
        if not self._instrument:
            return PyLabRobotBench(self._hidden, self.task.hidden)
        # Imported here: a bench of this process needs no SiLA 2.
        from envs.lab.sila import SilaBench

        return SilaBench(self._instrument, self.task.hidden)

    @action
    def simulate(self, red: _UL, blue: _UL, water: _UL) -> Outcome:
        """What a mix of so many uL would absorb, by the labels."""
        return self.simulated(Mix(red, blue, water).checked())

    @action
    def new_tip(self) -> Outcome:
        """Throw the tip away and take a fresh one."""
        return self._tried("new tip", self._workbench.new_tip)

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
        before = self._workbench.contaminations
        signals, ended = self._tried(
            f"{stock} {volume:g} uL into {well}",
            lambda: self._workbench.pipette(stock, well, volume),
        )
        carried = self._workbench.contaminations - before
        if carried:
            signals["contamination"] = (float(carried), "a film in the stock")
        return signals, ended

    def _tried(self, what: str, move: Callable[[], None]) -> Outcome:
        """Does `move`; a fault of the bench is a signal and a line of the notebook."""
        try:
            move()
        except LiquidFault as fault:
            self._notebook.append(f"{what}: {fault}")
            return {"fault": (1.0, str(fault)[:80]), "cost": PRICES["simulate"]}, False
        self._notebook.append(what)
        return {"cost": PRICES["simulate"]}, False

    def _sample(self, number: int) -> Sample[Mix]:
        """A well is a sample as soon as something is in it."""
        return self._workbench.sample(number)

    @action
    def declare(self, sample: int) -> Outcome:
        """Hand in a well, which ends the campaign."""
        mix = self._sample(sample).recipe
        truth = self._workbench.judged_absorbance(sample)
        return {"value": (self.worth(mix, truth), f"{self.words(mix)}: {truth:.3f}")}, True

    def cheap(self, recipe: Mix) -> float:
        return recipe.label_absorbance

    def real(self, recipe: Mix) -> float:
        return recipe.real_absorbance(self._hidden)

    def worth(self, recipe: Mix, truth: float) -> float:
        return self.task.worth(recipe, truth)

    def grid(self) -> list[Mix]:
        return self.task.candidates()

    def oracle_action(self) -> str:
        best = max(self.grid(), key=lambda mix: self.worth(mix, self.real(mix)))
        return self._next_step(best)

    def expert_action(self) -> str:
        """A careful worker who trusts the labels, and changes tips."""
        best = max(self.grid(), key=lambda mix: self.worth(mix, self.cheap(mix)))
        return self._next_step(best)

    def _next_step(self, mix: Mix) -> str:
        return steps_to(mix)[min(self._turn, 6)]

    def random_action(self, rng: np.random.Generator) -> str:
        well = int(rng.integers(1, 3))
        moves = [f"prepare {name} {well} {5 * int(rng.integers(1, 20))}" for name in STOCKS]
        choices = ["new_tip", *moves]
        for filled in self._workbench.filled_wells():
            choices += [f"measure {filled}", f"declare {filled}"]
        return str(rng.choice(choices))

    def snapshot(self) -> bytes:
        if self._instrument:
            raise NotImplementedError("an instrument does not go back")
        return super().snapshot()


def steps_to(mix: Mix) -> list[str]:
    """The actions, at most seven, that make `mix` in well 1 and declare it."""
    steps = []
    # Water first: a tip takes a film out of the well with it, and of water it matters least.
    for name in STOCKS[::-1]:
        volume = getattr(mix, name)
        if volume > 0:
            steps += ["new_tip", f"prepare {name} 1 {volume:g}"]
    return [*steps, "declare 1"]
