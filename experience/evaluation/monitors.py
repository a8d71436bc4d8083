"""Monitors: the last metrics of a run in; ok, a warning, or a halt out.

A monitor is a function of one argument. `MONITORS` holds ours by name. A monitor of one's own is
named "package.module:function" in the configuration (`monitors: [...]`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from experience.errors import ConfigError
from experience.text.near import did_you_mean

Window = Sequence[Mapping[str, Any]]
"""The lines of metrics so far, oldest first, as metrics.jsonl has them. Never empty."""


@dataclass(frozen=True)
class Finding:
    """What a monitor makes of a window. `why`: what it saw and what to do, in a sentence."""

    verdict: Literal["ok", "warn", "halt"] = "ok"
    why: str = ""


Monitor = Callable[[Window], Finding]
OK = Finding()
_FEW_UPDATES = 5
_FEW_EPISODES = 16
_MOST_DRIFT = 0.2
"""Nats a token. A run of the demo stays below 0.05 at four versions of lag."""

_MOST_MISMATCH = 0.1
"""Nats a token. bfloat16 against float32 gives 0.02 to 0.04; a wrong prompt gives 0.5 and more."""


def flat_groups(window: Window) -> Finding:
    """Warns where the last updates had no group whose episodes earned different returns.

    Advantages within such a group are 0, so that nothing is learned from it (GRPO, arXiv
    2402.03300).
    """
    last = [line.get("metrics", {}) for line in window[-_FEW_UPDATES:]]
    # A line without groups says nothing, neither that they are flat nor that they are not. Where
    # turns are compared with a value function, no group is flat, and none is counted.
    groups = [m for m in last if m.get("groups") and "flat_groups" in m]
    if len(groups) < _FEW_UPDATES or any(m["flat_groups"] < m["groups"] for m in groups):
        return OK
    return Finding(
        "warn",
        f"no group of the last {_FEW_UPDATES} updates had episodes of different returns: "
        "nothing is learned from them; larger groups, a higher temperature or easier tasks help",
    )


def policy_drift(window: Window) -> Finding:
    """Warns where the learned-from tokens were sampled by a policy far from the present one.

    `kl` is the mean of the k3 estimator (Schulman 2020) over tokens, in nats: stale samples raise
    it, and so does an engine whose log-probabilities are not those of the trained model.
    """
    drift = window[-1].get("metrics", {}).get("kl")
    # `not >` lets NaN pass: an update that is not finite is the finding of another monitor.
    if drift is None or not drift > _MOST_DRIFT:
        return OK
    return Finding(
        "warn",
        f"what was learned from is {drift:.2g} nats a token from the present policy: a smaller "
        "learning.max_lag or learning rate helps; if neither does, the engine samples otherwise "
        "than it is scored",
    )


def engine_mismatch(window: Window) -> Finding:
    """Warns where an engine tells other log-probabilities than the learner finds for the same
    weights and tokens: a stale cache, another chat template, other weights, a coarse type.

    Engines in float32 differ by less than 1e-4 nats a token, in bfloat16 by some 0.02 to 0.04.
    """
    mismatch = window[-1].get("metrics", {}).get("engine_mismatch")
    if mismatch is None or mismatch <= _MOST_MISMATCH:
        return OK
    return Finding(
        "warn",
        f"the engine's log-probabilities are {mismatch:.2g} nats a token from the learner's, for "
        "the same weights: it samples from something else than is trained; a finer dtype in "
        "policy.arguments helps if it is the numbers, a new start if it is a cache",
    )


def failing_worlds(window: Window) -> Finding:
    """Warns where more than half of the episodes so far failed in their world."""
    episodes = window[-1].get("episodes") or 0
    failed = (window[-1].get("dropped") or {}).get("failed", 0)
    # A few failures at the start are no rate yet.
    if episodes < _FEW_EPISODES or failed <= episodes / 2:
        return OK
    return Finding(
        "warn",
        f"{failed} of {episodes} episodes failed in their world and are not learned from: "
        "./xp show says how, ./xp env check looks for the cause",
    )


def skipped_updates(window: Window) -> Finding:
    """Warns where updates were left out because their loss or gradient was not finite."""
    skipped = window[-1].get("skipped_updates") or 0
    before = (window[-2].get("skipped_updates") or 0) if len(window) > 1 else 0
    # The count never falls: without the comparison one skipped update would warn for ever.
    if skipped <= before:
        return OK
    return Finding(
        "warn",
        f"{skipped} updates were left out, for their loss or gradient was not finite: "
        "a smaller learning rate may help",
    )


def value_collapse(window: Window) -> Finding:
    """Halts at the first infinite loss.

    Not on by default: the learner leaves such an update out, and ends the run after three in a row.
    """
    losses = {k: v for k, v in window[-1].get("metrics", {}).items() if k.endswith("loss")}
    broken = [k for k, v in losses.items() if isinstance(v, float) and math.isinf(v)]
    if not broken:
        return OK
    return Finding("halt", f"{', '.join(broken)} is infinite; resume with a smaller learning rate")


MONITORS: dict[str, Monitor] = {
    "flat_groups": flat_groups,
    "policy_drift": policy_drift,
    "engine_mismatch": engine_mismatch,
    "failing_worlds": failing_worlds,
    "skipped_updates": skipped_updates,
    "value_collapse": value_collapse,
}


def monitor(name: str) -> Monitor:
    """The monitor called `name`, or "package.module:function". Raises ConfigError if unknown."""
    if name in MONITORS:
        return MONITORS[name]
    module, _, function = name.partition(":")
    if not function:
        hint = did_you_mean(name, MONITORS) or f"known: {', '.join(MONITORS)}"
        raise ConfigError(
            f"monitors: no monitor {name!r}", f"{hint}; your own is package.module:function"
        )
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"monitors: {name!r}: {error}", "its module must be importable"
        ) from error
    if not callable(found):
        raise ConfigError(f"monitors: {name!r} cannot be called", "give a function of one window")
    return found  # type: ignore[no-any-return]
