"""Textbook worlds whose truth is known, as plain Gymnasium environments: the collector takes them
as any stranger's.

Every instance is a life of its own, and says so in what it shows: many lives go on at once in one
collector, and no two share a state. Cells are `row column`, counted from the top left.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Text

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
Cell = tuple[int, int]


class Maze(gymnasium.Env[str, str]):
    """S&B 2018, figures 8.2, 8.4, 8.5: +1 at the goal, 0 elsewhere. After `changes_after` real
    steps of a life the walls are `walls_later`."""

    rows, columns = 6, 9
    actions = tuple(MOVES)
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0}
    layouts: ClassVar[dict[str, tuple[Cell, list[Cell], list[Cell], int]]] = {
        "dyna": ((2, 0), [(1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7)], [], 0),
        "blocking": ((5, 3), [(3, c) for c in range(8)], [(3, c) for c in range(1, 9)], 1000),
        "shortcut": ((5, 3), [(3, c) for c in range(1, 9)], [(3, c) for c in range(1, 8)], 3000),
    }
    _lives = itertools.count()

    def __init__(self, layout: str = "dyna") -> None:
        self.observation_space = Text(60, charset=string.printable)
        self.action_space = Text(10, charset=string.printable)
        self.start, self._walls, self._walls_later, self._changes_after = self.layouts[layout]
        self.goal = (0, 8)
        self.life, self.steps = next(self._lives), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.start
        return self._seen(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        changed = self._changes_after and self.steps > self._changes_after
        self.at = moved(
            self.at, action, self.rows, self.columns, self._walls_later if changed else self._walls
        )
        return self._seen(), float(self.at == self.goal), self.at == self.goal, False, {}

    def _seen(self) -> str:
        return f"life {self.life} at {self.at[0]} {self.at[1]}"


FOUR_ROOMS = (
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
)
"""Sutton, Precup & Singh 1999, figure 2: 104 cells, of which four are hallways."""
HALLWAYS: dict[str, Cell] = {"north": (2, 5), "west": (5, 1), "east": (6, 8), "south": (9, 5)}


class FourRooms(gymnasium.Env[str, str]):
    """A move goes where it says with probability 2/3, each other way with 1/9. +1 at the goal;
    entering a cell of `penalties` costs 1. A life starts in the top left room."""

    actions = tuple(MOVES)
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0}
    _lives = itertools.count()

    def __init__(self, goal: str = "7 9") -> None:
        self.observation_space = Text(60, charset=string.printable)
        self.action_space = Text(60, charset=string.printable)
        row, _, column = goal.partition(" ")
        self.goal, self.life = (int(row), int(column)), next(self._lives)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = (0, 0)
        return self._seen(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        others = [a for a in MOVES if a != action]
        done = action if self.np_random.random() < 2 / 3 else str(self.np_random.choice(others))
        self.at = moved(self.at, done, 11, 11, WALLS)
        return self._seen(), float(self.at == self.goal), self.at == self.goal, False, {}

    def _seen(self) -> str:
        return f"{self.at[0]} {self.at[1]}"


WALLS = frozenset(
    (r, c) for r, line in enumerate(FOUR_ROOMS) for c, mark in enumerate(line) if mark == "#"
)
CELLS = tuple((r, c) for r in range(11) for c in range(11) if (r, c) not in WALLS)


def moved(cell: Cell, action: str, rows: int, columns: int, walls: Iterable[Cell]) -> Cell:
    """Where a move leads; walls and edges leave it where it is."""
    ahead = (cell[0] + MOVES[action][0], cell[1] + MOVES[action][1])
    return (
        ahead if 0 <= ahead[0] < rows and 0 <= ahead[1] < columns and ahead not in walls else cell
    )


gymnasium.register(id="Maze-v0", entry_point=Maze, order_enforce=False, disable_env_checker=True)
gymnasium.register(
    id="FourRooms-v0", entry_point=FourRooms, order_enforce=False, disable_env_checker=True
)
