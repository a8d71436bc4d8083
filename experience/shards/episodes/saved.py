"""The saved index: what of it belongs to sealed rows, in one file beside the store.

EPISODES    an Arrow file of the records, and behind it the 32 bytes of its SHA-256
The file names every shard that it was made of, with the shard's SHA-256 by the manifest, the rows
that were removed by then, the reward, and the amendments that were counted in. Rows of segments
that were open are left out: they are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experience.reward import RewardModel
from experience.shards.cold.snapshot import Snapshot, read_snapshot
from experience.shards.episodes.records import RECORD, REF, Records
from experience.shards.episodes.rewards import Key
from experience.shards.storage.amendment_files import files
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.locate import EPISODES
from experience.shards.storage.manifest import read_manifest
from experience.text.strict_json import dumps

_FORMAT = 1


class NotUsable(Exception):
    """Why there is no saved index that may be believed; empty if there is none at all."""


@dataclass(frozen=True)
class Saved:
    """What was read of a saved index. `given`: by stream, the last t that it knows."""

    records: Records
    files: list[str]
    given: dict[bytes, int]
    covered: dict[str, str]
    tellers: list[Key]
    amendments: list[str]
    snapshot: Snapshot


@dataclass
class _Before:
    """A stream as it was before the first rows of a segment."""

    last_t: int
    number: int
    record: np.ndarray | None


@dataclass
class Coverage:
    """Which segments were read, and how the records were before the rows of each.

    A segment is covered once all rows of it that the manifest tells of were read.
    """

    rows: dict[str, int] = field(default_factory=dict)
    """By segment, how many of its rows were read."""
    covered: dict[str, str] = field(default_factory=dict)
    """By segment, the SHA-256 that the manifest gives it."""
    _before: dict[str, dict[bytes, _Before]] = field(default_factory=dict)

    def note(self, name: str, stream: bytes, last_t: int, records: Records, number: int) -> None:
        """Notes how a stream was before its first rows in segment `name`. number: its record that
        goes on; −1: none."""
        known = self._before.setdefault(name, {})
        if stream not in known:
            record = records.rows[number : number + 1].copy() if number >= 0 else None
            known[stream] = _Before(last_t, number, record)

    def look(self, store: Path, snapshot: Snapshot, disk: Disk) -> None:
        """Finds the segments that are covered by now, and forgets how it was before them."""
        lines = manifest_lines(store, disk)
        for name in snapshot.replaced:
            stem = name.rpartition(".")[0]
            self.covered.setdefault(stem, lines.get(stem, (0, ""))[1])
        for name, rows in self.rows.items():
            if name in lines and lines[name][0] == rows:
                self.covered.setdefault(name, lines[name][1])
        for name in self.covered:
            self.rows.pop(name, None)
            self._before.pop(name, None)

    def uncovered(self) -> dict[bytes, _Before]:
        """Each stream that has rows in segments that are not covered, as it was before them."""
        found: dict[bytes, _Before] = {}
        for name in sorted(self._before):
            for stream, before in self._before[name].items():
                found.setdefault(stream, before)
        return found


def manifest_lines(store: Path, disk: Disk) -> dict[str, tuple[int, str]]:
    """By "writer/seg-…", the rows and the SHA-256 of every shard that was ever sealed."""
    return {
        f"{folder.name}/{line['file'].rpartition('.')[0]}": (line["rows"], line["sha256"])
        for folder in disk.directories(store)
        for line in read_manifest(folder, disk)
    }


def save(
    store: Path,
    records: Records,
    files: list[str],
    coverage: Coverage,
    given: Mapping[bytes, int],
    tellers: list[Key],
    about: Mapping[str, Any],
    disk: Disk,
) -> None:
    """Writes the part of `records` that belongs to covered rows. Raises OSError."""
    before = coverage.uncovered()
    known = dict(given) | {stream: b.last_t for stream, b in before.items()}
    rows, refs = _covered(records, before)
    described = {
        "format": _FORMAT,
        "fields": repr(RECORD.descr),
        "words": records.words.words,
        "files": files,
        "covered": coverage.covered,
        "given": {stream.hex(): t for stream, t in known.items() if t >= 0},
        "tellers": [(s.hex(), t) for s, t in tellers if t <= known.get(s, -1)],
        **about,
    }
    data = _as_arrow({"records": rows, "refs": refs, "streams": records.streams.ids}, described)
    draft = store / f".{EPISODES}-{secrets.token_hex(4)}"
    try:
        disk.write_file(draft, [data, hashlib.sha256(data).digest()])
        disk.rename(draft, store / EPISODES)
    except OSError:
        with contextlib.suppress(OSError):
            disk.remove(draft)
        raise


def _covered(records: Records, before: Mapping[bytes, _Before]) -> tuple[np.ndarray, np.ndarray]:
    """The records, and their refs, without the rows of segments that are not covered."""
    rows = records.rows.copy()
    stays = np.ones(len(rows), bool)
    for stream, was in before.items():
        of = records.streams.find(stream)
        stays[(rows["stream"] == of) & (rows["first_t"] > was.last_t)] = False
        if was.record is not None:
            rows[was.number] = was.record[0]
    numbers = np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32)
    kept = rows[stays]
    kept["previous"] = np.where(kept["previous"] >= 0, numbers[kept["previous"]], -1)
    over = np.flatnonzero(kept["closed"] >= 0)
    kept["closed"][over[np.argsort(kept["closed"][over], kind="stable")]] = np.arange(len(over))
    counts = kept["n_refs"].astype(np.int64)
    starts = np.cumsum(counts) - counts
    at = np.repeat(kept["refs"] - starts, counts) + np.arange(counts.sum())
    refs = records.refs[at]
    kept["refs"] = starts
    return kept, refs


def _as_arrow(arrays: Mapping[str, np.ndarray], described: Mapping[str, Any]) -> bytes:
    """One Arrow file of one row, in which each array is one compressed value."""
    columns = {name: pa.array([of.tobytes()], pa.large_binary()) for name, of in arrays.items()}
    table = pa.table(columns).replace_schema_metadata({"about": dumps(described)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def load(store: Path, reward: RewardModel | None, disk: Disk = REAL) -> Saved:
    """The saved index of a store. Raises NotUsable, with the reason, if there is none to believe.

    Raises ShardError if the store's own manifests or snapshot are damaged.
    """
    table, about = _read(store, disk)
    version = reward_key(reward)
    if about["reward"] != version:
        raise NotUsable(f"the saved index has the rewards {about['reward']!r}, not {version!r}")
    snapshot, lines = read_snapshot(store, disk), manifest_lines(store, disk)
    if about["removed"] != removed_key(snapshot):
        raise NotUsable("rows were removed from the store since its index was saved")
    for name, digest in about["covered"].items():
        if digest and lines.get(name, (0, ""))[1] != digest:
            raise NotUsable(f"the saved index was made of another {name} than the store holds")
        if not digest and f"{name}.arrow" not in snapshot.replaced:
            raise NotUsable(f"the saved index was made of {name}, which the store does not hold")
    missing = set(about["amendments"]) - {path.name for path in files(store, disk)}
    if missing:
        raise NotUsable("amendments were removed from the store since its index was saved")
    records = Records(
        _array(table, "records", RECORD),
        _array(table, "refs", REF),
        about["words"],
        _array(table, "streams", np.dtype("V16")),
    )
    return Saved(
        records,
        about["files"],
        {bytes.fromhex(stream): t for stream, t in about["given"].items()},
        about["covered"],
        [(bytes.fromhex(stream), t) for stream, t in about["tellers"]],
        about["amendments"],
        snapshot,
    )


def _read(store: Path, disk: Disk) -> tuple[pa.Table, dict[str, Any]]:
    if not disk.exists(store / EPISODES):
        raise NotUsable("")
    data = disk.read(store / EPISODES)
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise NotUsable("the saved index is damaged")
    try:
        table = pa.ipc.open_file(pa.BufferReader(data[:-32])).read_all()
        about = json.loads(table.schema.metadata[b"about"])
        if about["format"] != _FORMAT or about["fields"] != repr(RECORD.descr):
            raise NotUsable("the saved index is of another version of xp")
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise NotUsable(f"the saved index cannot be read: {error!r}") from error
    return table, about


def _array(table: pa.Table, name: str, of: np.dtype[Any]) -> np.ndarray:
    return np.frombuffer(table.column(name)[0].as_buffer(), of)


def reward_key(reward: RewardModel | None) -> str:
    """What names the rewards that the records were made with."""
    return reward.version if reward is not None else ""


def removed_key(snapshot: Snapshot) -> str:
    """What names the rows that were removed from a store."""
    spans = {s.hex(): [list(span) for span in of] for s, of in snapshot.removed_spans.items()}
    return hashlib.sha256(dumps(spans, sort_keys=True).encode()).hexdigest()
