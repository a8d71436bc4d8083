"""What is to be lived, and what of it was lived before."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from actors.config.schema import Config
from experience.shards.catalog import Catalog

Lane = Literal["train", "evaluation", "demonstration", "random"]


@dataclass(frozen=True)
class Work:
    """One episode to be lived. `work_id` names it for ever: work done before a crash is not done again."""

    env_id: str
    seed: int
    lane: Lane = "train"
    split: str = "train"
    group_id: str = ""
    work_id: bytes = b"\0" * 16
    version: int = -1
    """The policy version that an evaluation is pinned to."""

    @classmethod
    def named(cls, name: str, **what: Any) -> Work:
        return cls(work_id=uuid.uuid5(uuid.NAMESPACE_OID, name).bytes, **what)


def in_step(config: Config) -> bool:
    """Whether the run is to be the same from row to row if it is repeated: one process, nothing learned from late."""
    return config.workers == 0 and config.learning.max_lag == 0


@dataclass
class Done:
    """What earlier incarnations left: finished work, group numbers used, groups that will never be whole."""

    work_ids: set[bytes] = field(default_factory=set)
    next_group: int = 0
    void_groups: int = 0
    training_steps: int = 0
    next_episode: dict[bytes, int] = field(default_factory=dict)


def done_before(directory: Path, group_size: int) -> Done:
    done = Done()
    finished: Counter[int] = Counter()
    for step in (
        step
        for steps in Catalog(directory.parent, writer=directory.name).follow()
        for step in steps
    ):
        done.next_episode[step.stream_id] = step.episode + 1
        done.training_steps += step.is_training
        number = int(step.group_id.partition("-")[2]) if step.group_id else -1
        done.next_group = max(done.next_group, number + 1)
        if step.is_closing:
            finished[number] += 1
            if step.ending != "cancelled":  # else it was stopped midway, by whoever ended the run
                done.work_ids.add(step.work_id)
    whole = sum(
        1 for number, episodes in finished.items() if number >= 0 and episodes >= group_size
    )
    done.void_groups = done.next_group - whole
    return done
