"""The columns about the model that answered: its calls of tools, its thoughts, its tokens and time.

All of them are null in most rows, and cost nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa

from experience.errors import RecordError
from experience.policy import Decision
from experience.shards.record.column import Column
from experience.step import Step
from experience.text.tools import ToolCall, ToolResult

CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("args", pa.large_string())])
RESULT = pa.struct([("id", pa.string()), ("result", pa.large_string())])


def _column(name: str, of: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(name, of, True, "by which model", meaning, unit, since=4)


MODEL_COLUMNS: tuple[Column, ...] = (
    _column(
        "tool_results",
        pa.list_(RESULT),
        "What each call gave, as text or JSON, by the id of the call; null: what was seen next.",
    ),
    _column("reasoning", pa.large_string(), "What the model thought before it answered."),
    _column("content", pa.large_string(), "What the model said beside its calls."),
    _column(
        "finish_reason",
        pa.string(),
        "Why the engine stopped: `stop`, `length`, `tool_calls`, or a server's own word.",
    ),
    _column("model", pa.string(), "The name of the model that answered."),
    _column("agent_id", pa.string(), "The agent of the stream, in a world that has several."),
    _column(
        "prompt_tokens",
        pa.int32(),
        "How many tokens the model read; null: as many as the prompt's ids.",
        "tokens",
    ),
    _column(
        "answer_tokens",
        pa.int32(),
        "How many tokens the model wrote; null: as many as the action's ids.",
        "tokens",
    ),
    _column(
        "seconds",
        pa.float32(),
        "How long the model took for the whole answer, or for the batch that it was in.",
        "seconds",
    ),
    _column(
        "first_token_seconds",
        pa.float32(),
        "How long the model took for the first token of its answer.",
        "seconds",
    ),
)
_TEXTS = ("reasoning", "content", "finish_reason", "model")
_COUNTS = ("prompt_tokens", "answer_tokens")
_TIMES = ("seconds", "first_token_seconds")


def to_columns(steps: Sequence[Step], decisions: Sequence[Decision]) -> dict[str, Any]:
    """The columns as lists of Python values; None where all rows are null."""
    found: dict[str, Any] = {name: [getattr(d, name) or None for d in decisions] for name in _TEXTS}
    found |= {name: [getattr(d, name) for d in decisions] for name in (*_COUNTS, *_TIMES)}
    found["agent_id"] = [step.agent_id or None for step in steps]
    found["tool_calls"] = [[_stored(c) for c in d.tool_calls] or None for d in decisions]
    found["tool_results"] = [
        [{"id": r.id, "result": r.result} for r in step.tool_results] or None for step in steps
    ]
    return {name: None if _is_empty(values) else values for name, values in found.items()}


def _is_empty(values: Sequence[Any]) -> bool:
    return values.count(None) == len(values)


def _stored(call: ToolCall) -> dict[str, str]:
    return {"id": call.id, "name": call.name, "args": call.arguments}


def of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a decision that these columns hold."""
    calls = row["tool_calls"] or ()
    return {
        "tool_calls": tuple(ToolCall(call["id"], call["name"], call["args"]) for call in calls),
        **{name: row[name] or "" for name in _TEXTS},
        **{name: row[name] for name in (*_COUNTS, *_TIMES)},
    }


def results_of(row: Mapping[str, Any]) -> tuple[ToolResult, ...]:
    return tuple(ToolResult(**result) for result in row["tool_results"] or ())


def of_json(said: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields of a decision as JSON. Raises RecordError for values of another kind."""
    found: dict[str, Any] = {}
    for name in (*_TEXTS, "refusal"):
        found[name] = _known(said.get(name, ""), str, name)
    for name in _COUNTS:
        value = said.get(name)
        found[name] = None if value is None else _known(value, int, name)
    for name in _TIMES:
        value = said.get(name)
        found[name] = None if value is None else float(_known(value, int | float, name))
    calls = _known(said.get("tool_calls", []), list, "tool_calls")
    found["tool_calls"] = tuple(_of_texts(call, ToolCall) for call in calls)
    return found


def results_of_json(plain: Any) -> tuple[ToolResult, ...]:
    """Results as JSON. Raises RecordError for values of another kind."""
    results = _known(plain, list, "tool_results")
    return tuple(_of_texts(result, ToolResult) for result in results)


def _of_texts(plain: Any, kind: Any) -> Any:
    names = [field.name for field in fields(kind)]
    if not isinstance(plain, dict) or set(plain) != set(names):
        raise RecordError(
            f"a {kind.__name__} is {str(plain)[:40]!r}", f"give {', '.join(names)} as texts"
        )
    return kind(**{name: _known(plain[name], str, name) for name in names})


def _known(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RecordError(f"{name} is {str(value)[:40]!r}", "this is no value of that field")
    return value
