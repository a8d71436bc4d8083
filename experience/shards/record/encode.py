"""Steps to record batches: columns built from numpy.

Tokens and log-probabilities go from numpy to Arrow without becoming Python numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from experience.policy import Decision
from experience.shards.record.columns import AS_THEY_ARE, BLOB, ID, SIGNAL, SPAN
from experience.shards.record.model_columns import to_columns
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import FIELDS
from experience.step import Step
from experience.text.strict_json import dumps

_NO_DECISION = Decision(
    text=None,  # type: ignore[arg-type]
    policy_version=None,  # type: ignore[arg-type]
    behaviour_id="",
    decoder="",
    sampled=None,  # type: ignore[arg-type]
    temperature=None,
    prompt_cut=None,
    action_cut=None,
)  # type: ignore[arg-type]
_OF_STEP = (
    *AS_THEY_ARE,
    "obs_blobs",
    "boundary",
    "signals",
    "info",
    "parent",
    "action_struct",
    "subject",
)
_OF_DECISION = (
    "policy_version",
    "behaviour_id",
    "decoder",
    "token_exact",
    "action_ids",
    "version_spans",
    "sampled",
    "temperature",
    "prompt_cut",
    "action_cut",
)
_step_values, _decision_values = attrgetter(*_OF_STEP), attrgetter(*_OF_DECISION)


def to_batch(steps: Sequence[Step], target: pa.Schema, deltas: PromptDeltas) -> pa.RecordBatch:
    """One record batch of `steps`, columns built from numpy."""
    # A closing row has no decision: an empty one in its place keeps all columns equally long.
    decisions = [s.decision or _NO_DECISION for s in steps]
    columns: dict[str, Any] = dict(
        zip(_OF_STEP, zip(*map(_step_values, steps), strict=True), strict=True)
    )
    columns |= zip(_OF_DECISION, zip(*map(_decision_values, decisions), strict=True), strict=True)
    prompts, kept = [], np.zeros(len(steps), np.int32)
    for i, (stream, d) in enumerate(zip(columns["stream_id"], decisions, strict=True)):
        if d is _NO_DECISION:
            prompts.append(d.prompt_ids)
        else:
            kept[i], new = deltas.shrink(stream, d.prompt_ids, d.action_ids)
            prompts.append(new)
    codes = _codes(target.metadata[b"signals"])
    signals = list(chain.from_iterable(columns["signals"]))
    blobs = list(chain.from_iterable(columns["obs_blobs"]))
    spans = list(chain.from_iterable(columns["version_spans"]))
    columns |= {
        "parent_stream": _ids([p and p[0] for p in columns["parent"]]),
        "parent_t": [p and p[1] for p in columns["parent"]],
        "prompt_prefix_len": pa.array(kept),
        "prompt_ids": _ragged(prompts, np.int32, pa.int32()),
        "action_text": [d.text for d in decisions],
        "action_ids": _ragged(columns["action_ids"], np.int32, pa.int32()),
        "action_logprobs": _ragged([d.logprobs for d in decisions], np.float32, pa.float32()),
        "allowed_ids": _ragged([d.allowed_ids for d in decisions], np.int32, pa.int32()),
        "allowed_counts": _ragged([d.allowed_counts for d in decisions], np.int32, pa.int32()),
        "version_spans": _lists(
            columns["version_spans"],
            SPAN,
            {"version": [v.version for v in spans], "n_tokens": [v.tokens for v in spans]},
        ),
        "obs_blobs": _lists(
            columns["obs_blobs"],
            BLOB,
            {f.name: [getattr(b, f.name) for b in blobs] for f in BLOB},
        )
        if blobs
        else None,
        "action_struct": [a or None for a in columns["action_struct"]],
        "subject": [s or None for s in columns["subject"]],
        "signals": _lists(
            columns["signals"],
            SIGNAL,
            {
                "code": [codes[g.name] for g in signals],
                "value": [g.value for g in signals],
                "evidence": [g.evidence for g in signals],
            },
        ),
        **to_columns(steps, decisions),
        "info": [dumps(dict(i)).encode() if i else None for i in columns["info"]],
    }
    return pa.RecordBatch.from_arrays(
        [_column(columns.get(name), type_, len(steps)) for name, type_, _ in FIELDS], schema=target
    )


@cache
def _codes(signals: bytes) -> dict[str, int]:
    """Signal name to code, as a schema's metadata says."""
    return {name: code for code, (name, _, _) in enumerate(json.loads(signals))}


def _column(values: Any, of: pa.DataType, rows: int) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values is None:
        return pa.nulls(rows, of)
    if type(values[0]) in _REPEATABLE and values.count(values[0]) == rows:
        return _repeated(values[0], of, rows)
    return _built(values, of)


_REPEATABLE = (str, bytes, int, bool, type(None))  # not float: 0.0 equals -0.0


@lru_cache(maxsize=512)
def _repeated(value: Any, of: pa.DataType, rows: int) -> pa.Array:
    """Most columns of a block hold one value over and over."""
    return _built((value,) * rows, of)


def _built(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_binary(of):
        return _ids(values)
    return _numbers(values, of) if pa.types.is_primitive(of) else pa.array(values, type=of)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)


def _ragged(parts: Sequence[np.ndarray], dtype: Any, value_type: pa.DataType) -> pa.Array:
    # One copy of all rows' numbers: as Python lists they would cost twenty times as much.
    flat = np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)
    return pa.ListArray.from_arrays(
        _offsets([len(p) for p in parts]), pa.array(flat, type=value_type)
    )


def _numbers(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    """A primitive column; None becomes null."""
    dtype = of.to_pandas_dtype()
    if None not in values:
        return pa.array(np.fromiter(values, dtype, len(values)), type=of)
    missing = np.fromiter((v is None for v in values), bool, len(values))
    if missing.all():
        return pa.nulls(len(values), of)
    return pa.array(
        np.fromiter((0 if v is None else v for v in values), dtype, len(values)),
        type=of,
        mask=missing,
    )


def _ids(values: Sequence[bytes | None]) -> pa.Array:
    """A column of 16-byte ids; None becomes null."""
    if None in values:
        return pa.array(values, type=ID)
    together = pa.py_buffer(b"".join(values))  # type: ignore[arg-type]
    return pa.Array.from_buffers(ID, len(values), [None, together])


def _lists(rows: Sequence[Sequence[Any]], of: pa.DataType, columns: Mapping[str, Any]) -> pa.Array:
    """A column of lists of structs from the structs' flattened `columns`."""
    fields = [of.field(i) for i in range(of.num_fields)]
    flat = pa.StructArray.from_arrays(
        [
            _numbers(columns[f.name], f.type)
            if pa.types.is_primitive(f.type)
            else pa.array(columns[f.name], type=f.type)
            for f in fields
        ],
        fields=fields,
    )
    return pa.ListArray.from_arrays(_offsets([len(r) for r in rows]), flat)
