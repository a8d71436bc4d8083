"""Tests the checks themselves: breaks a world's reward on purpose, and a check must notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envs.check.runner import Result, results
from envs.check.subject import Subject
from envs.contract import INVALID

MUTANTS: dict[str, Callable[[dict[str, float]], dict[str, float]]] = {
    "pays nothing": lambda w: dict.fromkeys(w, 0.0),
    "pays the opposite": lambda w: {k: -v for k, v in w.items()},
    "pays for nonsense": lambda w: w | {INVALID: 5.0},
    "pays a tenth": lambda w: {k: v / 10 for k, v in w.items()},
    "forgets what pays most": lambda w: w | {max(w, key=lambda k: w[k]): 0.0},
}
_SEMANTIC = ("reward_well_formed", "oracle_max", "floor_gap", "canary_floor", "reward_attribution")


def mutants(env_id: str, arguments: Mapping[str, Any] | None = None) -> Iterator[Result]:
    """One result for each broken reward.

    PASS if a check fails now that passes on the unbroken world.
    """
    for name, change in MUTANTS.items():
        started = time.perf_counter()
        subject = Subject(env_id, arguments, episodes=6)
        try:
            if (
                not subject.weights
                or not hasattr(subject.world, "reward_weights")
                or subject.rewards.functions
            ):
                yield Result(
                    f"mutant: {name}", "SKIP", "the world has no reward weights to break", 0.0
                )
                continue
            healthy = {r.id for r in results(subject, _SEMANTIC) if r.outcome == "PASS"}
            subject.world.reward_weights = change(dict(subject.weights))
            subject.forget()
            broken = {r.id for r in results(subject, _SEMANTIC) if r.outcome == "FAIL"}
        finally:
            subject.close()
        noticed = ", ".join(sorted(broken & healthy))
        yield Result(
            f"mutant: {name}",
            "PASS" if noticed else "FAIL",
            f"noticed by {noticed}" if noticed else "no check noticed",
            time.perf_counter() - started,
        )
