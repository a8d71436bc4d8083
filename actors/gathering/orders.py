"""What is to be lived: the works of a collection and of an evaluation, named by what they are.

A work's name says all that it is, so that the same call finds what an earlier one has lived.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from experience.errors import ShardError

Task = tuple[str, int]
"""A world and the number of one of its tasks."""

_TRAIN, _HELDOUT = 1, 2
"""Which series of tasks a seed is of; a run's dispatcher and evaluator draw from the same two."""


def task_seed(seed: int, split: str, number: int) -> int:
    """The seed of task `number`: of the same task that a run of this seed meets."""
    series = _TRAIN if split == "train" else _HELDOUT
    return int(np.random.default_rng([seed, series, number]).integers(2**31))


@dataclass(frozen=True)
class Call:
    """One call of `collect`: episodes `first` to `until` (exclusive) of the store, by `policy`.

    is_done: whether all were lived. Rows may be removed from a store, and are not lived again.
    """

    policy: str
    first: int
    until: int
    is_done: bool = False

    def works(self, config: Config, lane: Lane) -> Iterator[Work]:
        """The works of this call. Episode n is one of group n // group_size: the same task."""
        shares = [world.id for world in config.worlds for _ in range(world.groups)]
        size = config.collecting.group_size
        for group in range(self.first // size, -(-self.until // size)):
            seed = task_seed(config.seed, "train", group)
            begin, end = group * size, (group + 1) * size
            for number in range(max(begin, self.first), min(end, self.until)):
                yield Work.named(
                    f"{config.seed}/collect/{number}",
                    env_id=shares[group % len(shares)],
                    seed=seed,
                    lane=lane,
                    group_id=f"0-{group}",
                )


def read_calls(record: Mapping[str, Any]) -> list[Call]:
    """The calls of a store so far, in order, from its run.json. Raises ShardError for others."""
    try:
        return [Call(**call) for call in record.get("collected", [])]
    except TypeError as error:
        raise ShardError(
            f"run.json: collected: not a list of calls: {error}", "restore it from a copy"
        ) from error


def as_record(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [asdict(call) for call in calls]


def next_call(calls: Sequence[Call], policy: str, episodes: int, group_size: int) -> Call:
    """The call after `calls` that adds `episodes` of a policy.

    A group has one policy: where the policy changes, the next group begins.
    """
    first = max((call.until for call in calls), default=0)
    if calls and calls[-1].policy != policy:
        first = -(-first // group_size) * group_size
    return Call(policy, first, first + episodes)


@dataclass(frozen=True)
class Exam:
    """An evaluation: `attempts` at each of `tasks` tasks of every world, at one temperature."""

    policy: str
    split: str
    tasks: int
    attempts: int
    temperature: float

    def tries(self, config: Config, lane: Lane) -> Iterator[tuple[Task, Iterator[Work]]]:
        """Each attempt, by its task: the work of its first try, of its second if that failed, …

        The first attempts of all tasks come first, so that an evaluation that is cut short has met
        as many tasks as it could.
        """
        seeds = [task_seed(config.seed, self.split, number) for number in range(self.tasks)]
        for attempt in range(self.attempts):
            for number, seed in enumerate(seeds):
                for world in config.worlds:
                    name = f"{self.policy}/{self.temperature:g}/{self.split}/{world.id}/{number}"
                    yield (
                        (world.id, number),
                        self._works(f"{config.seed}/eval/{name}/{attempt}", world.id, seed, lane),
                    )

    def works(self, config: Config, lane: Lane, failed: Container[bytes]) -> Iterator[Work]:
        """The work of each attempt: another than those that `failed` in an earlier call, which say
        nothing of the policy."""
        for _, tries in self.tries(config, lane):
            yield next(work for work in tries if work.work_id not in failed)

    def _works(self, name: str, env_id: str, seed: int, lane: Lane) -> Iterator[Work]:
        for number in itertools.count():
            yield Work.named(
                f"{name}/{number}", env_id=env_id, seed=seed, lane=lane, split=self.split
            )
