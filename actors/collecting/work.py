"""Work: an episode to be lived; and what the store says of the work that was lived before."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.config.schema import Config
from experience.shards.catalog import Catalog

Lane = Literal["train", "evaluation", "demonstration", "random", "rival"]


@dataclass(frozen=True)
class Work:
    """One episode to be lived. `work_id` never changes: work done before a crash is not done
    again."""

    env_id: str
    seed: int
    lane: Lane = "train"
    split: str = "train"
    group_id: str = ""
    work_id: bytes = b"\0" * 16
    version: int = -1
    """The policy version that an evaluation is pinned to."""
    is_quarantined: bool = False
    """It ended the process of its world too often: its episode is closed without being lived."""
    rival: str = ""
    """Who acts in the lane of that name: one agent of several, that the policy does not play."""

    @classmethod
    def named(cls, name: str, **what: Any) -> Work:
        return cls(work_id=uuid.uuid5(uuid.NAMESPACE_OID, name).bytes, **what)


def training_group(config: Config, number: int) -> list[Work]:
    """Training group `number`: worlds in turn by their share, one task for all its episodes."""
    shares = [world.id for world in config.worlds for _ in range(world.groups)]
    seed = int(np.random.default_rng([config.seed, 1, number]).integers(2**31))
    return [
        Work.named(
            f"{config.seed}/train/{number}/{n}",
            env_id=shares[number % len(shares)],
            seed=seed,
            group_id=f"0-{number}",
        )
        for n in range(config.collecting.group_size)
    ]


def in_step(config: Config) -> bool:
    """Whether a repeated run must have the same rows: one process, and learning never lags."""
    return config.workers == 0 and config.learning.max_lag == 0 and not config.agents


@dataclass
class Done:
    """What earlier attempts of a run left behind, of all its collectors."""

    work_ids: set[bytes] = field(default_factory=set)
    """Work that was lived to an end."""
    next_group: int = 0
    """The first number that no training group has."""
    whole_groups: int = 0
    training_steps: int = 0


def done_before(shards: Path, group_size: int) -> Done:
    """Reads what the store of a run holds; it may not be there yet."""
    done = Done()
    if not shards.exists():
        return done
    closed: Counter[str] = Counter()
    for step in (step for steps in Catalog(shards).follow() for step in steps):
        done.training_steps += step.is_training
        if step.group_id:
            number = int(step.group_id.partition("-")[2].partition("/")[0])
            done.next_group = max(done.next_group, number + 1)
        if step.is_closing:
            closed[step.group_id] += 1
            if step.ending != "cancelled":  # else it was stopped midway, by whoever ended the run
                done.work_ids.add(step.work_id)
    del closed[""]
    done.whole_groups = sum(episodes >= group_size for episodes in closed.values())
    return done
