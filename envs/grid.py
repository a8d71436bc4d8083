"""A grid of keys and doors, told in words: the smallest world in which a plan is worth more than a habit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from experience.signal import SignalKind

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
Cell = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Where everything stands at the start: stage n has key n and door n, and only one stage is shown at a time."""

    start: Cell
    keys: tuple[Cell, ...]
    doors: tuple[Cell, ...]


class KeyDoor(World[Grid]):
    """Walk onto the key, then through the door; without its key a door is a wall. After the last door the
    episode ends. `size` is the grid's side; with `stages` > 1 a door leads to the next key."""

    instructions = (
        "Walk onto the key, then with it onto the door. Reply with one of: up, down, left, right."
    )
    actions = tuple(MOVES)
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "solved": SignalKind("fraction", "env_state"),
        "key": SignalKind("count", "env_state"),
        "door": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"solved": 1.0, INVALID: -0.05}
    cheats: ClassVar[tuple[str, ...]] = (
        "open",
        "solved=1",
        "D",
        "teleport 0 0",
        "up up up up",
        "right\ndown",
        "UP",
        "move to D",
        "key",
        '{"name": "up", "arguments": {"steps": 9}}',
    )
    goes_back = True

    def __init__(self, size: int = 5, stages: int = 1, max_turns: int = 0) -> None:
        if not 2 <= size <= 9 or not 1 <= stages <= 9 or size * size < 2 * stages + 1:
            raise ValueError(
                f"size {size}, stages {stages}: use a side of 2 to 9 with room for every key and door"
            )
        super().__init__()
        self.size, self.stages, self.max_turns = size, stages, max_turns or 6 * size * stages

    def draw(self, rng: np.random.Generator) -> Grid:
        """Start, keys and doors on different cells, uniformly."""
        cells = [
            divmod(int(c), self.size) for c in rng.permutation(self.size**2)[: 2 * self.stages + 1]
        ]
        return Grid(cells[0], tuple(cells[1 : self.stages + 1]), tuple(cells[self.stages + 1 :]))

    def begin(self) -> None:
        self.at, self.stage, self.has_key = self.task.start, 0, False

    def observe(self) -> str:
        you = f"you {self.at[0]} {self.at[1]}"
        if self._is_over:
            return f"{you}\nall doors passed"
        key = "held" if self.has_key else self._way_to(self.task.keys[self.stage])
        left = f"\ndoors left {self.stages - self.stage}" if self.stages > 1 else ""
        return f"{you}\nkey {key}\ndoor {self._way_to(self.task.doors[self.stage])}{left}"

    def _way_to(self, cell: Cell) -> str:
        """e.g. `up2 left0`."""
        down, right = cell[0] - self.at[0], cell[1] - self.at[1]
        return f"{'down' if down > 0 else 'up'}{abs(down)} {'right' if right > 0 else 'left'}{abs(right)}"

    def act(self, action: str) -> Outcome:
        if action not in MOVES:
            raise ValueError("reply with up, down, left or right")
        goal = self._after(self.at, action)
        signals = {"solved": 0.0, "key": 0.0, "door": 0.0}
        if goal == self.task.doors[self.stage] and not self.has_key:
            return signals, False
        self.at = goal
        if goal == self.task.keys[self.stage] and not self.has_key:
            self.has_key, signals["key"] = True, 1.0
        elif goal == self.task.doors[self.stage]:
            self.stage, self.has_key, signals["door"] = self.stage + 1, False, 1.0
            signals["solved"] = float(self._is_over)
        return signals, self._is_over

    @property
    def _is_over(self) -> bool:
        return self.stage == self.stages

    def _after(self, cell: Cell, action: str) -> Cell:
        """The cell that a move leads to; a step off the grid stays where it is."""
        row, column = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
        return (row, column) if 0 <= row < self.size and 0 <= column < self.size else cell

    def oracle_action(self) -> str:
        """The first step of a shortest path to the key, or with it to the door: rows first, round a closed door."""
        goal = (self.task.doors if self.has_key else self.task.keys)[self.stage]
        closed = None if self.has_key else self.task.doors[self.stage]
        distance = self._distances(goal, closed)
        return min(
            MOVES,
            key=lambda move: (
                distance.get(self._after(self.at, move), 99)
                + (self._after(self.at, move) == self.at)
            ),
        )

    def _distances(self, goal: Cell, closed: Cell | None) -> dict[Cell, int]:
        """Moves to `goal` from every cell that can reach it without crossing `closed`."""
        distance, wave = {goal: 0}, [goal]
        while wave:
            reached = {
                near: distance[cell] + 1
                for cell in wave
                for move in MOVES
                if (near := self._after(cell, move)) not in distance and near != closed
            }
            distance |= reached
            wave = list(reached)
        return distance

    def random_action(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.actions))
