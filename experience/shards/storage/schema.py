"""The record as Arrow, and steps to and from record batches.

Later formats add columns, which may be null, and never change one: a file with fewer columns is read as if the others
were null (`conform`), so no data is ever migrated.
    xp.step.v1    46 columns
    xp.step.v2    adds `subject`
    xp.step.v3    adds `sampled`, `temperature`, `allowed_ids`, `allowed_counts`, `prompt_cut`, `action_cut`
Tokens and log-probabilities go from numpy to Arrow without becoming Python numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.errors import ShardError
from experience.policy import Decision, VersionSpan
from experience.signal import Signal, SignalKind
from experience.step import Blob, Boundary, Step
from experience.strict_json import dumps

SCHEMA_ID = "xp.step.v3"

_ID = pa.binary(16)
_BLOB = pa.struct(
    [
        ("hash", pa.binary(32)),
        ("media", pa.string()),
        ("nbytes", pa.int64()),
        ("w", pa.int32()),
        ("h", pa.int32()),
        ("role", pa.string()),
    ]
)
_CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("args", pa.large_string())])
_SPAN = pa.struct([("version", pa.int64()), ("n_tokens", pa.int32())])
_SIGNAL = pa.struct([("code", pa.int16()), ("value", pa.float64()), ("evidence", pa.string())])

FIELDS: tuple[tuple[str, pa.DataType, bool], ...] = (
    # whose
    ("stream_id", _ID, False),
    ("t", pa.int64(), False),
    ("episode", pa.int64(), True),
    ("step_in_episode", pa.int32(), True),
    ("work_id", _ID, False),
    ("group_id", pa.string(), False),
    # where
    ("env_id", pa.string(), False),
    ("env_version", pa.string(), False),
    ("task_id", pa.string(), False),
    ("split", pa.string(), False),
    ("seed", pa.int64(), False),
    ("sandbox_tier", pa.string(), False),
    # when
    ("t_start_ns", pa.int64(), False),
    ("t_end_ns", pa.int64(), False),
    # from what
    ("source", pa.string(), False),
    ("parent_stream", _ID, True),
    ("parent_t", pa.int64(), True),
    ("model_version", pa.int64(), True),
    ("uncertainty", pa.float32(), True),
    # seen
    ("obs_text", pa.large_string(), False),
    ("obs_blobs", pa.list_(_BLOB), True),
    ("obs_struct", pa.large_binary(), True),
    ("state_key", pa.uint64(), False),
    # asked
    ("prompt_prefix_len", pa.int32(), False),
    ("prompt_ids", pa.list_(pa.int32()), False),
    # done
    ("action_text", pa.large_string(), True),
    ("action_ids", pa.list_(pa.int32()), False),
    ("action_logprobs", pa.list_(pa.float32()), False),
    ("version_spans", pa.list_(_SPAN), False),
    ("policy_version", pa.int64(), True),
    ("behaviour_id", pa.string(), False),
    ("decoder", pa.string(), False),
    ("token_exact", pa.bool_(), False),
    ("tool_calls", pa.list_(_CALL), True),
    ("action_struct", pa.large_binary(), True),
    # under which intent
    ("option_id", pa.int64(), True),
    ("option_step", pa.int32(), True),
    ("plan_id", pa.int64(), True),
    ("value_estimate", pa.float32(), True),
    # answered
    ("signals", pa.list_(_SIGNAL), False),
    ("reward", pa.float64(), True),
    ("reward_version", pa.string(), False),
    ("discount", pa.float32(), False),
    ("ending", pa.string(), False),
    # marks
    ("boundary", pa.uint8(), False),
    ("info", pa.large_binary(), True),
    # about whom (since v2)
    ("subject", pa.string(), True),
    # how it was decoded (since v3)
    ("sampled", pa.bool_(), True),
    ("temperature", pa.float64(), True),
    ("allowed_ids", pa.list_(pa.int32()), True),
    ("allowed_counts", pa.list_(pa.int32()), True),
    ("prompt_cut", pa.int32(), True),
    ("action_cut", pa.bool_(), True),
)
TYPES = {name: type_ for name, type_, _ in FIELDS}


PLAIN = pa.schema([pa.field(n, t, nullable=null) for n, t, null in FIELDS])
"""The columns alone, without the metadata that each writer adds."""


def schema(catalogue: Mapping[str, SignalKind], **metadata: Any) -> pa.Schema:
    """The schema whose metadata holds the signal catalogue (its order gives the codes) and `metadata`."""
    described = {
        "schema_id": SCHEMA_ID,
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
    """Raises ShardError unless `found` has our fields, with those that came later missing at most: a foreign file is
    never half understood."""
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
    """For each of `names`, float64 [rows]: the value that a row's signals hold under it, null where there is none.

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
        at = np.flatnonzero((code == codes.get(name, -1)) & known)[
            ::-1
        ]  # backwards: of two in one row the first holds
        column, missing = np.zeros(batch.num_rows), np.ones(batch.num_rows, bool)
        column[rows[at]], missing[rows[at]] = values[at], False
        found.append(pa.array(column, mask=missing))
    return found


def _offsets(lengths: Sequence[int]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)


def _ragged(parts: Sequence[np.ndarray], dtype: Any, value_type: pa.DataType) -> pa.Array:
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
        return pa.array(values, type=_ID)
    return pa.Array.from_buffers(_ID, len(values), [None, pa.py_buffer(b"".join(values))])  # type: ignore[arg-type]


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
        self._context: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def shrink(
        self, stream: bytes, prompt: np.ndarray, action: np.ndarray
    ) -> tuple[int, np.ndarray]:
        context = self._context.get(stream)
        kept = (
            0
            if context is None or not len(prompt)
            else common_prefix(np.concatenate(context), prompt)
        )
        self._context[stream] = prompt, action
        return kept, prompt[kept:]

    def expand(self, stream: bytes, kept: int, new: np.ndarray, action: np.ndarray) -> np.ndarray:
        context = np.concatenate(self._context.get(stream, (new[:0],)))
        if kept > len(context):
            raise ShardError(
                f"stream {stream.hex()}: a prompt keeps {kept} tokens of a context of {len(context)}",
                "read the stream's rows in order, from the start of a segment",
            )
        prompt = np.concatenate([context[:kept], new])
        self._context[stream] = prompt, action
        return prompt

    def forget(self) -> None:
        """Start of a segment: each segment can be read on its own."""
        self._context.clear()


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
    "stream_id",
    "t",
    "episode",
    "step_in_episode",
    "work_id",
    "group_id",
    "env_id",
    "env_version",
    "task_id",
    "split",
    "seed",
    "sandbox_tier",
    "t_start_ns",
    "t_end_ns",
    "source",
    "model_version",
    "uncertainty",
    "obs_text",
    "obs_blobs",
    "state_key",
    "option_id",
    "option_step",
    "plan_id",
    "value_estimate",
    "reward",
    "reward_version",
    "discount",
    "ending",
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
            _SPAN,
            {"version": [v.version for v in spans], "n_tokens": [v.tokens for v in spans]},
        ),
        "obs_blobs": _lists(
            columns["obs_blobs"],
            _BLOB,
            {f.name: [getattr(b, f.name) for b in blobs] for f in _BLOB},
        )
        if blobs
        else None,
        "action_struct": [a or None for a in columns["action_struct"]],
        "subject": [s or None for s in columns["subject"]],
        "signals": _lists(
            columns["signals"],
            _SIGNAL,
            {
                "code": [codes[g.name] for g in signals],
                "value": [g.value for g in signals],
                "evidence": [g.evidence for g in signals],
            },
        ),
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


def to_steps(batch: pa.RecordBatch, deltas: PromptDeltas) -> list[Step]:
    """The steps of a batch, exactly as they were appended; `deltas` must have seen the segment's earlier rows."""
    names = signal_names(batch.schema)
    batch = conform(batch)
    scalars = batch.drop_columns(
        ["prompt_ids", "action_ids", "action_logprobs", "allowed_ids", "allowed_counts"]
    ).to_pylist()
    prompt_ids, action_ids = _slices(batch, "prompt_ids"), _slices(batch, "action_ids")
    logprobs, allowed_ids = _slices(batch, "action_logprobs"), _slices(batch, "allowed_ids")
    allowed_counts = _slices(batch, "allowed_counts")
    steps = []
    for i, row in enumerate(scalars):
        decision = None
        if row["action_text"] is not None:
            prompt = deltas.expand(
                row["stream_id"], row["prompt_prefix_len"], prompt_ids[i], action_ids[i]
            )
            decision = Decision(
                text=row["action_text"],
                policy_version=row["policy_version"],
                prompt_ids=prompt,
                action_ids=action_ids[i],
                logprobs=logprobs[i],
                token_exact=row["token_exact"],
                version_spans=tuple(
                    VersionSpan(v["version"], v["n_tokens"]) for v in row["version_spans"]
                ),
                decoder=row["decoder"],
                behaviour_id=row["behaviour_id"],
                allowed_ids=allowed_ids[i],
                allowed_counts=allowed_counts[i],
                **_decoding(row),
            )
        signals = tuple(
            Signal(
                names[s["code"]][0],
                s["value"],
                names[s["code"]][1],  # type: ignore[arg-type]
                names[s["code"]][2],
                s["evidence"],
            )
            for s in row["signals"]
        )
        parent = None if row["parent_stream"] is None else (row["parent_stream"], row["parent_t"])
        steps.append(
            Step(
                decision=decision,
                signals=signals,
                parent=parent,
                obs_blobs=tuple(Blob(**b) for b in row["obs_blobs"] or ()),
                boundary=Boundary(row["boundary"]),
                info=json.loads(row["info"]) if row["info"] else {},
                action_struct=row["action_struct"] or b"",
                subject=row["subject"] or "",
                **{
                    name: row[name]
                    for name in (
                        "stream_id",
                        "t",
                        "env_id",
                        "obs_text",
                        "source",
                        "episode",
                        "step_in_episode",
                        "work_id",
                        "group_id",
                        "env_version",
                        "task_id",
                        "split",
                        "seed",
                        "sandbox_tier",
                        "t_start_ns",
                        "t_end_ns",
                        "model_version",
                        "uncertainty",
                        "state_key",
                        "option_id",
                        "option_step",
                        "plan_id",
                        "value_estimate",
                        "reward",
                        "reward_version",
                        "discount",
                        "ending",
                    )
                },
            )
        )
    return steps


_SAID_TEMPERATURE = re.compile(r"temperature=([0-9.e+-]+)$")


def first_decoding(decoder: str, token_exact: bool) -> dict[str, Any]:
    """What a row of the first format tells of its decoding. Its `decoder` says it: what reads `temperature=T` and
    nothing more was drawn from the whole vocabulary, `epsilon=E` from a list; nothing else was a sample whose
    log-probabilities are those of what it was drawn from (`listed` actions had those of the whole vocabulary)."""
    said = _SAID_TEMPERATURE.match(decoder)
    temperature = float(said[1]) if said else None
    sampled = token_exact and (bool(temperature) or decoder.startswith("epsilon="))
    return {"sampled": sampled, "temperature": temperature}


def _decoding(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["sampled"] is None:
        return first_decoding(row["decoder"], row["token_exact"])
    return {name: row[name] for name in ("sampled", "temperature", "prompt_cut", "action_cut")}


def _slices(batch: pa.RecordBatch, name: str) -> list[np.ndarray]:
    column = batch.column(name)
    offsets = column.offsets.to_numpy()
    flat = column.values.to_numpy(zero_copy_only=True)
    return [flat[a:b] for a, b in pairwise(offsets)]
