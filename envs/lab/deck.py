"""A pipetting bench on PyLabRobot: tips, stocks and wells on an OT-2's deck, with the faults that
its trackers find.

PyLabRobot keeps what the robot believes (tips, volumes) and refuses what cannot be done. What
really happens is kept beside it: a pipette that is a little off, stocks that are not quite what
their labels say, and a film of the last liquid on the tip, which a careless hand carries into the
stock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from experience.errors import MissingPartError

STOCKS = ("red", "blue", "water")
ABSORBANCE = {"red": 4.0, "blue": 1.0, "water": 0.0}
"""Of the undiluted stock at 520 nm, by its label."""
WELLS, STOCK_UL, WELL_UL, FILM_UL, TIPS = 8, 300.0, 300.0, 2.0, 12


class LiquidFault(ValueError):
    """What the bench refused, having moved nothing: no tip, too little liquid, a full well."""


class LiquidBench(Protocol):
    """What an agent's bench can do; one that stands in for it is an instrument. Volumes in µL."""

    def new_tip(self) -> None: ...
    def transfer(self, source: str, well: int, volume: float) -> None: ...
    def absorbance(self, well: int) -> float: ...


@dataclass
class Liquid:
    """What is really in a vessel: µL of each stock."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STOCKS, 0.0))

    @property
    def volume(self) -> float:
        return sum(self.parts.values())

    def taken(self, volume: float) -> Liquid:
        """Takes that much out, well mixed."""
        share = min(volume / self.volume, 1.0) if self.volume > 0 else 0.0
        out = Liquid({name: part * share for name, part in self.parts.items()})
        self.parts = {name: part - out.parts[name] for name, part in self.parts.items()}
        return out

    def add(self, other: Liquid) -> None:
        self.parts = {name: part + other.parts[name] for name, part in self.parts.items()}


@dataclass(frozen=True)
class Hidden:
    """What no label says: volume moved = gain · asked + offset µL; each stock's strength; the
    reader's noise."""

    gain: float
    offset: float
    strength: Mapping[str, float]
    noise: float = 0.01

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Hidden:
        return cls(
            float(rng.uniform(0.94, 1.06)),
            float(rng.uniform(-1.5, 1.5)),
            {name: float(rng.uniform(0.9, 1.1)) for name in STOCKS},
        )

    def volume(self, asked: float) -> float:
        return max(self.gain * asked + self.offset, 0.0)

    def absorbance(self, liquid: Liquid) -> float:
        if liquid.volume <= 0:
            return 0.0
        return (
            sum(ABSORBANCE[n] * self.strength[n] * part for n, part in liquid.parts.items())
            / liquid.volume
        )


class PyLabRobotBench:
    """The bench in this process.

    Its state is its hidden part and what was done: a copy does the same again.
    """

    def __init__(self, hidden: Hidden, seed: int = 0) -> None:
        self.hidden, self.seed = hidden, seed
        self.contaminations = 0
        self._done: list[tuple[Any, ...]] = []
        self._rng = np.random.default_rng(seed)
        self._build()

    def _build(self) -> None:
        try:
            from pylabrobot import resources
            from pylabrobot.liquid_handling import LiquidHandler
            from pylabrobot.resources import set_tip_tracking, set_volume_tracking
        except ImportError as missing:
            raise MissingPartError(
                f"lab/liquid needs PyLabRobot: {missing}", "./xp setup worlds"
            ) from missing
        set_tip_tracking(True)
        set_volume_tracking(True)
        deck = resources.OTDeck()
        self._robot = LiquidHandler(backend=_silent_backend(), deck=deck)
        self._tips = resources.hamilton_96_tiprack_300uL("tips")
        self._plate = resources.cor_96_wellplate_360uL_Fb("plate")
        self._rack = resources.cor_96_wellplate_360uL_Fb("stocks")
        for slot, labware in enumerate((self._tips, self._plate, self._rack), 1):
            deck.assign_child_at_slot(labware, slot)
        _do(self._robot.setup())
        self.stocks = {
            name: Liquid(dict.fromkeys(STOCKS, 0.0) | {name: STOCK_UL}) for name in STOCKS
        }
        self.wells = [Liquid() for _ in range(WELLS)]
        self._film: Liquid | None = None
        self._used = 0
        for i, _ in enumerate(STOCKS):
            self._rack.get_item(i).tracker.set_volume(STOCK_UL)

    def new_tip(self) -> None:
        """Throws the tip away, if there is one, and takes the next."""
        if self._used == TIPS:
            raise LiquidFault(f"NoTipError: all {TIPS} tips are used")
        if self._robot.head[0].has_tip:
            _do(self._robot.discard_tips(use_channels=[0]))
        self._move(self._robot.pick_up_tips([self._tips.get_item(self._used)], use_channels=[0]))
        self._used += 1
        self._film = None
        self._done.append(("new_tip",))

    def transfer(self, source: str, well: int, volume: float) -> None:
        """Aspirates from a stock and dispenses into well 1 to 8.

        Raises LiquidFault, having moved nothing.
        """
        stock, target = self._rack.get_item(STOCKS.index(source)), self._plate.get_item(well - 1)
        if target.tracker.get_used_volume() + volume > WELL_UL:
            raise LiquidFault(f"TooLittleVolumeError: well {well} holds at most {WELL_UL:g} uL")
        self._move(self._robot.aspirate([stock], vols=[volume], use_channels=[0]))
        self._move(self._robot.dispense([target], vols=[volume], use_channels=[0]))
        real, vessel = self.stocks[source], self.wells[well - 1]
        if self._film is not None:
            self.contaminations += any(
                part > 0.01 for name, part in self._film.parts.items() if name != source
            )
            real.add(self._film)
        vessel.add(real.taken(self.hidden.volume(volume)))
        self._film = vessel.taken(min(FILM_UL, vessel.volume / 10))  # the tip's end was in it
        self._done.append(("transfer", source, well, volume))

    def absorbance(self, well: int) -> float:
        """One noisy reading at 520 nm."""
        self._done.append(("absorbance", well))
        return self.hidden.absorbance(self.wells[well - 1]) + float(
            self._rng.normal(0, self.hidden.noise)
        )

    @staticmethod
    def _move(work: Coroutine[Any, Any, Any]) -> None:
        from pylabrobot.resources import errors

        try:
            _do(work)
        except (
            errors.TooLittleLiquidError,
            errors.TooLittleVolumeError,
            errors.NoTipError,
            errors.HasTipError,
        ) as e:
            raise LiquidFault(f"{type(e).__name__}: {e}".replace("μ", "u").replace("µ", "u")) from e

    def __getstate__(self) -> tuple[Hidden, int, list[tuple[Any, ...]]]:
        return self.hidden, self.seed, self._done

    def __setstate__(self, state: tuple[Hidden, int, list[tuple[Any, ...]]]) -> None:
        hidden, seed, done = state
        PyLabRobotBench.__init__(self, hidden, seed)
        for name, *arguments in done:
            getattr(self, name)(*arguments)


def _do(work: Coroutine[Any, Any, Any]) -> Any:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def _silent_backend() -> Any:
    """Where a robot's driver stands: it takes one-channel moves and does nothing."""
    from pylabrobot.liquid_handling.backends import LiquidHandlerChatterboxBackend

    class Silent(LiquidHandlerChatterboxBackend):  # type: ignore[misc]
        async def setup(self) -> None: ...
        async def pick_up_tips(self, *_: Any, **__: Any) -> None: ...
        async def drop_tips(self, *_: Any, **__: Any) -> None: ...
        async def aspirate(self, *_: Any, **__: Any) -> None: ...
        async def dispense(self, *_: Any, **__: Any) -> None: ...

    return Silent(num_channels=1)
