"""Several attempts at each task: mean return, success rate, and pass@k with intervals over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experience.evaluation.statistics import Mean, mean_with_interval


@dataclass(frozen=True)
class Attempts:
    """What is known of one task: the returns of its attempts.

    Attempts that say nothing about the policy have no return here and are counted only. failed:
    the world, the engine or the machine broke. unknown: a reward could not be measured.
    """

    returns: tuple[float, ...]
    failed: int = 0
    unknown: int = 0

    def successes(self, bar: float) -> int:
        """Attempts whose return reaches `bar`."""
        return sum(value >= bar for value in self.returns)


@dataclass(frozen=True)
class PassAtK:
    """The chance that at least one of k attempts succeeds, over the tasks with k attempts or more.

    short: tasks that are left out because fewer than k of their attempts have a return.
    """

    mean: Mean
    short: int


@dataclass(frozen=True)
class Score:
    """What one policy reached in one world. Means and intervals are over tasks, not attempts:
    attempts at one task are alike, and would make an interval too narrow.

    tasks: those with a return at least. episodes: attempts with a return. success: mean share of
    successful attempts, None without a bar. passed: by k, empty without a bar.
    """

    tasks: int
    episodes: int
    failed: int
    unknown: int
    mean_return: Mean
    success: Mean | None
    passed: dict[int, PassAtK]


def pass_at_k(attempts: int, successes: int, k: int) -> float:
    """The chance that at least one of k attempts at a task succeeds, estimated without bias.

    1 − C(n−c, k) / C(n, k)    Chen et al. 2021, arXiv 2107.03374, eq. 1

    Raises ValueError where k is below 1 or above n: then there is no such estimate.
    """
    if not 1 <= k <= attempts:
        raise ValueError(f"pass@{k} needs {max(k, 1)} attempts at a task or more, not {attempts}")
    if not 0 <= successes <= attempts:
        raise ValueError(f"{successes} successes of {attempts} attempts")
    return 1 - math.comb(attempts - successes, k) / math.comb(attempts, k)


def score(tasks: Sequence[Attempts], ks: Sequence[int] = (), bar: float | None = None) -> Score:
    """The score over `tasks`. bar: the return from which on an attempt is a success."""
    known = [task for task in tasks if task.returns]
    success, passed = None, {}
    if bar is not None:
        success = mean_with_interval([t.successes(bar) / len(t.returns) for t in known])
        passed = {k: _passed(tasks, k, bar) for k in ks}
    return Score(
        tasks=len(known),
        episodes=sum(len(task.returns) for task in known),
        failed=sum(task.failed for task in tasks),
        unknown=sum(task.unknown for task in tasks),
        mean_return=mean_with_interval([sum(t.returns) / len(t.returns) for t in known]),
        success=success,
        passed=passed,
    )


def _passed(tasks: Sequence[Attempts], k: int, bar: float) -> PassAtK:
    enough = [task for task in tasks if len(task.returns) >= k]
    values = [pass_at_k(len(task.returns), task.successes(bar), k) for task in enough]
    return PassAtK(mean_with_interval(values), len(tasks) - len(enough))
