"""AND/OR search for proofs: any tactic may close a goal; a tactic must close all its subgoals.

The search proves nothing: the kernel is asked for every tactic, and the result is a script for it
to check anew. Selection is PUCT with a prior over tactics; the value of a tactic is the product of
the values of its subgoals (AlphaProof's product nodes, Hubert et al. 2025).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Path = tuple[str, ...]
"""The tactics and goal numbers that lead from the root to a goal."""


class Kernel(Protocol):
    """The proof assistant: the only authority on what a tactic does."""

    def apply(self, path: Path, tactic: str) -> list[tuple[Path, str]] | None:
        """The goals (path and text) that `tactic` leaves of the goal at `path`; None if it fails.

        An empty list means that the goal is closed.
        """


Prior = Callable[[str], Mapping[str, float]]
"""Goal text -> candidate tactics with their probabilities."""
UNKNOWN = 0.4
"""The value of a goal that was not visited: between hopeless (0) and closed (1)."""
STEP = 0.95
"""The factor that a tactic costs: shorter proofs have greater values."""
_DESCENTS_PER_TACTIC = 4
"""Descents allowed for each tactic of the budget. Some end at a goal without tactics, and ask the
kernel nothing: without this limit the search might never end."""


@dataclass
class Goal:
    """An OR node. `closed_by` is the tactic whose subgoals are all closed.

    A goal is `hopeless` if every tactic of it was refused, or if it is too deep.
    """

    path: Path
    text: str
    tactics: dict[str, Attempt] = field(default_factory=dict)
    visits: int = 0
    closed_by: str | None = None
    hopeless: bool = False

    @property
    def value(self) -> float:
        """In [0, 1]: the greatest mean of its visited tactics."""
        if self.closed_by is not None:
            return 1.0
        if self.hopeless:
            return 0.0
        return max((t.mean for t in self.tactics.values() if t.visits), default=UNKNOWN)


@dataclass
class Attempt:
    """An AND node: one tactic at one goal.

    `goals` is None until the tactic was tried. A refused tactic is never tried again.
    """

    prior: float
    goals: list[Goal] | None = None
    refused: bool = False
    visits: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else UNKNOWN

    @property
    def closed(self) -> bool:
        return self.goals is not None and all(g.closed_by is not None for g in self.goals)

    def back_up(self) -> None:
        """Takes the present values of the subgoals into the mean: STEP · Π value, 0 if refused."""
        self.visits += 1
        subgoals = self.goals or ()
        # An AND node is lost with its first hopeless subgoal.
        self.refused = self.refused or any(g.hopeless for g in subgoals)
        if not self.refused:
            self.total += STEP * math.prod(g.value for g in subgoals)


@dataclass(frozen=True)
class Proof:
    """A proof that was found.

    script: its tactics, in the order in which the proof assistant meets the goals. steps: the
    (goal text, tactic) of each, to learn from.
    """

    script: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a search: a proof, or None; and how many tactics the kernel was asked for."""

    proof: Proof | None
    tried: int


def prove(
    kernel: Kernel,
    text: str,
    prior: Prior,
    *,
    budget: int,
    exploration: float = 1.5,
    deepest: int = 12,
) -> Outcome:
    """Searches until the goal `text` is closed, `budget` tactics were tried, or none is left.

    exploration: PUCT's constant c. deepest: the longest branch, in tactics.
    """
    root = Goal((), text)
    tried = 0
    for _ in range(_DESCENTS_PER_TACTIC * budget):
        if root.closed_by is not None or root.hopeless or tried >= budget:
            break
        tried += _simulate(kernel, root, prior, exploration, deepest)
    if root.closed_by is None:
        return Outcome(None, tried)
    steps = tuple(_steps(root))
    return Outcome(Proof(tuple(tactic for _, tactic in steps), steps), tried)


def _simulate(kernel: Kernel, root: Goal, prior: Prior, exploration: float, deepest: int) -> int:
    """One descent to a tactic that was not tried, and the way back.

    Returns how many tactics the kernel was asked for: 0 or 1.
    """
    goal = root
    tried = 0
    trail: list[tuple[Goal, str]] = []
    while True:
        name = None if len(trail) >= deepest else _most_urgent(goal, prior, exploration)
        if name is None:
            goal.hopeless = True
            break
        trail.append((goal, name))
        attempt = goal.tactics[name]
        if attempt.goals is None:
            _try(kernel, goal, name)
            tried = 1
            break
        goal = _hardest(attempt.goals)
    for above, name in reversed(trail):
        above.visits += 1
        attempt = above.tactics[name]
        attempt.back_up()
        if not attempt.refused and attempt.closed:
            above.closed_by = name
        above.hopeless = all(a.refused for a in above.tactics.values())
    return tried


def _most_urgent(goal: Goal, prior: Prior, exploration: float) -> str | None:
    """The tactic to follow at a goal by PUCT; None if all were refused.

    argmax_t  mean(t) + c · p(t) · √(N + 1) / (1 + n(t))    Silver et al. 2017, with N + 1 for N
    """
    if not goal.tactics:
        goal.tactics = {t: Attempt(p) for t, p in prior(goal.text).items()}
    open_attempts = {t: a for t, a in goal.tactics.items() if not a.refused}

    def urgency(tactic: str) -> float:
        # √(N + 1): the prior must count at the first visit too, where N is 0.
        attempt = open_attempts[tactic]
        bonus = exploration * attempt.prior * math.sqrt(goal.visits + 1) / (1 + attempt.visits)
        return attempt.mean + bonus

    return max(open_attempts, key=urgency, default=None)


def _try(kernel: Kernel, goal: Goal, tactic: str) -> None:
    """Asks the kernel, and keeps the subgoals that the tactic leaves."""
    found = kernel.apply(goal.path, tactic)
    attempt = goal.tactics[tactic]
    attempt.goals = [] if found is None else [Goal(path, text) for path, text in found]
    # A tactic that gives the same goal again is no progress: followed, it would be a circle.
    attempt.refused = found is None or any(text == goal.text for _, text in found)


def _hardest(goals: Sequence[Goal]) -> Goal:
    """The open subgoal of the lowest value: if it cannot be closed, the others are of no use."""
    return min((g for g in goals if g.closed_by is None), key=lambda g: (g.value, g.visits))


def _steps(goal: Goal) -> list[tuple[str, str]]:
    """(goal text, tactic) of a closed goal: its own first, then those of each subgoal in turn."""
    assert goal.closed_by is not None
    steps = [(goal.text, goal.closed_by)]
    for subgoal in goal.tactics[goal.closed_by].goals or []:
        steps += _steps(subgoal)
    return steps


class TacticTable:
    """A prior that counts which tactics closed goals of the same shape.

    p(t | goal) ∝ 1/|candidates| + n(fine shape, t) + ½ n(coarse shape, t)

    `candidates` lists the tactics that a goal offers, `shapes` gives its fine and its coarse shape,
    and `form` a tactic's form, by which it is counted: what was learned of one hypothesis holds for
    the next. `learn` takes the proofs that a search found (expert iteration, Anthony et al. 2017).
    """

    def __init__(
        self,
        candidates: Callable[[str], Sequence[str]],
        shapes: Callable[[str], tuple[str, str]],
        form: Callable[[str, str], str],
    ) -> None:
        self._candidates = candidates
        self._shapes = shapes
        self._form = form
        self._counts: dict[tuple[str, str], float] = defaultdict(float)

    def __call__(self, goal: str) -> dict[str, float]:
        """The probability of each candidate; an empty dict if the goal offers none."""
        fine, coarse = self._shapes(goal)
        offered = list(dict.fromkeys(self._candidates(goal)))
        weight: dict[str, float] = {}
        for tactic in offered:
            form = self._form(goal, tactic)
            # Together, unseen tactics keep the weight of one proof step, however many there are.
            unseen = 1 / max(len(offered), 1)
            weight[tactic] = unseen + self._counts[fine, form] + 0.5 * self._counts[coarse, form]
        total = sum(weight.values())
        return {t: w / total for t, w in weight.items()}

    def learn(self, proof: Proof) -> None:
        """Counts each step of the proof once, under both shapes of its goal."""
        for goal, tactic in proof.steps:
            for shape in self._shapes(goal):
                self._counts[shape, self._form(goal, tactic)] += 1.0
