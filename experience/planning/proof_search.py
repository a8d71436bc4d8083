"""AND/OR search for proofs: any tactic may close a goal, and a tactic is done when all of its
subgoals are closed.

The kernel is asked for everything, and what is returned is a script for it to check anew; the
search proves nothing. PUCT over tactics with a prior; the value of a tactic is the product of its
subgoals' (Hubert et al. 2025, AlphaProof's product nodes).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Path = tuple[str, ...]


class Kernel(Protocol):
    """Who alone knows what follows."""

    def apply(self, path: Path, tactic: str) -> list[tuple[Path, str]] | None:
        """The goals (path and text) that `tactic` leaves of the goal at `path`; None where it is
        refused."""


Prior = Callable[[str], Mapping[str, float]]
"""Goal text -> candidate tactics with their probabilities."""
UNKNOWN = 0.4
"""The value of a goal of which nothing is known yet: between hopeless (0) and closed (1)."""
STEP = 0.95
"""What a tactic costs, as a factor: shorter proofs are worth more."""


@dataclass
class Goal:
    """An OR node. `closed_by` is the tactic whose subgoals are all closed."""

    path: Path
    text: str
    tactics: dict[str, Attempt] = field(default_factory=dict)
    visits: int = 0
    closed_by: str | None = None
    hopeless: bool = False

    @property
    def value(self) -> float:
        if self.closed_by is not None:
            return 1.0
        return (
            0.0
            if self.hopeless
            else max((t.mean for t in self.tactics.values() if t.visits), default=UNKNOWN)
        )


@dataclass
class Attempt:
    """An AND node: one tactic at one goal.

    `goals` is None until it was tried; refused ones stay without.
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


@dataclass(frozen=True)
class Proof:
    """The script, in the order in which its goals stand, and (goal text, tactic) of each step, to
    learn from."""

    script: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    proof: Proof | None
    tried: int
    """Tactics that the kernel was asked for."""


def prove(
    kernel: Kernel,
    text: str,
    prior: Prior,
    *,
    budget: int,
    exploration: float = 1.5,
    deepest: int = 12,
) -> Outcome:
    """Searches until the goal `text` is closed, `budget` tactics were tried, or none is left."""
    root, tried = Goal((), text), 0
    for _ in range(4 * budget):
        if root.closed_by is not None or root.hopeless or tried >= budget:
            break
        tried += _simulate(kernel, root, prior, exploration, deepest)
    return Outcome(
        None if root.closed_by is None else Proof(tuple(_script(root)), tuple(_steps(root))), tried
    )


def _simulate(kernel: Kernel, root: Goal, prior: Prior, exploration: float, deepest: int) -> int:
    """One descent to a tactic that was not tried, and the way back.

    Returns how many tactics were tried: 0 or 1.
    """
    goal, tried = root, 0
    trail: list[tuple[Goal, str, Attempt]] = []
    while True:
        if not goal.tactics:
            goal.tactics = {t: Attempt(p) for t, p in prior(goal.text).items()}
        open_attempts = {t: a for t, a in goal.tactics.items() if not a.refused}
        if not open_attempts or len(trail) >= deepest:
            goal.hopeless = True
            break
        name = max(
            open_attempts, key=lambda t: _urgency(open_attempts[t], goal.visits, exploration)
        )
        attempt = open_attempts[name]
        trail.append((goal, name, attempt))
        if attempt.goals is None:
            found, tried = kernel.apply(goal.path, name), 1
            attempt.refused = found is None or any(
                text == goal.text for _, text in found
            )  # no step forward
            attempt.goals = [] if found is None else [Goal(path, text) for path, text in found]
            break
        goal = min(
            (g for g in attempt.goals if g.closed_by is None), key=lambda g: (g.value, g.visits)
        )
    for goal, name, attempt in reversed(trail):
        goal.visits += 1
        attempt.visits += 1
        attempt.refused = attempt.refused or any(g.hopeless for g in attempt.goals or ())
        attempt.total += (
            0.0 if attempt.refused else STEP * math.prod(g.value for g in attempt.goals or ())
        )
        if not attempt.refused and attempt.closed:
            goal.closed_by = name
        goal.hopeless = all(a.refused for a in goal.tactics.values())
    return tried


def _urgency(attempt: Attempt, visits: int, exploration: float) -> float:
    return attempt.mean + exploration * attempt.prior * math.sqrt(visits + 1) / (1 + attempt.visits)


def _script(goal: Goal) -> list[str]:
    """The tactics of a closed goal: its own, then those of each subgoal in turn."""
    assert goal.closed_by is not None
    goals = goal.tactics[goal.closed_by].goals or []
    return [goal.closed_by, *(tactic for g in goals for tactic in _script(g))]


def _steps(goal: Goal) -> list[tuple[str, str]]:
    assert goal.closed_by is not None
    goals = goal.tactics[goal.closed_by].goals or []
    return [(goal.text, goal.closed_by), *(step for g in goals for step in _steps(g))]


class TacticTable:
    """A prior that counts: which tactic closed goals of this shape. Expert iteration feeds it the
    proofs that it found.

    p(t | goal) ∝ 1/|candidates| + n(shape, t) + ½ n(coarse shape, t), over the candidates that the
    goal offers. Tactics are counted by their form (`form`), so that what was learned of one
    hypothesis holds for the next.
    """

    def __init__(
        self,
        candidates: Callable[[str], Sequence[str]],
        shapes: Callable[[str], tuple[str, str]],
        form: Callable[[str, str], str],
    ) -> None:
        self._candidates, self._shapes, self._form = candidates, shapes, form
        self._counts: dict[tuple[str, str], float] = defaultdict(float)

    def __call__(self, goal: str) -> dict[str, float]:
        fine, coarse = self._shapes(goal)
        offered = list(dict.fromkeys(self._candidates(goal)))
        weight = {
            t: 1 / max(len(offered), 1)
            + self._counts[fine, self._form(goal, t)]
            + 0.5 * self._counts[coarse, self._form(goal, t)]
            for t in offered
        }
        total = sum(weight.values())
        return {t: w / total for t, w in weight.items()}

    def learn(self, proof: Proof) -> None:
        for goal, tactic in proof.steps:
            for shape in self._shapes(goal):
                self._counts[shape, self._form(goal, tactic)] += 1.0
