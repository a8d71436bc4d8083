"""The record as Arrow: schema version 1, and steps to and from record batches.

Complete from the first version, so that no later one has to migrate data: add columns, never change them.
Tokens and log-probabilities go from numpy to Arrow without becoming Python numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.policy import Decision, VersionSpan
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step

SCHEMA_ID = "xp.step.v1"

_ID = pa.binary(16)
_BLOB = pa.struct([("hash", pa.binary(32)), ("media", pa.string()), ("nbytes", pa.int64()),
                   ("w", pa.int32()), ("h", pa.int32()), ("role", pa.string())])
_CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("args", pa.large_string())])
_SPAN = pa.struct([("version", pa.int64()), ("n_tokens", pa.int32())])
_SIGNAL = pa.struct([("code", pa.int16()), ("value", pa.float64()), ("evidence", pa.string())])

FIELDS: tuple[tuple[str, pa.DataType, bool], ...] = (
    # whose
    ("stream_id", _ID, False), ("t", pa.int64(), False), ("episode", pa.int64(), True),
    ("step_in_episode", pa.int32(), True), ("work_id", _ID, False), ("group_id", pa.string(), False),
    # where
    ("env_id", pa.string(), False), ("env_version", pa.string(), False), ("task_id", pa.string(), False),
    ("split", pa.string(), False), ("seed", pa.int64(), False), ("sandbox_tier", pa.string(), False),
    # when
    ("t_start_ns", pa.int64(), False), ("t_end_ns", pa.int64(), False),
    # from what
    ("source", pa.string(), False), ("parent_stream", _ID, True), ("parent_t", pa.int64(), True),
    ("model_version", pa.int64(), True), ("uncertainty", pa.float32(), True),
    # seen
    ("obs_text", pa.large_string(), False), ("obs_blobs", pa.list_(_BLOB), True),
    ("obs_struct", pa.large_binary(), True), ("state_key", pa.uint64(), False),
    # asked
    ("prompt_prefix_len", pa.int32(), False), ("prompt_ids", pa.list_(pa.int32()), False),
    # done
    ("action_text", pa.large_string(), True), ("action_ids", pa.list_(pa.int32()), False),
    ("action_logprobs", pa.list_(pa.float32()), False), ("version_spans", pa.list_(_SPAN), False),
    ("policy_version", pa.int64(), True), ("behaviour_id", pa.string(), False), ("decoder", pa.string(), False),
    ("token_exact", pa.bool_(), False), ("tool_calls", pa.list_(_CALL), True),
    ("action_struct", pa.large_binary(), True),
    # under which intent
    ("option_id", pa.int64(), True), ("option_step", pa.int32(), True), ("plan_id", pa.int64(), True),
    ("value_estimate", pa.float32(), True),
    # answered
    ("signals", pa.list_(_SIGNAL), False), ("reward", pa.float64(), True), ("reward_version", pa.string(), False),
    ("discount", pa.float32(), False), ("ending", pa.string(), False),
    # marks
    ("boundary", pa.uint8(), False), ("info", pa.large_binary(), True),
)
TYPES = {name: type_ for name, type_, _ in FIELDS}


PLAIN = pa.schema([pa.field(n, t, nullable=null) for n, t, null in FIELDS])
"""The columns alone, without the metadata that each writer adds."""


def schema(catalogue: Mapping[str, SignalKind], **metadata: Any) -> pa.Schema:
    """Schema v1 whose metadata holds the signal catalogue (its order gives the codes) and `metadata`."""
    described = {"schema_id": SCHEMA_ID,
                 "signals": [[name, kind.unit, kind.source] for name, kind in sorted(catalogue.items())], **metadata}
    return PLAIN.with_metadata({k: json.dumps(v) for k, v in described.items()})


def signal_names(of: pa.Schema) -> list[tuple[str, str, str]]:
    """(name, unit, source) per signal code, as the shard's metadata says."""
    return [tuple(entry) for entry in json.loads((of.metadata or {})[b"signals"])]


def check_schema(found: pa.Schema, where: str) -> None:
    """Raises ShardError unless `found` has exactly our fields: a foreign file is never half understood."""
    if not found.equals(PLAIN):
        raise ShardError(f"{where}: the schema is not {SCHEMA_ID}", "the file was not written by this version of xp")


def _offsets(lengths: Sequence[int]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)


def _ragged(parts: Sequence[np.ndarray], dtype: Any, value_type: pa.DataType) -> pa.Array:
    flat = np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)
    return pa.ListArray.from_arrays(_offsets([len(p) for p in parts]), pa.array(flat, type=value_type))


def _numbers(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    """A primitive column; None becomes null."""
    dtype = of.to_pandas_dtype()
    if None not in values:
        return pa.array(np.fromiter(values, dtype, len(values)), type=of)
    missing = np.fromiter((v is None for v in values), bool, len(values))
    if missing.all():
        return pa.nulls(len(values), of)
    return pa.array(np.fromiter((0 if v is None else v for v in values), dtype, len(values)), type=of, mask=missing)


def _ids(values: Sequence[bytes | None]) -> pa.Array:
    """A column of 16-byte ids; None becomes null."""
    if None in values:
        return pa.array(values, type=_ID)
    return pa.Array.from_buffers(_ID, len(values), [None, pa.py_buffer(b"".join(values))])  # type: ignore[arg-type]


def _lists(rows: Sequence[Sequence[Any]], of: pa.DataType, columns: Mapping[str, Any]) -> pa.Array:
    """A column of lists of structs from the structs' flattened `columns`."""
    fields = [of.field(i) for i in range(of.num_fields)]
    flat = pa.StructArray.from_arrays([pa.array(columns[f.name], type=f.type) if f.type == pa.string()
                                       else _numbers(columns[f.name], f.type) for f in fields], fields=fields)
    return pa.ListArray.from_arrays(_offsets([len(r) for r in rows]), flat)


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens two int32 arrays share."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


class PromptDeltas:
    """Prompts stored as what is new: the tokens kept of the stream's last context, and the rest.

    A context is a row's whole prompt followed by its action. One object serves both directions, in stream order.
    """

    def __init__(self) -> None:
        self._context: dict[bytes, np.ndarray] = {}

    def shrink(self, stream: bytes, prompt: np.ndarray, action: np.ndarray) -> tuple[int, np.ndarray]:
        context = self._context.get(stream)
        kept = 0 if context is None or not len(prompt) else common_prefix(context, prompt)
        self._context[stream] = np.concatenate([prompt, action])
        return kept, prompt[kept:]

    def expand(self, stream: bytes, kept: int, new: np.ndarray, action: np.ndarray) -> np.ndarray:
        context = self._context.get(stream, new[:0])
        if kept > len(context):
            raise ShardError(f"stream {stream.hex()}: a prompt keeps {kept} tokens of a context of {len(context)}",
                             "read the stream's rows in order, from the start of a segment")
        prompt = np.concatenate([context[:kept], new])
        self._context[stream] = np.concatenate([prompt, action])
        return prompt

    def forget(self) -> None:
        """Start of a segment: each segment can be read on its own."""
        self._context.clear()


_EMPTY_IDS = np.empty(0, np.int32)
_EMPTY_LOGPROBS = np.empty(0, np.float32)


def to_batch(steps: Sequence[Step], target: pa.Schema, deltas: PromptDeltas) -> pa.RecordBatch:
    """One record batch of `steps`, columns built from numpy."""
    codes = {name: code for code, (name, _, _) in enumerate(signal_names(target))}
    decisions = [s.decision for s in steps]
    prompts, kept = [], np.zeros(len(steps), np.int32)
    for i, (step, d) in enumerate(zip(steps, decisions, strict=True)):
        if d is None:
            prompts.append(_EMPTY_IDS)
        else:
            kept[i], new = deltas.shrink(step.stream_id, d.prompt_ids, d.action_ids)
            prompts.append(new)
    spans = [d.version_spans if d else () for d in decisions]
    every_span = [v for row in spans for v in row]
    signals = [s.signals for s in steps]
    every_signal = [g for row in signals for g in row]
    columns: dict[str, Any] = {
        "parent_stream": _ids([s.parent[0] if s.parent else None for s in steps]),
        "parent_t": [s.parent[1] if s.parent else None for s in steps],
        "prompt_prefix_len": kept, "prompt_ids": _ragged(prompts, np.int32, pa.int32()),
        "action_text": [d.text if d else None for d in decisions],
        "action_ids": _ragged([d.action_ids if d else _EMPTY_IDS for d in decisions], np.int32, pa.int32()),
        "action_logprobs": _ragged([d.logprobs if d else _EMPTY_LOGPROBS for d in decisions],
                                   np.float32, pa.float32()),
        "version_spans": _lists(spans, _SPAN, {"version": [v.version for v in every_span],
                                               "n_tokens": [v.tokens for v in every_span]}),
        "policy_version": [d.policy_version if d else None for d in decisions],
        "behaviour_id": [d.behaviour_id if d else "" for d in decisions],
        "decoder": [d.decoder if d else "" for d in decisions],
        "token_exact": [bool(d and d.token_exact) for d in decisions],
        "action_struct": [s.action_struct or None for s in steps],
        "signals": _lists(signals, _SIGNAL, {"code": [codes[g.name] for g in every_signal],
                                             "value": [g.value for g in every_signal],
                                             "evidence": [g.evidence for g in every_signal]}),
        "info": [json.dumps(dict(s.info)).encode() if s.info else None for s in steps],
    }
    arrays = []
    for name, type_, _ in FIELDS:
        values = columns[name] if name in columns else [getattr(s, name, None) for s in steps]
        if isinstance(values, pa.Array):
            arrays.append(values)
        elif pa.types.is_fixed_size_binary(type_):
            arrays.append(_ids(values))
        elif name in _NOT_YET:
            arrays.append(pa.nulls(len(steps), type_))
        elif pa.types.is_primitive(type_):
            arrays.append(_numbers(values, type_))
        else:
            arrays.append(pa.array(values, type=type_))
    return pa.RecordBatch.from_arrays(arrays, schema=target)


_NOT_YET = ("obs_blobs", "obs_struct", "tool_calls")
"""Columns of the record that nothing writes so far."""


def to_steps(batch: pa.RecordBatch, deltas: PromptDeltas) -> list[Step]:
    """The steps of a batch, exactly as they were appended; `deltas` must have seen the segment's earlier rows."""
    names = signal_names(batch.schema)
    scalars = batch.drop_columns(["prompt_ids", "action_ids", "action_logprobs"]).to_pylist()
    prompt_ids, action_ids = _slices(batch, "prompt_ids"), _slices(batch, "action_ids")
    logprobs = _slices(batch, "action_logprobs")
    steps = []
    for i, row in enumerate(scalars):
        decision = None
        if row["action_text"] is not None:
            prompt = deltas.expand(row["stream_id"], row["prompt_prefix_len"], prompt_ids[i], action_ids[i])
            decision = Decision(
                text=row["action_text"], policy_version=row["policy_version"], prompt_ids=prompt,
                action_ids=action_ids[i], logprobs=logprobs[i], token_exact=row["token_exact"],
                version_spans=tuple(VersionSpan(v["version"], v["n_tokens"]) for v in row["version_spans"]),
                decoder=row["decoder"], behaviour_id=row["behaviour_id"])
        signals = tuple(Signal(names[s["code"]][0], s["value"], names[s["code"]][1],  # type: ignore[arg-type]
                               names[s["code"]][2], s["evidence"]) for s in row["signals"])
        parent = None if row["parent_stream"] is None else (row["parent_stream"], row["parent_t"])
        steps.append(Step(
            decision=decision, signals=signals, parent=parent, boundary=Boundary(row["boundary"]),
            info=json.loads(row["info"]) if row["info"] else {}, action_struct=row["action_struct"] or b"",
            **{name: row[name] for name in (
                "stream_id", "t", "env_id", "obs_text", "source", "episode", "step_in_episode", "work_id", "group_id",
                "env_version", "task_id", "split", "seed", "sandbox_tier", "t_start_ns", "t_end_ns", "model_version",
                "uncertainty", "state_key", "option_id", "option_step", "plan_id", "value_estimate", "reward",
                "reward_version", "discount", "ending")}))
    return steps


def _slices(batch: pa.RecordBatch, name: str) -> list[np.ndarray]:
    column = batch.column(name)
    offsets = column.offsets.to_numpy()
    flat = column.values.to_numpy(zero_copy_only=True)
    return [flat[a:b] for a, b in pairwise(offsets)]
