"""Rewards in force: what a row's reward is today, by a reward model and by what came late.

With a model, the reward of a row is what the model makes of the row's signals as they are known
now; a reward that was stored under the model's own version is taken as it is. The stored reward
also holds for a world that the model knows nothing of. Without a model, a row has the last reward
that an amendment gave it, else its stored one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.errors import ShardError
from experience.reward import RewardModel, context_of, context_of_step
from experience.shards.record.schema import signal_names
from experience.shards.storage.amendment_files import files, read_amendments
from experience.shards.storage.disk import REAL, Disk
from experience.signal import LATE, Signal
from experience.step import FAILED, Step

Key = tuple[bytes, int]
"""(stream_id, t) of a row."""
_CONTEXT = ("env_id", "ending", "step_in_episode", "task_id", "reward", "reward_version")


class Rewards:
    """The reward of each row of one store, with its late signals.

    `model` None: the rewards that the store holds. `files`: the amendment files that were read.
    """

    def __init__(self, store: Path, model: RewardModel | None, disk: Disk = REAL) -> None:
        self.model, self.files = model, list[str]()
        self.rewarded: set[Key] = set()
        """Rows that files gave a reward since their reader last looked here."""
        self._store, self._disk = store, disk
        self._signals: dict[Key, dict[str, Signal]] = {}
        self._given: dict[Key, tuple[float | None, str]] = {}
        self._told: set[tuple[Any, ...]] = set()
        """Every late signal that was ever told, so that a row that is read again adds nothing."""

    def look(self, only: Collection[str] | None = None) -> set[Key]:
        """Reads the amendment files that are new; the rows that they change.

        only: the names of the files to be read; None: all.

        Raises ShardError if a file that was read is there no more: its rows were removed.
        """
        there = files(self._store, self._disk)
        if not {path.name for path in there}.issuperset(self.files):
            raise ShardError(f"{self._store}: amendments were removed", "open the store again")
        changed: set[Key] = set()
        for path in there:
            if path.name in self.files or (only is not None and path.name not in only):
                continue
            self.files.append(path.name)
            for row in read_amendments(path, self._disk).to_pylist():
                key = row["stream_id"], row["t"]
                if row["reward_version"]:
                    self._given[key] = row["value"], row["reward_version"]
                    self.rewarded.add(key)
                    continue
                signal = Signal(
                    row["name"], row["value"], row["unit"], row["source"], row["evidence"]
                )
                if self.tell(key, signal):
                    changed.add(key)
        return changed

    def tell(self, key: Key, signal: Signal) -> bool:
        """Takes a late signal of a row; whether it is news."""
        told = (*key, signal.name, signal.value, signal.evidence)
        if told in self._told:
            return False
        self._told.add(told)
        self._signals.setdefault(key, {})[signal.name] = signal
        return True

    def knows(self, key: Key, name: str) -> bool:
        """Whether a row has a late signal of that name."""
        return name in self._signals.get(key, ())

    def of_step(self, step: Step) -> Step:
        """The row as it is known now: its late signals, and its reward in force."""
        if step.decision is None:
            return step
        key = step.stream_id, step.t
        signals = self._with_late(key, step.signals)
        reward, version = self._reward(
            key,
            step.env_id,
            step.ending,
            (step.reward, step.reward_version),
            signals,
            context_of_step(step),
        )
        if signals is step.signals and (reward, version) == (step.reward, step.reward_version):
            return step
        return replace(step, signals=signals, reward=reward, reward_version=version)

    def of_batch(self, batch: pa.RecordBatch) -> tuple[np.ndarray, list[str] | None]:
        """The rows' rewards, float64, NaN where unknown; and their versions, None: as stored."""
        column = batch.column("reward")
        rewards = column.to_numpy(zero_copy_only=False).astype(np.float64)
        again = np.zeros(batch.num_rows, bool)
        versions: list[str] | None = None
        if self._signals or self._given:
            keys = zip(
                batch.column("stream_id").to_pylist(), batch.column("t").to_pylist(), strict=True
            )
            again |= [key in self._signals or key in self._given for key in keys]
        if self.model is not None:
            versions = batch.column("reward_version").to_pylist()
            envs = batch.column("env_id").to_pylist()
            other = np.array(
                [
                    v != self.model.version and e in self.model.weights
                    for v, e in zip(versions, envs, strict=True)
                ],
                bool,
            )
            for env_id in {envs[i] for i in np.flatnonzero(other).tolist()}:
                where = other & np.array([e == env_id for e in envs])
                if env_id in self.model.functions:
                    again |= where
                    continue
                rewards[where] = _linear(batch, self.model.weights[env_id])[where]
                rewards[where & _without_reward(batch)] = np.nan
            versions = [
                self.model.version if o else v for o, v in zip(other, versions, strict=True)
            ]
        if again.any():
            versions = versions or batch.column("reward_version").to_pylist()
            acted = batch.column("action_text").is_valid().to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(again & acted).tolist():
                reward, versions[row] = self._of_row(batch, row)
                rewards[row] = np.nan if reward is None else reward
        return rewards, versions

    def waits(self, batch: pa.RecordBatch) -> np.ndarray:
        """Which rows still wait for a signal, bool [rows]: see Signal.is_awaited."""
        found = _that_wait(batch)
        for row in np.flatnonzero(found).tolist():
            key = batch.column("stream_id")[row].as_py(), batch.column("t")[row].as_py()
            signals = self._with_late(key, self._signals_of(batch, row))
            found[row] = any(signal.is_awaited for signal in signals)
        return found

    def _signals_of(self, batch: pa.RecordBatch, row: int) -> tuple[Signal, ...]:
        names, stored = signal_names(batch.schema), batch.column("signals")[row].as_py()
        return tuple(_signal(names[of["code"]], of) for of in stored)

    def _of_row(self, batch: pa.RecordBatch, row: int) -> tuple[float | None, str]:
        said = {name: batch.column(name)[row].as_py() for name in _CONTEXT}
        signals = self._signals_of(batch, row)
        key = batch.column("stream_id")[row].as_py(), batch.column("t")[row].as_py()
        return self._reward(
            key,
            said["env_id"],
            said["ending"],
            (said["reward"], said["reward_version"]),
            self._with_late(key, signals),
            context_of(said["step_in_episode"] or 0, said["ending"], said["task_id"]),
        )

    def _with_late(self, key: Key, signals: tuple[Signal, ...]) -> tuple[Signal, ...]:
        later = self._signals.get(key)
        if not later:
            return signals
        return (*(s for s in signals if s.name not in later), *later.values())

    def _reward(
        self,
        key: Key,
        env_id: str,
        ending: str,
        stored: tuple[float | None, str],
        signals: Sequence[Signal],
        context: Mapping[str, Any],
    ) -> tuple[float | None, str]:
        """The reward in force and its version. `signals`: with the late ones."""
        if self.model is None or env_id not in self.model.weights:
            return self._given.get(key, stored)
        if ending in FAILED or (stored[0] is None and not signals):
            return None, self.model.version
        if stored[1] == self.model.version and key not in self._signals:
            return stored
        return self.model.reward(env_id, signals, context), self.model.version


def _that_wait(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows have a signal that is measured later, bool [rows]: see Signal.is_awaited."""
    found = np.zeros(batch.num_rows, bool)
    signals = batch.column("signals")
    flat = signals.flatten()
    late = pc.and_(flat.field("value").is_null(), pc.equal(flat.field("evidence"), LATE[1]))
    late = late.fill_null(False).to_numpy(zero_copy_only=False)
    found[pc.list_parent_indices(signals).to_numpy()[late]] = True
    return found


def _signal(kind: tuple[str, str, str], stored: Mapping[str, Any]) -> Signal:
    name, unit, source = kind
    return Signal(name, stored["value"], unit, source, stored["evidence"])  # type: ignore[arg-type]


def _linear(batch: pa.RecordBatch, weights: Mapping[str, float]) -> np.ndarray:
    """Σ_k w_k φ_k of each row, float64 [rows], NaN where a weighted signal is unknown.

    The same as `weighted_sum`, for all rows at once and in the same order of additions.
    """
    codes = {name: code for code, (name, _, _) in enumerate(signal_names(batch.schema))}
    signals = batch.column("signals")
    flat = signals.flatten()
    rows = pc.list_parent_indices(signals).to_numpy()
    code = flat.field("code").to_numpy()
    values = flat.field("value").to_numpy(zero_copy_only=False)
    total = np.zeros(batch.num_rows)
    for name, weight in weights.items():
        at = np.flatnonzero(code == codes.get(name, -1))
        # An unknown value is NaN here, and stays NaN in the sum.
        found = np.zeros(batch.num_rows)
        found[rows[at]] = values[at]
        reported = np.zeros(batch.num_rows, bool)
        reported[rows[at]] = True
        total[reported] += weight * found[reported]
    return total


def _without_reward(batch: pa.RecordBatch) -> np.ndarray:
    """Rows whose reward is unknown by any model: the machinery failed, or nothing was measured."""
    failed = [ending in FAILED for ending in batch.column("ending").to_pylist()]
    measured = pc.list_value_length(batch.column("signals")).to_numpy() > 0
    given = batch.column("reward").is_valid().to_numpy(zero_copy_only=False)
    unknown: np.ndarray = np.array(failed, bool) | ~(measured | given)
    return unknown
