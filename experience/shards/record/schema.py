"""The schema: the record's columns as Arrow, with the signal catalogue in the metadata.

    xp.step.v1    46 columns
    xp.step.v2    adds `subject`
    xp.step.v3    adds `sampled`, `temperature`, `allowed_ids`, `allowed_counts`, `prompt_cut`,
                  `action_cut`
    xp.step.v4    adds what the model thought and said beside its calls, what the calls gave, its
                  name, its tokens and its time (see model_columns)
A file with fewer columns is read as if the others were null (`conform`), so that no data is ever
migrated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.errors import ShardError
from experience.shards.record.columns import COLUMNS
from experience.signal import SignalKind
from experience.text.strict_json import dumps

SCHEMA_ID = "xp.step.v4"
SIGNAL = "signal."
"""What stands before a signal's name where the signal is a column of its own."""
FIELDS = tuple((column.name, column.type, column.nullable) for column in COLUMNS)
TYPES = {name: type_ for name, type_, _ in FIELDS}


PLAIN = pa.schema([pa.field(n, t, nullable=null) for n, t, null in FIELDS])
"""The columns alone, without the metadata that each writer adds."""


def schema(catalogue: Mapping[str, SignalKind], **metadata: Any) -> pa.Schema:
    """The schema, with the signal catalogue (its order gives the codes) and `metadata`."""
    described = {
        "schema_id": SCHEMA_ID,
        # Sorted: equal catalogues then give equal bytes, and their shards may share a cold part.
        "signals": [[name, kind.unit, kind.source] for name, kind in sorted(catalogue.items())],
        **metadata,
    }
    return PLAIN.with_metadata({k: dumps(v) for k, v in described.items()})


def signal_names(of: pa.Schema) -> list[tuple[str, str, str]]:
    """(name, unit, source) per signal code, as the shard's metadata says."""
    return list(_signal_names((of.metadata or {})[b"signals"]))


@lru_cache(maxsize=64)
def _signal_names(described: bytes) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, unit, source) for name, unit, source in json.loads(described))


def check_schema(found: pa.Schema, where: str) -> None:
    """Raises ShardError unless `found` has our fields; fields that came later may be missing.

    A foreign file is never half understood.
    """
    known = {field.name: field for field in PLAIN}
    for field in found:
        expected = known.pop(field.name, None)
        if expected is None:
            raise ShardError(
                f"{where}: column {field.name!r} is not in {SCHEMA_ID}, or is there twice",
                "the file was not written by xp, or by a newer one",
            )
        if not field.type.equals(expected.type) or field.nullable != expected.nullable:
            raise ShardError(
                f"{where}: column {field.name} is {field.type}, {expected.type} expected",
                "the file was not written by xp, or by a newer one",
            )
    for field in known.values():
        if not field.nullable:
            raise ShardError(
                f"{where}: column {field.name} is missing", "the file was not written by xp"
            )
    try:
        signal_names(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"{where}: its signal catalogue cannot be read: {error!r}",
            "the file was not written by xp",
        ) from error


def conform(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with every column of today, in order; a column that the file lacks is null.

    The metadata, and with it the signal catalogue, stays.
    """
    if batch.schema.equals(PLAIN):
        return batch
    there = set(batch.schema.names)
    columns = [
        batch.column(f.name) if f.name in there else pa.nulls(batch.num_rows, f.type) for f in PLAIN
    ]
    return pa.RecordBatch.from_arrays(columns, schema=PLAIN.with_metadata(batch.schema.metadata))


def signal_values(
    batch: pa.RecordBatch, catalogue: Sequence[str], names: Sequence[str]
) -> list[pa.Array]:
    """For each of `names`, float64 [rows]: the value of that signal, null where a row has none.

    A code is a position in the batch's own `catalogue`: two shards may give one signal two codes.
    """
    codes = {name: code for code, name in enumerate(catalogue)}
    signals = batch.column("signals")
    rows = pc.list_parent_indices(signals).to_numpy()
    flat = signals.flatten()
    code, value = flat.field("code").to_numpy(), flat.field("value")
    known = value.is_valid().to_numpy(zero_copy_only=False)
    values = value.fill_null(0.0).to_numpy(zero_copy_only=False)
    found = []
    for name in names:
        # Backwards: numpy keeps the last of two writes to one row, and the first signal holds.
        at = np.flatnonzero((code == codes.get(name, -1)) & known)[::-1]
        column, missing = np.zeros(batch.num_rows), np.ones(batch.num_rows, bool)
        column[rows[at]], missing[rows[at]] = values[at], False
        found.append(pa.array(column, mask=missing))
    return found
