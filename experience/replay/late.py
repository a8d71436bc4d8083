"""Late signals: what was measured after its step, brought to the index and into the store.

A world reports late signals in a later row of the same stream (see LATE_INFO), which is durable. A
person's come as amendments, from any process. Both change the signals of the earlier step, and its
reward is computed again. Those of rows are written as amendments too, so that queries, exports and
reports show them; whatever a crash kept from being written, the rows tell again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from experience.shards.amend import Amendment, amend_held
from experience.shards.episodes.index import EpisodeIndex
from experience.signal import Signal, SignalKind
from experience.step import LATE_INFO, Step

Key = tuple[bytes, int]
"""(stream_id, t) of a row."""


class Measured(Protocol):
    """Measures whole episodes, such as a preference model: see `preferences.measured`."""

    @property
    def catalogue(self) -> Mapping[str, SignalKind]: ...

    def __call__(
        self, rows: Sequence[Step], knows: Callable[[Key, str], bool]
    ) -> list[tuple[Key, Signal]]: ...


_WRITE_SECONDS = 60.0
"""Each write is a file, and every query reads all of them."""


class LateSignals:
    """Brings what rows tell of earlier rows into an index, and writes it as amendments."""

    def __init__(
        self,
        index: EpisodeIndex,
        catalogue: Mapping[str, SignalKind],
        measured: Measured | None = None,
    ) -> None:
        self._index, self._catalogue, self._measured = index, catalogue, measured
        self._unwritten: dict[Key, dict[str, Signal]] = {}
        self._wrote = time.monotonic()

    def take(self, rows: Sequence[Step]) -> set[Key]:
        """Notes what rows that the index has tell of earlier rows.

        Returns the rows that changed by it, or by an amendment file, since the last call.
        """
        for row in rows:
            for key, signal in self._told_by(row):
                self._note(key, signal)
        for key, signal in (
            self._measured(rows, self._index.rewards.knows) if self._measured else ()
        ):
            self._note(key, signal)
        if self._unwritten and time.monotonic() - self._wrote > _WRITE_SECONDS:
            self.write()
        return self._index.take_amended()

    def write(self) -> None:
        """Writes what rows told as amendments, durably: the signals, and the rewards by them."""
        given = [
            Amendment(stream, t, s.name, s.value, s.unit, s.source, s.evidence)
            for (stream, t), signals in self._unwritten.items()
            for s in signals.values()
        ]
        for row in self._index.rows_of(self._unwritten):
            now = self._index.rewards.of_step(row)
            version = now.reward_version
            key = row.stream_id, row.t
            given.append(
                Amendment(*key, "reward", now.reward, source="model", reward_version=version)
            )
        self._unwritten.clear()
        self._wrote = time.monotonic()
        if given:
            amend_held(self._index.store, given, self._measured.catalogue if self._measured else {})

    def _note(self, key: Key, signal: Signal) -> None:
        if self._index.amend(key, signal):
            self._unwritten.setdefault(key, {})[signal.name] = signal

    def _told_by(self, row: Step) -> list[tuple[Key, Signal]]:
        return [
            ((row.stream_id, told["t"]), _signal(told, self._catalogue[told["name"]]))
            for told in row.info.get(LATE_INFO, ())
            if told["name"] in self._catalogue
        ]


def _signal(told: Mapping[str, Any], kind: SignalKind) -> Signal:
    return Signal(told["name"], told["value"], kind.unit, kind.source, told["evidence"])
