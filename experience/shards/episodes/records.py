"""Records: one row of numbers an episode, in numpy, and as an Arrow table for readers.

An episode costs about 200 bytes, however many rows it has. Words (a world, a task, a group) are
kept once, and a record holds their numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from experience.shards.episodes.key_map import KeyMap
from experience.shards.sampling.row_index import Growing

_TEXTS = ("env_id", "task_id", "split", "source", "behaviour_id", "group_id", "agent_id")
WORDS = (
    "env_id",
    "task_id",
    "split",
    "source",
    "behaviour_id",
    "group_id",
    "reward_version",
    "ending",
    "agent_id",
)
"""Fields that are texts: a record holds the number of a word."""
RECORD = np.dtype(
    [
        ("stream", "i4"),
        ("previous", "i4"),
        ("episode", "i8"),
        ("first_t", "i8"),
        ("last_t", "i8"),
        ("steps", "i4"),
        ("asides", "i4"),
        ("prompts_cut", "i4"),
        ("actions_cut", "i4"),
        ("seed", "i8"),
        ("work_id", "V16"),
        *((name, "i4") for name in WORDS),
        ("first_version", "i4"),
        ("last_version", "i4"),
        ("oldest_version", "i4"),
        ("started_ns", "i8"),
        ("ended_ns", "i8"),
        ("reward", "f8"),
        ("unknown", "i4"),
        ("sampled", "i4"),
        ("closed", "i4"),
        ("first_file", "i4"),
        ("last_file", "i4"),
        ("first_row", "i4"),
        ("last_row", "i4"),
        ("refs", "i8"),
        ("n_refs", "i4"),
        ("awaited", "?"),
    ],
    align=True,
)
"""previous: the record of the same stream before it, −1: none. steps: acted rows; asides: those of
them that are no turn of the world. prompts_cut, actions_cut: acted rows that were cut.
first_version, last_version, oldest_version: of acted rows; −1: none acted. reward: the sum of the
known rewards; unknown: acted rows whose reward is unknown. awaited: whether a signal was to be
measured later. sampled: acted rows that are samples whose tokens are exact.
closed: the place among the episodes that are over, GOES_ON, or CUT_OFF. first_file … last_row:
where its rows lie (see Files). refs, n_refs: the earlier rows that its first prompt continues (see
PromptRefs)."""
GOES_ON, CUT_OFF = -1, -2
"""Values of `closed` for an episode that goes on, and for one that a crash cut off."""
_WALK = 64
REF = np.dtype([("t", "i8"), ("row", "i4"), ("end", "i4")])
"""An earlier row of the stream whose context gives a prompt's tokens up to `end`."""


class Words:
    """Texts by number, each kept once, in the order in which they came."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = len(self.words)
            self.words.append(word)
        return self._numbers[word]

    def find(self, word: str) -> int:
        """The number of a word; −1 if it never came."""
        return self._numbers.get(word, -1)

    def numbers(self, words: Iterable[str]) -> np.ndarray:
        """The numbers of those of `words` that came, int32."""
        return np.array([self._numbers[w] for w in words if w in self._numbers], np.int32)


class Records:
    """The records of a store's episodes, in the order in which the episodes were begun.

    `rows[name]` is a view of one field of all records: it may be written to, and holds until the
    next `add`.
    """

    def __init__(
        self,
        rows: np.ndarray | None = None,
        refs: np.ndarray | None = None,
        words: Iterable[str] = (),
        streams: np.ndarray | None = None,
    ) -> None:
        self._rows, self._refs = Growing(RECORD, rows), Growing(REF, refs)
        self.words, self.streams = Words(words), KeyMap(streams)
        self.over = Growing(np.int32)
        """The records of episodes that are over, in the order in which they ended."""
        over = np.flatnonzero(self.rows["closed"] >= 0)
        self.over.extend(over[np.argsort(self.rows["closed"][over])].astype(np.int32))
        self.steps = self._steps_by()
        """How many rows were acted, by source and split."""
        self.cut_off = int((self.rows["closed"] == CUT_OFF).sum())
        self._last = Growing(np.int32)
        """By stream, its last record."""
        last = np.full(len(self.streams), -1, np.int32)
        last[self.rows["stream"]] = np.arange(len(self), dtype=np.int32)
        self._last.extend(last)

    def __len__(self) -> int:
        return self._rows.size

    @property
    def rows(self) -> np.ndarray:
        """All records, RECORD [n]."""
        return self._rows.view

    @property
    def refs(self) -> np.ndarray:
        return self._refs.view

    def add(self, stream: bytes, record: np.ndarray) -> int:
        """Adds one record [1] of a stream; returns its number."""
        of = self.streams.add(stream)
        if of == self._last.size:
            self._last.extend(np.array([-1], np.int32))
        record["stream"], record["previous"] = of, self._last.view[of]
        self._rows.extend(record)
        self._last.view[of] = len(self) - 1
        return len(self) - 1

    def add_refs(self, refs: Sequence[tuple[int, int, int]]) -> int:
        """Adds the refs of one prompt; returns where they begin."""
        start = self._refs.size
        self._refs.extend(np.array(list(refs), REF))
        return start

    def refs_of(self, number: int) -> list[tuple[int, int, int]]:
        record = self.rows[number]
        start = int(record["refs"])
        found: list[tuple[int, int, int]] = self.refs[start : start + record["n_refs"]].tolist()
        return found

    def close(self, number: int) -> None:
        """Notes that the episode is over."""
        self.rows["closed"][number] = self.over.size
        self.over.extend(np.array([number], np.int32))

    def last_of(self, stream: bytes) -> int:
        """The newest record of a stream; −1 if there is none."""
        of = self.streams.find(stream)
        return -1 if of < 0 else int(self._last.view[of])

    def at(self, stream: bytes, t: int) -> int:
        """The number of the episode that holds row t of a stream; −1 if none does."""
        number, rows = self.last_of(stream), self.rows
        # What is asked for was mostly lived lately: a short walk back finds it.
        for _ in range(_WALK):
            if number < 0 or rows["first_t"][number] <= t:
                break
            number = int(rows["previous"][number])
        else:
            numbers = np.flatnonzero(rows["stream"] == self.streams.find(stream))
            place = int(np.searchsorted(rows["first_t"][numbers], t, side="right")) - 1
            number = -1 if place < 0 else int(numbers[place])
        return number if number >= 0 and t <= rows["last_t"][number] else -1

    def word(self, name: str, number: int) -> str:
        word: str = self.words.words[self.rows[name][number]]
        return word

    def cut(self, number: int) -> None:
        """Notes that a crash cut the episode off."""
        self.rows["closed"][number] = CUT_OFF
        self.cut_off += 1

    def _steps_by(self) -> Counter[tuple[str, str]]:
        rows, found = self.rows, Counter[tuple[str, str]]()
        pairs = np.stack([rows["source"], rows["split"]], 1)
        for source, split in np.unique(pairs, axis=0).tolist():
            of = (rows["source"] == source) & (rows["split"] == split)
            words = self.words.words
            found[words[source], words[split]] = int(rows["steps"][of].sum())
        return found

    def total_reward(self) -> np.ndarray:
        """Float64 [n]: the return of each episode, NaN where it is unknown."""
        return np.where(self.rows["unknown"] > 0, np.nan, self.rows["reward"])

    def table(self) -> pa.Table:
        """One row an episode: see EpisodeIndex.table."""
        rows, columns = self.rows, dict[str, pa.Array]()
        columns["number"] = pa.array(np.arange(len(rows)))
        columns["stream_id"] = as_ids(self.streams.ids[rows["stream"]])
        for name in ("episode", "first_t", "last_t", "steps"):
            columns[name] = pa.array(np.ascontiguousarray(rows[name]))
        for name in _TEXTS:
            columns[name] = self._texts(name)
        columns["work_id"] = as_ids(rows["work_id"])
        for name in ("seed", "started_ns", "ended_ns"):
            columns[name] = pa.array(rows[name].astype(np.int64))
        acted = rows["first_version"] >= 0
        for name in ("first_version", "last_version"):
            columns[name] = pa.array(rows[name].astype(np.int64), mask=~acted)
        columns["total_reward"] = pa.array(self.total_reward(), mask=rows["unknown"] > 0)
        columns["reward_version"] = self._texts("reward_version")
        columns["ending"] = self._texts("ending", rows["closed"] < 0)
        return pa.table(columns)

    def _texts(self, name: str, unknown: np.ndarray | None = None) -> pa.Array:
        codes = np.ascontiguousarray(self.rows[name])
        words = pa.array(self.words.words, pa.string())
        return words.take(pa.array(codes, mask=unknown))


def as_ids(ids: np.ndarray) -> pa.Array:
    """V16 [n] as an Arrow column of 16 bytes each."""
    data = np.ascontiguousarray(ids)
    return pa.Array.from_buffers(pa.binary(16), len(data), [None, pa.py_buffer(data.tobytes())])
