"""A grid of keys and doors as text: the smallest world in which planning beats habit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from envs.refused import Refused
from experience.signal import SignalKind

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
Cell = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The start cell, and the key and the door of each stage; one stage is shown at a time."""

    start: Cell
    keys: tuple[Cell, ...]
    doors: tuple[Cell, ...]


class KeyDoor(World[Grid]):
    """Walk onto the key, then through the door. Without its key a door is a wall.

    A door leads to the next stage's key; after the last door the episode ends. `size` is the length
    of the grid's side. `max_turns` of 0 means 6 · size · stages.
    """

    briefing: ClassVar[str] = (
        "You walk on a square grid. Walk onto the key to pick it up, then onto the door, which "
        "opens only for its key. Without the key the door is a wall. A door leads to the next "
        "key; the task is done after the last door. Each turn moves you by one cell; a step off "
        "the grid leaves you where you are. Row 0 is the top row, column 0 the leftmost column."
    )
    reply: ClassVar[str] = "Reply with one word and nothing else. The word is one of:"
    forms: ClassVar[dict[str, str]] = {
        "up": "go one row up.",
        "down": "go one row down.",
        "left": "go one column to the left.",
        "right": "go one column to the right.",
    }
    meanings: ClassVar[dict[str, str]] = {"solved": "when you pass the last door"}
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
                f"size {size}, stages {stages}: "
                "use a side of 2 to 9 with room for every key and door"
            )
        super().__init__()
        self.size = size
        self.stages = stages
        self.max_turns = max_turns or 6 * size * stages

    def draw(self, rng: np.random.Generator) -> Grid:
        """Start, keys and doors on different cells, uniformly."""
        drawn = rng.permutation(self.size**2)[: 2 * self.stages + 1]
        cells = [divmod(int(number), self.size) for number in drawn]
        return Grid(cells[0], tuple(cells[1 : self.stages + 1]), tuple(cells[self.stages + 1 :]))

    def begin(self) -> None:
        self.at = self.task.start
        self.stage = 0
        self.has_key = False

    def observe(self) -> str:
        # Distances instead of cells: what is learned near one key holds near every other one.
        you = f"you {self.at[0]} {self.at[1]}"
        if self._is_over:
            return f"{you}\nall doors passed"
        key = "held" if self.has_key else self._way_to(self.task.keys[self.stage])
        left = f"\ndoors left {self.stages - self.stage}" if self.stages > 1 else ""
        return f"{you}\nkey {key}\ndoor {self._way_to(self.task.doors[self.stage])}{left}"

    def describe(self) -> str:
        grid = f"the {self.size} x {self.size} grid"
        here = f"You are in row {self.at[0]}, column {self.at[1]} of {grid}."
        if self._is_over:
            return f"{here} You have passed all doors."
        door = self._direction(self.task.doors[self.stage])
        if self.has_key:
            lines = [here, f"You have the key. The door is {door}."]
        else:
            key = self._direction(self.task.keys[self.stage])
            lines = [here, f"You do not have the key. The key is {key}.", f"The door is {door}."]
        if self.stages > 1:
            lines.append(f"Doors that are still to be passed: {self.stages - self.stage}.")
        return "\n".join(lines)

    def example(self) -> str:
        # The same word in every state: a word chosen by the state would tell of the way.
        return "left"

    def _direction(self, cell: Cell) -> str:
        """Where a cell lies from here, in words."""
        down = cell[0] - self.at[0]
        right = cell[1] - self.at[1]
        rows = _counted(abs(down), "row", "down" if down > 0 else "up")
        columns = _counted(abs(right), "column", "to the right" if right > 0 else "to the left")
        return " and ".join(part for part in (rows, columns) if part) or "where you are"

    def _way_to(self, cell: Cell) -> str:
        """The distance to a cell by rows and columns, e.g. `up2 left0`."""
        down = cell[0] - self.at[0]
        right = cell[1] - self.at[1]
        rows = f"down{down}" if down > 0 else f"up{-down}"
        columns = f"right{right}" if right > 0 else f"left{-right}"
        return f"{rows} {columns}"

    def act(self, action: str) -> Outcome:
        if action not in MOVES:
            raise Refused(
                "reply with up, down, left or right",
                "The answer must be one word: up, down, left or right.",
            )
        goal = self._after(self.at, action)
        signals = {"solved": 0.0, "key": 0.0, "door": 0.0}
        if goal == self.task.doors[self.stage] and not self.has_key:
            return signals, False  # a closed door is a wall: the turn is spent, the agent stays
        self.at = goal
        if goal == self.task.keys[self.stage] and not self.has_key:
            self.has_key = True
            signals["key"] = 1.0
        elif goal == self.task.doors[self.stage]:
            self.stage += 1
            self.has_key = False
            signals["door"] = 1.0
            signals["solved"] = float(self._is_over)
        return signals, self._is_over

    @property
    def _is_over(self) -> bool:
        return self.stage == self.stages

    def _after(self, cell: Cell, action: str) -> Cell:
        """The cell that a move leads to; a step off the grid stays where it is."""
        down, right = MOVES[action]
        row = cell[0] + down
        column = cell[1] + right
        inside = 0 <= row < self.size and 0 <= column < self.size
        return (row, column) if inside else cell

    def oracle_action(self) -> str:
        """The first step of a shortest path to the key, or with the key to the door.

        Goes round a door without its key. Among equal paths, the order of `MOVES` decides.
        """
        goal = (self.task.doors if self.has_key else self.task.keys)[self.stage]
        closed = None if self.has_key else self.task.doors[self.stage]
        distance = self._distances(goal, closed)

        def cost(move: str) -> int:
            reached = self._after(self.at, move)
            stays = reached == self.at  # a move into the wall costs a turn
            return distance.get(reached, 99) + stays  # 99: no way leads on from there

        return min(MOVES, key=cost)

    def _distances(self, goal: Cell, closed: Cell | None) -> dict[Cell, int]:
        """Moves to `goal` from every cell that can reach it without crossing `closed`."""
        distance = {goal: 0}
        queue = deque([goal])
        while queue:  # breadth first: the first distance found is the shortest
            cell = queue.popleft()
            for move in MOVES:
                near = self._after(cell, move)
                if near not in distance and near != closed:
                    distance[near] = distance[cell] + 1
                    queue.append(near)
        return distance

    def random_action(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.actions))


def _counted(number: int, noun: str, direction: str) -> str:
    """`2 rows down`; empty for 0."""
    return f"{number} {noun}{'s' if number > 1 else ''} {direction}" if number else ""
