"""A picture with a coloured figure among others, to be clicked: the smallest world of pixels.

After the tasks "click-shape" and "click-color" of MiniWoB (Shi et al. 2017). The text says what to
click, and only the picture says where it is: an agent that does not look hits by luck alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from experience.shards.storage.pictures import png
from experience.signal import SignalKind

SIDE = 64
"""Pixels of a picture's side."""
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (40, 80, 230),
    "yellow": (240, 220, 40),
    "purple": (160, 50, 200),
    "white": (250, 250, 250),
}
SHAPES = ("square", "disc")
_GROUND = (128, 128, 128)
_SMALLEST, _LARGEST = 6, 9
"""Half the side of a square, and the radius of a disc, in pixels."""
_GAP = 2
_MOST = 5
"""Figures: more are seldom clear of each other when their places are drawn."""
_CLICK = re.compile(r"click (\d{1,3}) (\d{1,3})")


@dataclass(frozen=True)
class Figure:
    """A figure with its centre, in pixels from the left and from the top, and its half side."""

    colour: str
    shape: str
    x: int
    y: int
    half: int

    def covers(self, x: Any, y: Any) -> Any:
        """Whether the pixels (x, y) lie on the figure; numbers, or arrays of them."""
        dx, dy = abs(x - self.x), abs(y - self.y)
        if self.shape == "disc":
            return dx**2 + dy**2 <= self.half**2
        return np.maximum(dx, dy) <= self.half

    def is_clear_of(self, other: Figure) -> bool:
        apart = max(abs(self.x - other.x), abs(self.y - other.y))
        return apart > self.half + other.half + _GAP


class Click(World[tuple[Figure, ...]]):
    """Click the figure that the text names. A click ends the episode, wherever it is.

    `figures` is how many there are, of as many colours; the first one of a task is the target.
    """

    briefing: ClassVar[str] = (
        f"You see a picture that is {SIDE} pixels wide and {SIDE} pixels high, with coloured "
        "figures on a plain ground. Click the figure that the task names, anywhere on it. The "
        "first click ends the task."
    )
    forms: ClassVar[dict[str, str]] = {
        "click X Y": f"Click the pixel X from the left and Y from the top. X, Y: 0 to {SIDE - 1}",
    }
    meanings: ClassVar[dict[str, str]] = {"hit": "when the click is on the named figure"}
    instructions = (
        "The picture is 64 pixels wide and 64 high and shows coloured figures. Click the one that "
        "is named: reply with click, and the pixels from the left and from the top: click 12 40."
    )
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "hit": SignalKind("fraction", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"hit": 1.0, INVALID: -0.05}
    cheats: ClassVar[tuple[str, ...]] = (
        "click",
        "click red",
        "hit=1",
        "click 999 999",
        "click 0 0 ",
    )
    oracle_target: ClassVar[float] = 1.0
    max_turns = 3
    goes_back = True

    def __init__(self, figures: int = 3) -> None:
        if not 1 <= figures <= _MOST:
            raise ValueError(f"figures {figures}: use 1 to {_MOST}")
        super().__init__()
        self.figures = figures

    def draw(self, rng: np.random.Generator) -> tuple[Figure, ...]:
        while True:
            colours = rng.permutation(list(COLOURS))[: self.figures]
            placed: list[Figure] = []
            for new in (_figure(str(colour), rng) for colour in colours):
                if all(new.is_clear_of(other) for other in placed):
                    placed.append(new)
            if len(placed) == self.figures:
                return tuple(placed)

    def begin(self) -> None:
        self.clicked: tuple[int, int] | None = None

    @property
    def target(self) -> Figure:
        return self.task[0]

    def observe(self) -> str:
        return f"click the {self.target.colour} {self.target.shape}"

    def describe(self) -> str:
        return f"Task: click the {self.target.colour} {self.target.shape} in the picture."

    def example(self) -> str:
        return "click 0 0"  # a corner: chosen by the picture, it would tell of it

    def images(self) -> dict[str, bytes]:
        return {"screen": png(picture(self.task))}

    def act(self, action: str) -> Outcome:
        found = _CLICK.fullmatch(action.strip())
        if found is None:
            raise ValueError("reply with click and two whole numbers, such as: click 12 40")
        x, y = int(found[1]), int(found[2])
        if max(x, y) >= SIDE:
            raise ValueError(f"({x}, {y}) is outside the picture: pixels are 0 to {SIDE - 1}")
        self.clicked = (x, y)
        return {"hit": float(self.target.covers(x, y))}, True

    def oracle_action(self) -> str:
        return f"click {self.target.x} {self.target.y}"

    def random_action(self, rng: np.random.Generator) -> str:
        x, y = rng.integers(SIDE, size=2)
        return f"click {x} {y}"

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        # scenes of one text are many states: the picture is part of the state
        return super()._info(signals) | {"state": f"{self.task} {self.clicked}"}


def picture(figures: tuple[Figure, ...]) -> np.ndarray:
    """The figures on a plain ground: uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[:SIDE, :SIDE]
    drawn = np.full((SIDE, SIDE, 3), _GROUND, np.uint8)
    for figure in figures:
        drawn[figure.covers(x, y)] = COLOURS[figure.colour]
    return drawn


def _figure(colour: str, rng: np.random.Generator) -> Figure:
    """A figure of this colour, wholly inside the picture."""
    half = int(rng.integers(_SMALLEST, _LARGEST + 1))
    x, y = (int(n) for n in rng.integers(half, SIDE - half, size=2))
    return Figure(colour, str(rng.choice(SHAPES)), x, y, half)
