"""The index of a store's episodes: one record each, kept beside the store.

Rows are read when they are asked for. What is in memory grows with the number of episodes, about
200 bytes each, and not with their rows.
Covers: hot, sealed and cold rows of all writers; files that go cold or are removed meanwhile; late
signals, and rewards by another model. A saved index is believed only if its checksum is right and
the store still holds what it was made of: see `saved`. Does not cover: a store on a disk without
file names (every disk of ours has them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from experience.episode import Episode
from experience.errors import ShardError
from experience.reward import RewardModel
from experience.shards.cold.snapshot import newest_snapshot, read_snapshot
from experience.shards.episodes import saved
from experience.shards.episodes.cutting import columns_of
from experience.shards.episodes.intake import Intake
from experience.shards.episodes.rewards import Key, Rewards
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import given_store
from experience.signal import Signal
from experience.step import Step

_SAVE_ROWS = 20_000
"""Rows read anew after which the index is worth saving by itself."""


class EpisodeIndex:
    """All episodes of one store, under one reward. Numbers are places in `records`.

    `generation` rises where rows were removed from the store, or a reader found that they lie
    elsewhere: then every record is made anew, and numbers given before hold no more.
    Invariant: every committed row that was read is in exactly one record.
    """

    def __init__(self, store: Path, reward: RewardModel | None = None, disk: Disk = REAL) -> None:
        self.store, self.generation, self.said = store, 0, ""
        self._reward, self._disk = reward, disk
        self._begin(None)

    @classmethod
    def open(
        cls, root: str | Path, reward: RewardModel | None = None, disk: Disk = REAL
    ) -> EpisodeIndex:
        """The index of a run's store, with all rows that are committed now.

        root: a run's directory, or its store. reward: None takes the rewards that the store holds.
        `said` tells why a saved index was not used. Raises ShardError if a row is missing or wrong.
        """
        store = given_store(root) if disk is REAL else Path(root)
        index = cls(store, reward, disk)
        try:
            index._begin(saved.load(store, reward, disk))
        except saved.NotUsable as why:
            index.said = str(why)
        index.refresh()
        index.save_if_worth()
        return index

    def _begin(self, known: saved.Saved | None) -> None:
        self.rewards = Rewards(self.store, self._reward, self._disk)
        if known is not None:
            self.rewards.look(known.amendments)
            self.rewards.rewarded.clear()
        self._amended = set[Key]()
        self._intake = Intake(self.store, self.rewards, known, self._disk)
        self.records = self._intake.records
        self._removed = self._intake.follower.snapshot.removed_spans

    def __len__(self) -> int:
        return len(self.records)

    @property
    def tellers(self) -> list[Key]:
        """The rows that may tell late signals of earlier rows."""
        return self._intake.tellers

    @property
    def given(self) -> dict[bytes, int]:
        """By stream, the last t that was read."""
        return self._intake.given

    def table(self) -> pa.Table:
        """One row an episode, in the order in which they were begun.

        number, stream_id, episode, first_t, last_t, steps (acted rows), env_id, task_id, split,
        source, behaviour_id, group_id, agent_id, work_id, seed, first_version, last_version, started_ns,
        ended_ns, total_reward (null: unknown), reward_version, ending (null while the episode goes
        on, and where a crash cut it off).
        """
        return self.records.table()

    def worlds(self) -> list[dict[str, str]]:
        """Each world with each reward version that its episodes have: env_id, reward_version."""
        names = ("env_id", "reward_version")
        pairs = np.stack([self.records.rows[name] for name in names], 1)
        words = self.records.words.words
        found = np.unique(pairs, axis=0).tolist()
        return [dict(zip(names, (words[a], words[b]), strict=True)) for a, b in found]

    def refresh(self) -> int:
        """Takes the rows committed since; how many episodes are new or changed.

        Raises ShardError if a row before them is missing.
        """
        if not self._is_of_this_store():
            self._rebuild()
        self._look_at_amendments()
        self._intake.refresh()
        changed, self._intake.changed = self._intake.changed, set()
        return len(changed)

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since, a block at a time; each is in the index before it is given.

        Raises as `refresh` does.
        """
        if not self._is_of_this_store():
            before = dict(self.given)
            self._rebuild()
            yield from self._steps_since(before)
        self._look_at_amendments()
        yield from self._intake.follow()

    def amend(self, key: Key, signal: Signal) -> bool:
        """Takes a late signal of a row, which the store may not hold yet; whether it is news."""
        if not self.rewards.tell(key, signal):
            return False
        self._count_again({key})
        return True

    def take_amended(self) -> set[Key]:
        """The rows that were amended since the last call, by files or by `amend`."""
        amended, self._amended = self._amended, set()
        return amended

    def read(self, number: int) -> Episode:
        """An episode with its rows as they are known now. Raises ShardError if a row is wrong."""
        return self.read_many([number])[0]

    def read_many(self, numbers: Sequence[int]) -> list[Episode]:
        """As `read`, for many; they may have any order, and come in it."""
        generation = self.generation
        try:
            return [self._read(int(number)) for number in numbers]
        except ShardError:
            # Rows may lie elsewhere: a disk failed under a writer, or rows were removed.
            if self.generation != generation or self._is_of_this_store():
                raise
            self._rebuild()
            raise

    def rows_of(self, keys: Iterable[Key]) -> list[Step]:
        """Single rows, by the episodes that hold them, as they were stored."""
        wanted = set(keys)
        numbers = sorted({n for key in wanted if (n := self.records.at(*key)) >= 0})
        return [
            step
            for number in numbers
            for step in self._intake.reader.steps(number)
            if (step.stream_id, step.t) in wanted
        ]

    def closing(self, number: int) -> Step:
        """The last row of an episode, alone, as it was stored."""
        return self._intake.reader.last(number)

    def save_if_worth(self) -> None:
        """Saves if reading the store without it would take much longer by now."""
        if self._intake.unsaved_rows > max(_SAVE_ROWS, len(self) // 10):
            self.save()

    def save(self) -> None:
        """Writes what belongs to sealed rows beside the store; where it may not write, nothing."""
        self._intake.coverage.look(self.store, self._intake.follower.snapshot, self._disk)
        about = {
            "reward": saved.reward_key(self._reward),
            "removed": saved.removed_key(self._intake.follower.snapshot),
            "amendments": self.rewards.files,
        }
        try:
            saved.save(
                self.store,
                self.records,
                self._intake.files.names,
                self._intake.coverage,
                self.given,
                self.tellers,
                about,
                self._disk,
            )
        except OSError as error:  # it can be made again: a full or read-only disk ends nothing
            self.said = f"the index was not saved: {error}"
        self._intake.unsaved_rows = 0

    def _read(self, number: int) -> Episode:
        rows = [self.rewards.of_step(step) for step in self._intake.reader.steps(number)]
        closing = rows.pop() if rows[-1].is_closing else None
        return Episode(tuple(rows), closing)

    def _look_at_amendments(self) -> None:
        changed = self.rewards.look()
        rewarded, self.rewards.rewarded = self.rewards.rewarded, set()
        self._count_again(changed | {key for key in rewarded if self._has_given_rewards(key)})

    def _has_given_rewards(self, key: Key) -> bool:
        """Whether amended rewards hold for a row: no model computes them from its signals."""
        number = self.records.at(*key)
        model = self.rewards.model
        return number >= 0 and (
            model is None or self.records.word("env_id", number) not in model.weights
        )

    def _count_again(self, keys: set[Key]) -> None:
        """Sums up the rewards anew of the episodes that hold rows `keys`."""
        self._amended |= keys
        for number in {self.records.at(*key) for key in keys} - {-1}:
            batches = self._intake.reader.batches(number)
            rows = (columns_of(batch, self.rewards, self.records) for batch in batches)
            self._intake.cutter.count_again(number, rows)
            self._intake.changed.add(number)

    def _is_of_this_store(self) -> bool:
        """Whether no row was removed since the records were made."""
        known = self._intake.follower.snapshot
        if newest_snapshot(self.store, self._disk) != known.version:
            known = read_snapshot(self.store, self._disk)
        return known.removed_spans == self._removed

    def _rebuild(self) -> None:
        """Makes every record anew: rows were removed from the store."""
        self.generation += 1
        self._begin(None)
        self.refresh()

    def _steps_since(self, before: dict[bytes, int]) -> Iterator[list[Step]]:
        for number in range(len(self)):
            record = self.records.rows[number]
            stream = self.records.streams.ids[record["stream"]].tobytes()
            if record["last_t"] > before.get(stream, -1):
                steps = self._intake.reader.steps(number)
                yield [s for s in steps if s.t > before.get(stream, -1)]
