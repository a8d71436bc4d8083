"""Record batches to steps, exactly as the steps were appended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from experience.policy import Decision, VersionSpan
from experience.shards.record.columns import AS_THEY_ARE
from experience.shards.record.model_columns import of_row, results_of
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import conform, signal_names
from experience.signal import Signal
from experience.step import Blob, Boundary, Step

_RAGGED = ("prompt_ids", "action_ids", "action_logprobs", "allowed_ids", "allowed_counts")
SignalNames = Sequence[tuple[str, str, str]]


def to_steps(batch: pa.RecordBatch, deltas: PromptDeltas) -> list[Step]:
    """The steps of a batch; `deltas` must have seen the segment's earlier rows."""
    names = signal_names(batch.schema)
    batch = conform(batch)
    # Lists of numbers stay numpy: as Python numbers they would cost twenty times as much.
    ragged = {name: _slices(batch, name) for name in _RAGGED}
    steps = []
    for i, row in enumerate(batch.drop_columns(list(_RAGGED)).to_pylist()):
        arrays = {name: rows[i] for name, rows in ragged.items()}
        steps.append(_step(row, _decision(row, arrays, deltas), names))
    return steps


def _step(row: Mapping[str, Any], decision: Decision | None, names: SignalNames) -> Step:
    parent = None
    if row["parent_stream"] is not None:
        parent = (row["parent_stream"], row["parent_t"])
    return Step(
        decision=decision,
        signals=tuple(_signal(signal, names) for signal in row["signals"]),
        parent=parent,
        obs_blobs=tuple(Blob(**blob) for blob in row["obs_blobs"] or ()),
        boundary=Boundary(row["boundary"]),
        info=json.loads(row["info"]) if row["info"] else {},
        action_struct=row["action_struct"] or b"",
        subject=row["subject"] or "",
        agent_id=row["agent_id"] or "",
        tool_results=results_of(row),
        **{name: row[name] for name in AS_THEY_ARE},
    )


def _signal(stored: Mapping[str, Any], names: SignalNames) -> Signal:
    name, unit, source = names[stored["code"]]
    return Signal(name, stored["value"], unit, source, stored["evidence"])  # type: ignore[arg-type]


def _decision(
    row: Mapping[str, Any], arrays: Mapping[str, np.ndarray], deltas: PromptDeltas
) -> Decision | None:
    """None for a closing row: nothing was done in it."""
    if row["action_text"] is None:
        return None
    action_ids = arrays["action_ids"]
    prompt = deltas.expand(
        row["stream_id"], row["prompt_prefix_len"], arrays["prompt_ids"], action_ids
    )
    spans = (VersionSpan(span["version"], span["n_tokens"]) for span in row["version_spans"])
    return Decision(
        text=row["action_text"],
        policy_version=row["policy_version"],
        prompt_ids=prompt,
        action_ids=action_ids,
        logprobs=arrays["action_logprobs"],
        token_exact=row["token_exact"],
        version_spans=tuple(spans),
        decoder=row["decoder"],
        behaviour_id=row["behaviour_id"],
        allowed_ids=arrays["allowed_ids"],
        allowed_counts=arrays["allowed_counts"],
        **_decoding(row),
        **of_row(row),
    )


_SAID_TEMPERATURE = re.compile(r"temperature=([0-9.e+-]+)$")


def first_decoding(decoder: str, token_exact: bool) -> dict[str, Any]:
    """What a row of the first format tells of its decoding, by its `decoder`.

    `temperature=T` and nothing more was drawn from the whole vocabulary, `epsilon=E` from a list.
    Nothing else was a sample of the distribution that its log-probabilities tell of: `listed`
    actions had those of the whole vocabulary.
    """
    said = _SAID_TEMPERATURE.match(decoder)
    temperature = float(said[1]) if said else None
    sampled = token_exact and (bool(temperature) or decoder.startswith("epsilon="))
    return {"sampled": sampled, "temperature": temperature}


def _decoding(row: Mapping[str, Any]) -> dict[str, Any]:
    # Null in files of the first two formats, which had no such column.
    if row["sampled"] is None:
        return first_decoding(row["decoder"], row["token_exact"])
    return {name: row[name] for name in ("sampled", "temperature", "prompt_cut", "action_cut")}


def _slices(batch: pa.RecordBatch, name: str) -> list[np.ndarray]:
    column = batch.column(name)
    offsets = column.offsets.to_numpy()
    flat = column.values.to_numpy(zero_copy_only=True)
    return [flat[a:b] for a, b in pairwise(offsets)]
