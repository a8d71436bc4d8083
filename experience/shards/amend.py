"""Amendments: signals, feedback and rewards that come after their step was sealed.

No shard is ever rewritten. Each call makes one file (see amendment_files). Of two amendments to the
same signal or reward, the amendment in the later file holds. Secrets are redacted in `evidence`. A
name, unit or reward_version that holds a secret is refused, because rows are found by it.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pyarrow as pa

from experience.errors import RecordError
from experience.reward import RewardModel, context_of_step
from experience.shards.catalog import Catalog
from experience.shards.known import Known
from experience.shards.redaction.redact import Redactor
from experience.shards.storage.amendment_files import SCHEMA, amendments, files, number_of, publish
from experience.shards.storage.disk import REAL, Disk
from experience.signal import Signal, SignalKind, SignalSource
from experience.step import FAILED, Step
from experience.text.near import did_you_mean


@dataclass(frozen=True)
class Amendment:
    """A signal `name` of step (stream_id, t) that was measured later.

    With a `reward_version` it is the step's reward under that version. A `value` of None is
    unknown. An empty `unit` is the unit that the signal has in the store.
    """

    stream_id: bytes
    t: int
    name: str
    value: float | None
    unit: str = ""
    source: SignalSource = "human"
    evidence: str = ""
    reward_version: str = ""


def _check(
    given: Amendment, known: Known, new: Mapping[str, SignalKind], clean: Callable[[str], str]
) -> Amendment:
    """`given` with its signal's unit, and with secrets removed from its evidence by `clean`.

    Raises RecordError for an amendment that does not fit the store, and for a label that holds a
    secret.
    """
    # Before anything is said of the amendment: an error's text may end up in a log.
    given = replace(given, evidence=clean(given.evidence))
    where = f"amendment {clean(given.name)!r} of step {given.t} of stream {given.stream_id.hex()}"
    for label in ("name", "unit", "reward_version"):
        if clean(getattr(given, label)) != getattr(given, label):
            raise RecordError(
                f"{where}: its {label} holds a secret",
                "secrets may stand in evidence, where they are "
                "redacted; call the amendment something else",
            )
    if given.source not in get_args(SignalSource):
        raise RecordError(
            f"{where}: no source is called {given.source!r}",
            f"there are: {', '.join(get_args(SignalSource))}",
        )
    if given.value is not None and not math.isfinite(given.value):
        raise RecordError(
            f"{where}: its value is {given.value}", "a value is finite, or None where it is unknown"
        )
    if not known.holds(given.stream_id, given.t):
        raise RecordError(
            f"{where}: the store holds no such step", "amend steps that are committed"
        )
    if given.reward_version:
        if given.name != "reward":
            raise RecordError(
                f"{where}: with a reward_version its name is 'reward'",
                "leave reward_version empty to amend a signal",
            )
        return replace(given, unit=given.unit or "1")
    kind = known.kind(given.name) or new.get(given.name)
    if kind is None:
        names = sorted(known.signals())
        there_are = f"there are: {', '.join(names) or 'none'}; a new one is declared: "
        raise RecordError(
            f"{where}: the store knows no such signal",
            f"{did_you_mean(given.name, names, 0.5)} {there_are}".lstrip()
            + "amend(…, new={name: SignalKind(unit, source)})",
        )
    if given.unit not in ("", kind.unit):
        raise RecordError(
            f"{where}: its unit is {given.unit!r}, the store's is {kind.unit!r}",
            "convert the value, or declare another signal",
        )
    if clean(kind.unit) != kind.unit:
        raise RecordError(
            f"{where}: the unit declared for it holds a secret", "declare another unit"
        )
    return replace(given, unit=kind.unit)


def amend(
    store: Path,
    amendments: Iterable[Amendment],
    disk: Disk = REAL,
    *,
    new: Mapping[str, SignalKind] | None = None,
) -> Path:
    """Writes `amendments` durably, all of them or none, and returns the path of their file.

    new: declares signals that no shard has, such as a person's feedback; later calls know them.
    Raises RecordError for a value that is not finite, and for a source, unit, signal or step that
    the store does not know.
    """
    known, clean = Known(store, disk), Redactor.current().text
    return _write(store, [_check(a, known, new or {}, clean) for a in amendments], disk)


def amend_held(
    store: Path, amendments: Iterable[Amendment], new: Mapping[str, SignalKind] | None = None
) -> int:
    """Writes the amendments of the rows that the store still holds; how many those are.

    For amendments that a program made of rows which it has read: retention, or a person's right to
    be forgotten, may have removed some of the rows meanwhile. new: as in `amend`.
    """
    known, clean = Known(store), Redactor.current().text
    held = [a for a in amendments if known.holds(a.stream_id, a.t)]
    if held:
        _write(store, [_check(a, known, new or {}, clean) for a in held], REAL)
    return len(held)


def _write(store: Path, checked: Sequence[Amendment], disk: Disk) -> Path:
    if not checked:
        raise RecordError("there is nothing to amend", "give at least one amendment")
    now = time.time_ns()
    table = pa.Table.from_pylist([{**vars(a), "t_ns": now} for a in checked], SCHEMA)
    # One past the highest, not the count: forgetting may have removed files in between.
    number = 1 + max((number_of(path) for path in files(store, disk)), default=-1)
    return publish(store, number, table, disk)


def follow_amended(
    store: Path, reward_version: str | None = "", disk: Disk = REAL
) -> Iterator[list[Step]]:
    """Yields the store's committed steps with their amended signals in place of the first ones.

    reward_version: empty keeps each step's own reward. A name gives the rewards under that version,
    unknown where there is none. None gives each step's last reward, whatever its version.
    """
    signals: dict[tuple[bytes, int], dict[str, Signal]] = defaultdict(dict)
    rewards: dict[tuple[bytes, int], tuple[float | None, str]] = {}
    # Oldest first, so that in both dictionaries the last word on a step overwrites the others.
    for row in amendments(store, disk).to_pylist():
        key = (row["stream_id"], row["t"])
        if not row["reward_version"]:
            signals[key][row["name"]] = Signal(
                row["name"], row["value"], row["unit"], row["source"], row["evidence"]
            )
        elif reward_version in (None, row["reward_version"]):
            rewards[key] = (row["value"], row["reward_version"])
    for steps in Catalog(store, disk=disk).follow():
        yield [_rewarded_as(_amended(step, signals), rewards, reward_version) for step in steps]


def _amended(step: Step, signals: Mapping[tuple[bytes, int], Mapping[str, Signal]]) -> Step:
    later = signals.get((step.stream_id, step.t))
    if not later:
        return step
    return replace(
        step, signals=(*(s for s in step.signals if s.name not in later), *later.values())
    )


def _rewarded_as(
    step: Step, rewards: Mapping[tuple[bytes, int], tuple[float | None, str]], version: str | None
) -> Step:
    """`step` with its reward under `version`; None: with its last."""
    given = rewards.get((step.stream_id, step.t))
    if given is not None:
        return replace(step, reward=given[0], reward_version=given[1])
    # Unknown, not the reward of another version: two versions never mix in one answer.
    if version and step.decision is not None and version != step.reward_version:
        return replace(step, reward=None, reward_version=version)
    return step


@dataclass(frozen=True)
class InForce:
    """What amendments say today, one row per step.

    signals: stream_id, t, names, signals (code, name, value, evidence; code is null). rewards:
    stream_id, t, reward, reward_version, the last of each step.
    """

    signals: pa.Table
    rewards: pa.Table
    names: tuple[str, ...]


_LATER = pa.schema(
    [
        ("stream_id", pa.binary(16)),
        ("t", pa.int64()),
        ("names", pa.list_(pa.string())),
        (
            "signals",
            pa.list_(
                pa.struct(
                    [
                        ("code", pa.int16()),
                        ("name", pa.string()),
                        ("value", pa.float64()),
                        ("evidence", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
_REWARDED = pa.schema(
    [
        ("stream_id", pa.binary(16)),
        ("t", pa.int64()),
        ("reward", pa.float64()),
        ("reward_version", pa.string()),
    ]
)


def in_force(store: Path, disk: Disk = REAL) -> InForce:
    """The last word on each signal and reward that was amended."""
    signals: dict[tuple[bytes, int], dict[str, dict[str, object]]] = defaultdict(dict)
    rewards: dict[tuple[bytes, int], tuple[float | None, str]] = {}
    for row in amendments(store, disk).to_pylist():
        key = (row["stream_id"], row["t"])
        if row["reward_version"]:
            rewards[key] = (row["value"], row["reward_version"])
        else:
            signals[key][row["name"]] = {
                # An amended signal may be in no shard's catalogue, so that it has no code.
                "code": None,
                "name": row["name"],
                "value": row["value"],
                "evidence": row["evidence"],
            }
    later = [
        {"stream_id": stream, "t": t, "names": list(of), "signals": list(of.values())}
        for (stream, t), of in signals.items()
    ]
    rewarded = [
        {"stream_id": stream, "t": t, "reward": value, "reward_version": version}
        for (stream, t), (value, version) in rewards.items()
    ]
    return InForce(
        pa.Table.from_pylist(later, _LATER),
        pa.Table.from_pylist(rewarded, _REWARDED),
        tuple(sorted({name for of in signals.values() for name in of})),
    )


def reward_again(store: Path, model: RewardModel) -> int:
    """Writes the reward under `model` for every answered step. Returns the number of steps.

    Rewards are computed from the signals as they are known now. The reward is unknown for a step
    that failed by the machinery, and for an environment that `model` has no weights for. Raises
    ConfigError if a weight is of a signal that the store does not know.
    """
    known = Known(store)
    model.check(known.signals())
    given = [
        Amendment(
            step.stream_id,
            step.t,
            "reward",
            _rewarded(step, model),
            source="model",
            reward_version=model.version,
        )
        for steps in follow_amended(store)
        for step in steps
        if step.decision is not None
    ]
    if given:
        clean = Redactor.current().text
        _write(store, [_check(a, known, {}, clean) for a in given], REAL)
    return len(given)


def _rewarded(step: Step, model: RewardModel) -> float | None:
    if step.ending in FAILED or (step.reward is None and not step.signals):
        return None
    return model.reward(step.env_id, step.signals, context_of_step(step))
