"""Choosing: which episodes a draw may take, and the draw itself, from an index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experience.shards.episodes.records import GOES_ON, Records
from experience.shards.sampling.row_index import Growing
from experience.step import FAILED, Source

RANDOM = "random"
"""The behaviour of the baseline that no policy acted in."""


@dataclass(frozen=True)
class Outcome:
    """How an episode ended, without its rows. total_reward None: unknown."""

    number: int
    env_id: str
    agent_id: str
    seed: int
    work_id: bytes
    failed: bool
    total_reward: float | None


class Facts:
    """What is known of single episodes, and of many at once."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def failed(self, number: int) -> bool:
        return bool(self.have_failed(np.array([number]))[0])

    def unknown(self, number: int) -> bool:
        return bool(self.records.rows["unknown"][number])

    def awaited(self, number: int) -> bool:
        rows = self.records.rows
        return bool(rows["unknown"][number] and rows["awaited"][number])

    def oldest_version(self, number: int) -> int | None:
        version = int(self.records.rows["oldest_version"][number])
        return version if version >= 0 else None

    def have_failed(self, numbers: np.ndarray) -> np.ndarray:
        """Which episodes say nothing about the agent, bool [n]: see Episode.failed."""
        rows = self.records.rows[numbers]
        failed: np.ndarray = np.isin(rows["ending"], self.records.words.numbers(FAILED))
        failed |= (rows["steps"] == 0) | (rows["closed"] <= GOES_ON)
        return failed

    def outcome(self, number: int) -> Outcome:
        record = self.records.rows[number]
        total = None if record["unknown"] else float(record["reward"])
        return Outcome(
            number,
            self.records.word("env_id", number),
            self.records.word("agent_id", number),
            int(record["seed"]),
            record["work_id"].tobytes(),
            self.failed(number),
            total,
        )

    def acted_by(
        self, numbers: np.ndarray, version: int, env_id: str | None, behaviour: str | None
    ) -> np.ndarray:
        """Those of `numbers` in which `behaviour` (None: any policy) acted, at `version`."""
        rows, words = self.records.rows[numbers], self.records.words
        kept = rows["first_version"] == version
        is_random = rows["behaviour_id"] == words.find(RANDOM)
        kept &= rows["behaviour_id"] == words.find(behaviour) if behaviour else ~is_random
        if env_id is not None:
            kept &= rows["env_id"] == words.find(env_id)
        acted: np.ndarray = numbers[kept]
        return acted


def uniform_windows(
    steps: np.ndarray, n: int, length: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """`n` windows of `length` turns, each as (place among `steps`, first turn); each is as likely.

    steps: int64 [episodes], how many turns each episode has.
    """
    ends = np.cumsum(steps - length + 1)
    draws = rng.integers(ends[-1], size=n)
    which = np.searchsorted(ends, draws, side="right")
    first = draws - np.where(which > 0, ends[which - 1], 0)
    return list(zip(which.tolist(), first.tolist(), strict=True))


class BySource:
    """The episodes that may be learned from, by their source, in the order in which they ended."""

    def __init__(self) -> None:
        self._kept: dict[str, Growing] = {}

    def add(self, source: str, number: int) -> None:
        self._kept.setdefault(source, Growing(np.int32)).extend(np.array([number], np.int32))

    def __getitem__(self, source: str) -> np.ndarray:
        """int32 [n]."""
        kept = self._kept.get(source)
        return kept.view if kept is not None else np.empty(0, np.int32)

    def of(self, sources: Sequence[Source]) -> np.ndarray:
        """One source after another."""
        return np.concatenate([self[source] for source in sources])
