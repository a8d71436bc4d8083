"""Late signals: what was measured after its step, brought to the replay and into the store.

A world reports late signals in a later row of the same stream (see LATE_INFO), which is durable. A
person's come as amendments, from any process. Both change the signals of the earlier step, and its
reward is computed again. Those of rows are written as amendments too, so that queries, exports and
reports show them; whatever a crash kept from being written, the rows tell again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experience.reward import RewardModel, context_of_step
from experience.shards.amend import Amendment, amend_held
from experience.shards.storage.amendment_files import files, read_amendments
from experience.shards.storage.disk import REAL
from experience.signal import Signal, SignalKind
from experience.step import FAILED, LATE_INFO, Step

Key = tuple[bytes, int]
"""(stream_id, t) of a row."""
_WRITE_SECONDS = 60.0
"""Each write is a file, and every query reads all of them."""
_LOOK_SECONDS = 5.0


class LateSignals:
    """The last word on each signal that was measured late, of one store."""

    def __init__(
        self, store: Path, rewards: RewardModel, catalogue: Mapping[str, SignalKind]
    ) -> None:
        self._store, self._rewards, self._catalogue = store, rewards, catalogue
        self._signals: dict[Key, dict[str, Signal]] = defaultdict(dict)
        self._heard: set[tuple[Any, ...]] = set()
        """Every late signal that was ever told, so that a row that is read again adds nothing."""
        self._unwritten: dict[Key, dict[str, Signal]] = defaultdict(dict)
        self._unwritten_rewards: dict[Key, float | None] = {}
        self._files: set[str] = set()
        self._looked = -_LOOK_SECONDS
        self._wrote = time.monotonic()
        self.look()

    def look(self) -> set[Key]:
        """Reads amendments that came into the store; the rows that they change."""
        self._looked = time.monotonic()
        changed: set[Key] = set()
        for path in files(self._store, REAL):
            if path.name in self._files:
                continue
            self._files.add(path.name)
            for row in read_amendments(path).to_pylist():
                if row["reward_version"]:
                    continue
                signal = Signal(
                    row["name"], row["value"], row["unit"], row["source"], row["evidence"]
                )
                if self._take((row["stream_id"], row["t"]), signal):
                    changed.add((row["stream_id"], row["t"]))
        return changed

    def take(self, rows: Sequence[Step]) -> set[Key]:
        """Notes what new rows, and new amendments, say of earlier rows; the rows that change."""
        changed = self.look() if time.monotonic() - self._looked > _LOOK_SECONDS else set()
        for row in rows:
            for key, signal in self._told_by(row):
                if self._take(key, signal):
                    self._unwritten[key][signal.name] = signal
                    changed.add(key)
        if self._unwritten and time.monotonic() - self._wrote > _WRITE_SECONDS:
            self.write()
        return changed

    def amended(self, step: Step) -> Step:
        """The row with its late signals, and the reward that follows from them."""
        later = self._signals.get((step.stream_id, step.t))
        if not later:
            return step
        first = tuple(s for s in step.signals if s.name not in later)
        signals = (*first, *later.values())
        reward = None
        if step.ending not in FAILED:
            reward = self._rewards.reward(step.env_id, signals, context_of_step(step))
        if (step.stream_id, step.t) in self._unwritten:
            self._unwritten_rewards[step.stream_id, step.t] = reward
        version = self._rewards.version
        return replace(step, signals=signals, reward=reward, reward_version=version)

    def amend(self, rows: Iterable[Step]) -> list[Step]:
        return [self.amended(row) for row in rows]

    def write(self) -> None:
        """Writes what rows told as amendments, durably: the signals, and the rewards by them."""
        given = [
            Amendment(stream, t, s.name, s.value, s.unit, s.source, s.evidence)
            for (stream, t), signals in self._unwritten.items()
            for s in signals.values()
        ]
        given += [
            Amendment(*key, "reward", value, source="model", reward_version=self._rewards.version)
            for key, value in self._unwritten_rewards.items()
        ]
        self._unwritten.clear()
        self._unwritten_rewards.clear()
        self._wrote = time.monotonic()
        if given:
            amend_held(self._store, given)

    def _take(self, key: Key, signal: Signal) -> bool:
        """Whether the signal is news."""
        told = (*key, signal.name, signal.value, signal.evidence)
        if told in self._heard:
            return False
        self._heard.add(told)
        self._signals[key][signal.name] = signal
        return True

    def _told_by(self, row: Step) -> list[tuple[Key, Signal]]:
        return [
            ((row.stream_id, told["t"]), _signal(told, self._catalogue[told["name"]]))
            for told in row.info.get(LATE_INFO, ())
            if told["name"] in self._catalogue
        ]


def _signal(told: Mapping[str, Any], kind: SignalKind) -> Signal:
    return Signal(told["name"], told["value"], kind.unit, kind.source, told["evidence"])
