"""Removal of cold rows: parts that hold rows to be removed are written again without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from experience.shards.cold.parts import Part, Streams, write_part
from experience.shards.cold.retention import (
    RemovedRows,
    Span,
    merged,
    older_than,
    spans_of,
    without,
)
from experience.shards.cold.snapshot import Snapshot, by_stream, publish_snapshot
from experience.shards.storage.amendment_files import drop_amendments
from experience.shards.storage.disk import Disk

RemovalRule = Callable[[pa.Table, Snapshot], np.ndarray]
"""Which rows of a part, sorted by stream and t, are to be removed: bool [rows]."""


def expired_before(before_ns: int) -> RemovalRule:
    """The rule that removes rows that ended before `before_ns`, from each stream's beginning.

    Ask it about all parts, in their order: it notes how far each stream's beginning is removed.
    """
    beginnings: dict[str, int] = {}

    def rule(table: pa.Table, snapshot: Snapshot) -> np.ndarray:
        for stream, count in snapshot.removed_beginnings.items():
            beginnings.setdefault(stream, count)
        return older_than(table, before_ns, beginnings)

    return rule


def remove_rows(
    store: Path, snapshot: Snapshot, rule: RemovalRule, disk: Disk
) -> tuple[Snapshot, int]:
    """Removes the rows that `rule` picks; returns the newest snapshot and how many rows went.

    The amendments of these rows go first. After a crash in between, the same call finds the rows
    still there and removes the rest.
    """
    masks = {part.file: rule(part.table(store, disk), snapshot) for part in snapshot.parts}
    touched = [part for part in snapshot.parts if masks[part.file].any()]
    if not touched:
        return snapshot, 0
    removed = _with_spans_of(touched, masks, store, snapshot, disk)
    spans = by_stream(removed)
    drop_amendments(store, spans, disk)
    version = snapshot.version + 1
    parts = []
    for number, part in enumerate(snapshot.parts):
        mask = masks[part.file]
        if not mask.any():
            parts.append(part)
            continue
        rest = without(part.table(store, disk), mask)
        if rest.num_rows:
            ending = part.file.rpartition(".")[2]
            name = f"part-{version:06d}-{number}.{ending}"
            parts.append(write_part(store, name, rest, _streams_left(part, rest), disk))
    beginnings = {stream: runs[0][1] + 1 for stream, runs in spans.items() if runs[0][0] == 0}
    new = replace(
        snapshot,
        version=version,
        parts=tuple(parts),
        removed=removed,
        removed_beginnings={**snapshot.removed_beginnings, **beginnings},
        published_ns=time.time_ns(),
    )
    publish_snapshot(store, new, disk)
    return new, sum(int(mask.sum()) for mask in masks.values())


def _with_spans_of(
    touched: list[Part],
    masks: Mapping[str, np.ndarray],
    store: Path,
    snapshot: Snapshot,
    disk: Disk,
) -> RemovedRows:
    """What was removed before, and the rows of `touched` parts that their masks pick."""
    removed: dict[str, dict[str, list[Span]]] = {}
    for writer, streams in snapshot.removed.items():
        # From JSON the runs are lists, which `merged` turns into pairs when it meets them.
        removed[writer] = {stream: merged(spans) for stream, spans in streams.items()}
    for part in touched:
        spans = spans_of(part.table(store, disk).filter(pa.array(masks[part.file])))
        for writer, of_writer in part.streams.items():
            for stream in of_writer.keys() & spans.keys():
                known = removed.setdefault(writer, {})
                known[stream] = merged([*known.get(stream, ()), *spans[stream]])
    return removed


def _streams_left(part: Part, rest: pa.Table) -> Streams:
    """By writer and stream, the first and last t that are left of a part."""
    left = spans_of(rest)
    streams: dict[str, dict[str, tuple[int, int]]] = {}
    for writer, of_writer in part.streams.items():
        streams[writer] = {s: (left[s][0][0], left[s][-1][1]) for s in of_writer if s in left}
    return streams
