"""Textbook worlds whose exact values are known, as plain Gymnasium environments.

The collector treats them as any stranger's environment. Each instance of a maze is a life, and its
observations name the life: one collector runs many lives at once, and no two share a state. Cells
are `row column`, counted from the top left.
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
    """S&B 2018, figures 8.2, 8.4, 8.5: +1 at the goal, 0 elsewhere.

    A layout is (start, walls, later walls, number of a life's steps after which they replace the
    walls; 0 means never).
    """

    rows = 6
    columns = 9
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
        self.life = next(self._lives)
        self.steps = 0  # of the whole life, not of an episode: the walls change once

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.start
        return self._seen(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        changed = self._changes_after and self.steps > self._changes_after
        walls = self._walls_later if changed else self._walls
        self.at = moved(self.at, action, self.rows, self.columns, walls)
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
    """Sutton, Precup & Singh 1999: +1 at the goal. A life starts in the top left room.

    A move succeeds with probability 2/3, and goes in each other direction with 1/9.
    """

    actions = tuple(MOVES)
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0}

    def __init__(self, goal: str = "7 9") -> None:
        self.observation_space = Text(60, charset=string.printable)
        self.action_space = Text(60, charset=string.printable)
        row, _, column = goal.partition(" ")
        self.goal = (int(row), int(column))

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
    """The cell that a move leads to: `cell` itself at a wall or an edge."""
    down, right = MOVES[action]
    ahead = (cell[0] + down, cell[1] + right)
    inside = 0 <= ahead[0] < rows and 0 <= ahead[1] < columns
    return ahead if inside and ahead not in walls else cell


gymnasium.register(id="Maze-v0", entry_point=Maze, order_enforce=False, disable_env_checker=True)
gymnasium.register(
    id="FourRooms-v0", entry_point=FourRooms, order_enforce=False, disable_env_checker=True
)
