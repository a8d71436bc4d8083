"""The episodes of a store as arrays: what is filtered, sorted and counted without reading a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from experience.step import FAILED

WORDS = (
    "env_id",
    "task_id",
    "split",
    "source",
    "behaviour_id",
    "group_id",
    "ending",
    "reward_version",
)
NUMBERS = (
    "episode",
    "first_t",
    "last_t",
    "steps",
    "first_version",
    "last_version",
    "started_ns",
    "ended_ns",
)


@dataclass(frozen=True)
class Words:
    """A column of few different words: `codes` int32 [episodes] name entries of `words`.

    -1 stands for a null.
    """

    codes: np.ndarray
    words: tuple[Any, ...]

    def __getitem__(self, place: int) -> str | None:
        code = self.codes[place]
        return None if code < 0 else self.words[code]

    def are(self, word: str) -> np.ndarray:
        """bool [episodes]: whether each is `word`."""
        if word not in self.words:
            return np.zeros(len(self.codes), bool)
        return np.asarray(self.codes == self.words.index(word))

    def counted(self, chosen: np.ndarray) -> dict[str, int]:
        """How many of the `chosen` have each word, the most frequent first."""
        codes = self.codes[chosen]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.words))
        order = np.argsort(-counts, kind="stable")
        return {self.words[i]: int(counts[i]) for i in order if counts[i]}


@dataclass(frozen=True)
class Columns:
    """One entry an episode, in the order in which they were begun.

    reward float64: NaN is unknown. numbers: int64 each; a null is -1.
    """

    streams: np.ndarray
    words: dict[str, Words]
    numbers: dict[str, np.ndarray]
    reward: np.ndarray

    @classmethod
    def empty(cls) -> Columns:
        none = np.empty(0, np.int64)
        words = {name: Words(none.astype(np.int32), ()) for name in WORDS}
        return cls(np.empty(0, object), words, dict.fromkeys(NUMBERS, none), none.astype(float))

    @classmethod
    def of(cls, table: Any) -> Columns:
        """From the table of an episode index."""
        return cls(
            _streams(table.column("stream_id")),
            {name: _words(table.column(name)) for name in WORDS},
            {name: _numbers(table.column(name)) for name in NUMBERS},
            np.asarray(table.column("total_reward").to_numpy(), float),
        )

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def failed(self) -> np.ndarray:
        """bool: whether the machinery, and not the agent, ended the episode."""
        found = np.zeros(len(self), bool)
        for ending in FAILED:
            found |= self.words["ending"].are(ending)
        return found

    @cached_property
    def _places(self) -> dict[bytes, np.ndarray]:
        """By stream, the places of its episodes, in the order of their first rows."""
        found: dict[bytes, list[int]] = {}
        for place, stream in enumerate(self.streams):
            found.setdefault(stream, []).append(place)
        first = self.numbers["first_t"]
        return {s: np.array(sorted(p, key=lambda i: int(first[i]))) for s, p in found.items()}

    def key(self, place: int) -> str:
        """What links and people call an episode: `<stream in hex>:<first t>`."""
        return f"{self.streams[place].hex()}:{self.numbers['first_t'][place]}"

    def place(self, key: str) -> int | None:
        """The place of the episode of that key; None if there is none."""
        stream, _, t = key.partition(":")
        if len(stream) != 32 or not (t.isascii() and t.isdigit() and len(t) < 19):
            return None
        try:
            found = self.of_row(bytes.fromhex(stream), int(t))
        except ValueError:
            return None
        if found is None or self.numbers["first_t"][found] != int(t):
            return None
        return found

    def of_row(self, stream: bytes, t: int) -> int | None:
        """The place of the episode that holds row `t` of a stream; None if none does."""
        places = self._places.get(stream)
        if places is None:
            return None
        at = int(np.searchsorted(self.numbers["first_t"][places], t, side="right")) - 1
        if at < 0 or self.numbers["last_t"][places[at]] < t:
            return None
        return int(places[at])

    def row(self, place: int) -> dict[str, Any]:
        """One episode as a row of a list."""
        return {
            "key": self.key(place),
            **{name: self.words[name][place] for name in WORDS},
            **{name: int(self.numbers[name][place]) for name in NUMBERS},
            "reward": known(self.reward[place]),
        }

    def rows(self, places: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        return [self.row(int(place)) for place in places]


def known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _words(column: Any) -> Words:
    encoded = column.dictionary_encode().combine_chunks()
    if hasattr(encoded, "chunks"):  # a table without rows gives no single array
        return Words(np.empty(0, np.int32), ())
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Words(codes.astype(np.int32), tuple(encoded.dictionary.to_pylist()))


def _streams(column: Any) -> np.ndarray:
    """object [episodes]: each stream's id is one object, however many episodes it has."""
    words = _words(column)
    ids = np.array([*words.words, None], object)
    return ids[words.codes] if len(words.words) else np.empty(0, object)


def _numbers(column: Any) -> np.ndarray:
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)
