"""A pipetting bench on PyLabRobot: tips, stocks and wells on the deck of an OT-2.

PyLabRobot keeps the robot's own record (tips, volumes) and refuses moves that cannot be done. The
real liquids are kept beside that record: the pipette is a little off, the stocks differ a little
from their labels, and a used tip carries a film of the last liquid into the next stock.
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
WELLS = 8
TIPS = 12
STOCK_UL = 300.0
WELL_UL = 300.0
FILM_UL = 2.0
"""What stays on a tip that was in a well."""
_TRACE_UL = 0.01
"""Less than this of another stock in a film is no contamination."""


class LiquidFault(ValueError):
    """The bench refused a move and moved nothing: no tip, too little liquid, a full well."""


class LiquidBench(Protocol):
    """A pipetting bench: simulated, or an instrument. Volumes in µL, wells from 1."""

    def new_tip(self) -> None: ...
    def transfer(self, source: str, well: int, volume: float) -> None: ...
    def absorbance(self, well: int) -> float: ...


@dataclass
class Liquid:
    """The real content of a vessel: µL of each stock."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STOCKS, 0.0))

    @property
    def volume(self) -> float:
        return sum(self.parts.values())

    def taken(self, volume: float) -> Liquid:
        """Takes `volume` µL of the mixed liquid out, or all of it if there is less."""
        share = min(volume / self.volume, 1.0) if self.volume > 0 else 0.0
        out = Liquid({name: part * share for name, part in self.parts.items()})
        self.parts = {name: part - out.parts[name] for name, part in self.parts.items()}
        return out

    def add(self, other: Liquid) -> None:
        self.parts = {name: part + other.parts[name] for name, part in self.parts.items()}


@dataclass(frozen=True)
class Hidden:
    """The bench's errors, which no label says."""

    gain: float
    """Volume moved = gain · volume asked + offset."""
    offset: float
    """In µL."""
    strength: Mapping[str, float]
    """Real over labelled absorbance of each stock."""
    noise: float = 0.01
    """Standard deviation of one reading."""

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

    A robot's objects cannot be pickled: a copy gets `hidden`, `seed` and the calls so far, and
    does them again.
    """

    def __init__(self, hidden: Hidden, seed: int = 0) -> None:
        self.hidden = hidden
        self.seed = seed
        self.contaminations = 0
        """How often a film of another stock was carried into a stock."""
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
        """Throws the tip away, if there is one, and takes the next. Raises LiquidFault."""
        if self._used == TIPS:
            raise LiquidFault(f"NoTipError: all {TIPS} tips are used")
        if self._robot.head[0].has_tip:
            _do(self._robot.discard_tips(use_channels=[0]))
        _move(self._robot.pick_up_tips([self._tips.get_item(self._used)], use_channels=[0]))
        self._used += 1
        self._film = None
        self._done.append(("new_tip",))

    def transfer(self, source: str, well: int, volume: float) -> None:
        """Aspirates from a stock and dispenses into well 1 to 8.

        Raises LiquidFault, having moved nothing.
        """
        stock = self._rack.get_item(STOCKS.index(source))
        target = self._plate.get_item(well - 1)
        # Asked before the move: PyLabRobot would refuse only when the tip is full already.
        if target.tracker.get_used_volume() + volume > WELL_UL:
            raise LiquidFault(f"TooLittleVolumeError: well {well} holds at most {WELL_UL:g} uL")
        _move(self._robot.aspirate([stock], vols=[volume], use_channels=[0]))
        _move(self._robot.dispense([target], vols=[volume], use_channels=[0]))
        self._move_liquid(source, well, volume)
        self._done.append(("transfer", source, well, volume))

    def _move_liquid(self, source: str, well: int, volume: float) -> None:
        """The same move with the real liquids, of which PyLabRobot knows nothing."""
        stock = self.stocks[source]
        vessel = self.wells[well - 1]
        if self._film is not None:
            others = [part for name, part in self._film.parts.items() if name != source]
            self.contaminations += any(part > _TRACE_UL for part in others)
            stock.add(self._film)
        vessel.add(stock.taken(self.hidden.volume(volume)))
        self._film = vessel.taken(min(FILM_UL, vessel.volume / 10))  # the tip's end was in it

    def true_absorbance(self, well: int) -> float:
        """The absorbance without the reader's noise; an agent never sees it."""
        return self.hidden.absorbance(self.wells[well - 1])

    def absorbance(self, well: int) -> float:
        """One noisy reading at 520 nm."""
        # A reading draws random numbers: a copy must repeat it to go on with the same ones.
        self._done.append(("absorbance", well))
        return self.true_absorbance(well) + float(self._rng.normal(0, self.hidden.noise))

    def __getstate__(self) -> tuple[Hidden, int, list[tuple[Any, ...]]]:
        return self.hidden, self.seed, self._done

    def __setstate__(self, state: tuple[Hidden, int, list[tuple[Any, ...]]]) -> None:
        hidden, seed, done = state
        PyLabRobotBench.__init__(self, hidden, seed)
        for name, *arguments in done:
            getattr(self, name)(*arguments)


def _move(work: Coroutine[Any, Any, Any]) -> None:
    """Does one move of the robot. Raises LiquidFault if PyLabRobot refuses it."""
    from pylabrobot.resources import errors

    try:
        _do(work)
    except (
        errors.TooLittleLiquidError,
        errors.TooLittleVolumeError,
        errors.NoTipError,
        errors.HasTipError,
    ) as refusal:
        # Observations are ASCII: both of Unicode's micro signs become u.
        why = f"{type(refusal).__name__}: {refusal}".replace("μ", "u").replace("µ", "u")
        raise LiquidFault(why) from refusal


def _do(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine of PyLabRobot's to its end, in a loop of its own."""
    # Not asyncio.run: it would take the thread's loop away from a caller that has set one.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def _silent_backend() -> Any:
    """A driver without a robot: it takes one-channel moves and does nothing."""
    from pylabrobot.liquid_handling.backends import LiquidHandlerChatterboxBackend

    class Silent(LiquidHandlerChatterboxBackend):  # type: ignore[misc]
        async def setup(self) -> None: ...
        async def pick_up_tips(self, *_: Any, **__: Any) -> None: ...
        async def drop_tips(self, *_: Any, **__: Any) -> None: ...
        async def aspirate(self, *_: Any, **__: Any) -> None: ...
        async def dispense(self, *_: Any, **__: Any) -> None: ...

    return Silent(num_channels=1)
