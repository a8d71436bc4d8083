"""Amendments: signals, feedback and rewards that come after their step was sealed. No shard is ever rewritten.

`amendments/<number>-<SHA-256>.parquet` beside the writers' directories, one immutable file a call, published by one
rename and held against the hash in its name when read. Of two amendments to the same thing the later file's holds.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from experience.errors import ShardError
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.shards.disk import REAL, Disk
from experience.signal import Signal, SignalSource
from experience.step import Step

FOLDER = "amendments"
SCHEMA = pa.schema([
    pa.field("stream_id", pa.binary(16), nullable=False), pa.field("t", pa.int64(), nullable=False),
    pa.field("name", pa.string(), nullable=False), pa.field("value", pa.float64()),
    pa.field("unit", pa.string(), nullable=False), pa.field("source", pa.string(), nullable=False),
    pa.field("evidence", pa.string(), nullable=False), pa.field("reward_version", pa.string(), nullable=False),
    pa.field("t_ns", pa.int64(), nullable=False)])


@dataclass(frozen=True)
class Amendment:
    """A signal `name` of step (stream_id, t), measured later; with a `reward_version`, its reward under that version.
    `value` None is unknown."""

    stream_id: bytes
    t: int
    name: str
    value: float | None
    unit: str = "1"
    source: SignalSource = "human"
    evidence: str = ""
    reward_version: str = ""


def amend(store: Path, amendments: Iterable[Amendment], disk: Disk = REAL) -> Path:
    """Keeps `amendments`; on disk when it returns. Returns their file."""
    now = time.time_ns()
    rows = [{**vars(a), "t_ns": now} for a in amendments]
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, compression="zstd")
    folder = store / FOLDER
    disk.make_directory(folder)
    draft = folder / f".draft-{secrets.token_hex(4)}"
    disk.write_file(draft, [sink.getvalue()])
    number = 1 + max((int(p.stem.partition("-")[0]) for p in _files(store, disk)), default=-1)
    final = folder / f"{number:06d}-{hashlib.sha256(sink.getvalue()).hexdigest()}.parquet"
    disk.rename(draft, final)
    disk.sync_directory(folder)
    return final


def amendments(store: Path, disk: Disk = REAL) -> pa.Table:
    """All of them, oldest first. Raises ShardError if a byte of them is wrong."""
    tables = []
    for path in _files(store, disk):
        data = disk.read(path)
        if hashlib.sha256(data).hexdigest() != path.stem.partition("-")[2]:
            raise ShardError(f"{path} is damaged: it is not what its name says", "restore the file from a copy")
        tables.append(parquet.read_table(io.BytesIO(data)).cast(SCHEMA))
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def follow_amended(store: Path, reward_version: str = "") -> Iterator[list[Step]]:
    """The store's committed steps with later signals in place of earlier ones, and, where `reward_version` names one,
    the rewards that were given under it (unknown where none was)."""
    signals: dict[tuple[bytes, int], dict[str, Signal]] = {}
    rewards: dict[tuple[bytes, int], float | None] = {}
    for row in amendments(store).to_pylist():
        key = (row["stream_id"], row["t"])
        if not row["reward_version"]:
            signals.setdefault(key, {})[row["name"]] = Signal(row["name"], row["value"], row["unit"], row["source"],
                                                              row["evidence"])
        elif row["reward_version"] == reward_version:
            rewards[key] = row["value"]
    for steps in Catalog(store).follow():
        yield [_amended(step, signals.get((step.stream_id, step.t), {}), rewards, reward_version) for step in steps]


def _amended(step: Step, later: Mapping[str, Signal], rewards: Mapping[tuple[bytes, int], float | None],
             version: str) -> Step:
    if later:
        kept = tuple(s for s in step.signals if s.name not in later)
        step = replace(step, signals=(*kept, *later.values()))
    if version and version != step.reward_version and step.decision is not None:
        step = replace(step, reward=rewards.get((step.stream_id, step.t)), reward_version=version)
    return step


def reward_again(store: Path, model: RewardModel) -> int:
    """Gives every answered step its reward under `model`, from its signals as they are known now; how many.

    A step that the machinery failed stays unknown.
    """
    given = [Amendment(step.stream_id, step.t, "reward", None if step.reward is None and not step.signals else
                       model.reward(step.env_id, step.signals), source="model", reward_version=model.version)
             for steps in follow_amended(store) for step in steps if step.decision is not None]
    amend(store, given)
    return len(given)


def _files(store: Path, disk: Disk) -> list[Path]:
    folder = store / FOLDER
    names = disk.names(folder) if folder in disk.directories(store) else []
    return [folder / name for name in names if not name.startswith(".")]
