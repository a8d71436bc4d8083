"""The mismatch of engine and learner: both score the same tokens by the same version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experience.episode import Group
from experience.learning.advantages import as_sample
from experience.learning.machine.scorer import Scorer
from experience.learning.sequences.turn import Turn
from experience.step import Step

_MOST_COMPARED = 8
"""Turns that are scored in each update: enough to see a fault, few enough to cost nothing."""


def engine_mismatch(scorer: Scorer, groups: Sequence[Group], version: int) -> dict[str, float]:
    """`engine_mismatch`: mean |log μ − log π| over action tokens, in nats, where μ is what the
    engine told and π is the model that is trained, both at `version`.

    Measured before an update, on samples of the present version alone: an older version differs
    because the model has learned since. Empty where there is no such sample.
    """
    steps = (step for group in groups for episode in group.episodes for step in episode.steps)
    turns = [turn for step in steps if (turn := _comparable(step, version)) is not None]
    if not turns:
        return {}
    stride = -(-len(turns) // _MOST_COMPARED)
    differences = scorer.differences(turns[::stride])
    differences = differences[np.isfinite(differences)]  # others are counted as skipped updates
    return {"engine_mismatch": float(np.abs(differences).mean())} if len(differences) else {}


def _comparable(step: Step, version: int) -> Turn | None:
    decision = step.decision
    if decision is None or step.source != "real" or decision.policy_version != version:
        return None
    return as_sample(step, 0.0)
