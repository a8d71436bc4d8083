"""Retention as arithmetic on rows: which are removed, and how the others still read as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from experience.shards.record.prompts import PromptDeltas

Span = tuple[int, int]
"""The first and last t of a run of rows."""
RemovedRows = Mapping[str, Mapping[str, Sequence[Span]]]
"""By writer and stream (hex), which rows were removed: runs in order, none next to another."""


def merged(spans: Iterable[Sequence[int]]) -> list[Span]:
    """The same rows as few runs, in order."""
    runs: list[Span] = []
    for first, last in sorted((int(a), int(b)) for a, b in spans):
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(runs[-1][1], last))
        else:
            runs.append((first, last))
    return runs


def spans_of(table: pa.Table) -> dict[str, list[Span]]:
    """By stream (hexadecimal), the runs of t that `table` holds."""
    rows: dict[bytes, list[Span]] = {}
    for stream, t in zip(
        table.column("stream_id").to_pylist(), table.column("t").to_pylist(), strict=True
    ):
        spans = rows.setdefault(stream, [])
        if spans and spans[-1][1] == t - 1:
            spans[-1] = (spans[-1][0], t)
        else:
            spans.append((t, t))
    return {stream.hex(): merged(spans) for stream, spans in rows.items()}


def older_than(table: pa.Table, before_ns: int, begins: dict[str, int]) -> np.ndarray:
    """Which rows [rows] are removed because they ended before `before_ns`.

    Of a stream only its beginning is, up to the first row that is not old. `begins`: by stream, how
    many of its first rows are removed, which is noted there. `table` is sorted by stream and t, and
    comes after the parts that hold earlier rows.
    """
    stream, t = table.column("stream_id").to_numpy(), table.column("t").to_numpy()
    old = table.column("t_end_ns").to_numpy() < before_ns
    gone = np.zeros(len(t), bool)
    starts = np.flatnonzero(np.r_[True, stream[1:] != stream[:-1]]) if len(t) else np.empty(0, int)
    for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(t)], strict=True):
        if t[a] != begins.get(stream[a].hex(), 0):  # an earlier part kept the rows before
            continue
        count = b - a if old[a:b].all() else int(np.argmin(old[a:b]))
        if count:
            gone[a : a + count] = True
            begins[stream[a].hex()] = int(t[a]) + count
    return gone


def without(table: pa.Table, gone: np.ndarray) -> pa.Table:
    """The rows that stay, which read as they did. `table` is sorted by stream and t.

    A prompt stored as what is new since a removed row is stored whole.
    """
    deltas, broken, stored_whole = PromptDeltas(), set[bytes](), False
    prefix = table.column("prompt_prefix_len").to_numpy().copy()
    ids, actions = _arrays(table, "prompt_ids"), _arrays(table, "action_ids")
    acted = table.column("action_text").is_valid().to_numpy(zero_copy_only=False)
    streams = table.column("stream_id").to_pylist()
    touched = {stream for stream, goes in zip(streams, gone.tolist(), strict=True) if goes}
    for row, stream in enumerate(streams):
        if stream not in touched or not acted[row]:
            continue
        whole = deltas.expand(stream, int(prefix[row]), ids[row], actions[row])
        if gone[row]:
            broken.add(stream)
        elif stream in broken:
            broken.discard(stream)
            prefix[row], ids[row], stored_whole = 0, whole, True
    if stored_whole:
        offsets = pa.array(np.cumsum([0, *map(len, ids)]), pa.int32())
        whole_ids = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(ids), pa.int32()))
        for name, column in (("prompt_prefix_len", pa.array(prefix)), ("prompt_ids", whole_ids)):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), column)
    return table.filter(pa.array(~gone))


def _arrays(table: pa.Table, name: str) -> list[np.ndarray]:
    """A column of lists of int32, each row an array."""
    arrays: list[np.ndarray] = []
    for chunk in table.column(name).chunks:
        offsets, flat = chunk.offsets.to_numpy(), chunk.values.to_numpy()
        arrays += [flat[first:end] for first, end in pairwise(offsets)]
    return arrays
