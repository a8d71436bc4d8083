"""Replay: which stored steps a learner sees, chosen from an index, and read when they are drawn."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from experience.episode import Episode, Group
from experience.errors import ShardError
from experience.replay.choosing import RANDOM, BySource, Facts, Outcome, uniform_windows
from experience.replay.groups import Dropped, GroupQueue, Members
from experience.replay.lazily import Lazily, pairs_of
from experience.replay.work import FinishedWork
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.sampling.row_index import Growing
from experience.step import OTHERS, SOURCES, Source, Step
from experience.text.strict_json import dumps

_AT_ONCE = 4096
"""Episodes that are taken before the next are looked up."""


class Replay:
    """The episodes of one store, and the samples taken from them. Rows stay in the store.

    `transitions`: (row, next row) of real and demonstrated training episodes, for world models.
    `finished`: the work that was lived to an end. `takes_work_once`: of work that two streams lived
    to an end, the first is taken and the others are counted.
    Invariants: only split `train` is ever given out; sources never mix unless asked for; a window
    never crosses an episode's end, a restart or a gap.
    """

    def __init__(
        self,
        index: EpisodeIndex,
        group_size: int,
        max_lag: int,
        seed: int = 0,
        takes_work_once: bool = False,
    ) -> None:
        self.index = index
        self.steps_by_source: dict[str, int] = defaultdict(int)
        self.training_steps = 0
        self._group_size, self._max_lag = group_size, max_lag
        self._takes_work_once = takes_work_once
        self._rng = np.random.default_rng(seed)
        self._begin()
        self.refresh()

    def _begin(self) -> None:
        self.finished = FinishedWork()
        self._generation = self.index.generation
        self._facts = Facts(self.index.records)
        self._groups = GroupQueue(self._group_size, self._max_lag, self._facts)
        self._taken, self._cut_off = 0, 0
        self._kept, self._held_out = BySource(), Growing(np.int32)
        self._paired, self._pair_ends = Growing(np.int32), Growing(np.int64)

    def refresh(self) -> None:
        """Takes the episodes that ended since, as the index has them."""
        if self.index.generation != self._generation:
            self._begin_again()
        self._take_all()
        records = self.index.records
        self.dropped.cut_off += records.cut_off - self._cut_off
        self._cut_off = records.cut_off
        for (source, split), steps in records.steps.items():
            self.steps_by_source[source] = sum(
                n for (of, _), n in records.steps.items() if of == source
            )
            if (source, split) == ("real", "train"):
                self.training_steps = steps

    def _begin_again(self) -> None:
        """Rows were removed from the store: episodes have other numbers now."""
        given, dropped, put_off = self.consumed, self.dropped, self._groups.put_off
        self._begin()
        self._take_all()
        self._cut_off = self.index.records.cut_off
        self._groups.dropped = dropped
        self._groups.restore(given, rows_removed=True, put_off=put_off)

    def _take_all(self) -> None:
        over = self.index.records.over
        while self._taken < over.size:
            some = over.view[self._taken : self._taken + _AT_ONCE].tolist()
            for number in some:
                self._take(number)
            self._taken += len(some)

    def _take(self, number: int) -> None:
        record, records = self.index.records.rows[number], self.index.records
        work, stream = record["work_id"].tobytes(), int(record["stream"])
        ending, source = records.word("ending", number), records.word("source", number)
        agent = records.word("agent_id", number)
        if self._takes_work_once and self.finished.stream_of(work, agent) not in (-1, stream):
            # by a collector that was cut off, and by another that had its work meanwhile
            self.dropped.lived_twice += 1
            return
        # Cancelled work is not finished: it is lived again, if it is ordered again.
        if ending != "cancelled":
            self.finished.finish(work, stream, agent)
        split = records.word("split", number)
        if split == OTHERS:
            return  # another than the policy acted in it
        if split != "train":
            self._held_out.extend(np.array([number], np.int32))
            return
        self._kept.add(source, number)
        if source in ("real", "demonstration") and not self._facts.failed(number):
            # What is no turn of the world changes nothing in it: there is nothing to predict.
            before = int(self._pair_ends.view[-1]) if self._pair_ends.size else 0
            self._paired.extend(np.array([number], np.int32))
            self._pair_ends.extend(np.array([before + record["steps"] - record["asides"]]))
        group_id = records.word("group_id", number)
        if source == "real" and group_id:
            self._groups.add(group_id, work, number)

    def amend(self, keys: Iterable[tuple[bytes, int]]) -> None:
        """Rows (stream, t) have other signals now, which the index knows.

        A row whose group was learned from, or given up, is counted in `dropped`.
        """
        records = self.index.records
        for key in keys:
            number = records.at(*key)
            if number < 0 or records.rows["closed"][number] < 0:
                continue
            word = {name: records.word(name, number) for name in ("source", "split", "group_id")}
            is_learned = word["source"] == "real" and word["split"] == "train"
            if is_learned and word["group_id"] and not self._groups.amend(word["group_id"]):
                self.dropped.late += 1

    @property
    def transitions(self) -> Sequence[tuple[Step, Step]]:
        ends = self._pair_ends.view

        def read(first: int, end: int) -> list[tuple[Step, Step]]:
            return pairs_of(self._paired.view, self._pair_ends.view, self.index.read, first, end)

        return Lazily(lambda: int(ends[-1]) if len(ends) else 0, read)

    @property
    def episodes(self) -> Mapping[Source, Sequence[Episode]]:
        """By source, the training episodes in the order in which they ended."""
        return {source: self._of(source) for source in SOURCES}

    def _of(self, source: Source) -> Sequence[Episode]:
        def read(first: int, end: int) -> list[Episode]:
            return self.index.read_many(self._kept[source][first:end].tolist())

        return Lazily(lambda: len(self._kept[source]), read)

    def work_ids(self, source: Source = "real") -> set[bytes]:
        """The work of the training episodes of a source."""
        return set(self.index.records.rows["work_id"][self._kept[source]].tolist())

    @property
    def dropped(self) -> Dropped:
        """What learning left out, by reason."""
        return self._groups.dropped

    @property
    def consumed(self) -> list[tuple[str, bool]]:
        """Groups given out, in order, each with whether it was learned from or dropped."""
        return self._groups.consumed

    @property
    def ready_groups(self) -> int:
        return len(self._groups)

    @property
    def mean_lag(self) -> float:
        """Mean age, in versions, of the groups given out lately."""
        return self._groups.mean_lag

    def window(self, version: int, most: int | None = None) -> list[Group]:
        """The whole groups not given out yet, the oldest `most`: see `GroupQueue.take`."""
        return [self._read(group) for group in self._groups.take(version, most)]

    def _read(self, group: Members) -> Group:
        return Group(group.group_id, tuple(self.index.read_many(group.numbers)))

    def held_out(
        self, version: int, env_id: str | None = None, behaviour: str | None = None
    ) -> list[Outcome]:
        """Held-out episodes acted by policy `version`: for evaluation, never for learning.

        The random baseline's are among them only if `behaviour` names it.
        """
        acted = self._facts.acted_by(self._held_out.view, version, env_id, behaviour)
        return [self._facts.outcome(number) for number in acted.tolist()]

    def evaluated_versions(self) -> list[int]:
        """The versions of the policy that held-out episodes were acted by, in order."""
        rows = self.index.records.rows[self._held_out.view]
        acted = rows["behaviour_id"] != self.index.records.words.find(RANDOM)
        versions = rows["first_version"][acted & (rows["first_version"] >= 0)]
        return [int(version) for version in np.unique(versions)]

    def sample_steps(self, n: int, sources: Sequence[Source] = ("real",)) -> list[Step]:
        """`n` steps drawn uniformly, with replacement, from training episodes of `sources`."""
        return [w[0] for w in self.windows(n, 1, sources)]

    def sample_roots(self, n: int, within: int) -> list[Step]:
        """`n` real steps, with replacement: a training episode, then one of its first `within`.

        Drawn step by step, the long episodes of a policy that is stuck would be nearly all. Raises
        ShardError if there is none.
        """
        numbers = self._whole(("real",))
        if not len(numbers):
            raise ShardError("no real training episode has a turn yet", "collect more")
        steps = self.index.records.rows["steps"][numbers]
        drawn = self._rng.integers(len(numbers), size=n).tolist()
        turns = [(i, int(self._rng.integers(min(int(steps[i]), within)))) for i in drawn]
        return [window[0] for window in self._windows(numbers, turns, 1)]

    def windows(
        self, n: int, length: int, sources: Sequence[Source] = ("real",)
    ) -> list[tuple[Step, ...]]:
        """`n` uniform windows of `length` successive turns of one episode, with replacement.

        Raises ShardError if no training episode of `sources` is that long.
        """
        numbers = self._whole(sources)
        steps = self.index.records.rows["steps"][numbers].astype(np.int64)
        numbers, steps = numbers[steps >= length], steps[steps >= length]
        if not len(numbers):
            raise ShardError(
                f"no training episode of {'/'.join(sources)} has {length} turns yet",
                "collect more, or ask for shorter windows",
            )
        drawn = uniform_windows(steps, n, length, self._rng)
        return self._windows(numbers, drawn, length)

    def _whole(self, sources: Sequence[Source]) -> np.ndarray:
        numbers = self._kept.of(sources)
        whole: np.ndarray = numbers[~self._facts.have_failed(numbers)]
        return whole

    def _windows(
        self, numbers: np.ndarray, drawn: Sequence[tuple[int, int]], length: int
    ) -> list[tuple[Step, ...]]:
        """The windows (place in `numbers`, first turn). Each episode is read once."""
        places = sorted({place for place, _ in drawn})
        episodes = self.index.read_many([int(numbers[place]) for place in places])
        of = dict(zip(places, episodes, strict=True))
        return [of[place].steps[first : first + length] for place, first in drawn]

    def demonstrations(self) -> list[Episode]:
        """Demonstrations by their work, so that what is sampled from them is the same on resume."""
        numbers = self._whole(("demonstration",))
        work = self.index.records.rows["work_id"][numbers].tolist()
        order = sorted(range(len(numbers)), key=work.__getitem__)
        return self.index.read_many([int(numbers[place]) for place in order])

    def recent_returns(self, env_id: str, most: int = 64) -> list[float]:
        """Returns of the newest real training episodes of a world, oldest first."""
        lately = self._kept["real"][-8 * most :]
        rows = self.index.records.rows[lately]
        of_world = rows["env_id"] == self.index.records.words.find(env_id)
        newest = rows[of_world & ~self._facts.have_failed(lately)][-most:]
        return [float(total) for total in newest["reward"][newest["unknown"] == 0]]

    def save(self) -> dict[str, bytes]:
        """The cursor, which belongs beside the weights: groups given out, and random state."""
        about = {
            "consumed": self.consumed,
            "dropped": vars(self.dropped),
            "put_off": self._groups.put_off,
            "random": self._rng.bit_generator.state,
        }
        return {"replay.json": dumps(about).encode()}

    def restore(self, saved: Mapping[str, bytes], *, rows_removed: bool = False) -> Sequence[Group]:
        """What `save` knew as given out is not given out again.

        Returns the groups that were learned from, in their order; each is read when it is asked
        for. Raises as `GroupQueue.restore`.
        """
        about = json.loads(saved["replay.json"])
        self._groups.dropped = Dropped(**about["dropped"])
        self._rng.bit_generator.state = about["random"]
        consumed = [(group_id, used) for group_id, used in about["consumed"]]
        learned = self._groups.restore(
            consumed, rows_removed=rows_removed, put_off=about.get("put_off", ())
        )
        return Lazily(
            lambda: len(learned), lambda first, end: [self._read(g) for g in learned[first:end]]
        )
