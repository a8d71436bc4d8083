"""Calls of tools: what a model asks a world to do, apart from how it wrote it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experience.text.strict_json import dumps

Schema = Mapping[str, Any]
"""A tool as a language model is told of it: `{"type": "function", "function": {"name": …,
"description": …, "parameters": JSON Schema}}`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. `arguments` is a JSON object as text; `id` names the call in its chat."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: a text or JSON, by the id of the call."""

    id: str
    result: str


@dataclass(frozen=True)
class Answer:
    """A model's answer, taken apart.

    reasoning: its thoughts. content: what it says beside them and beside its calls. calls: each a
    name and arguments, in order. line: the answer as a line for a world, if it has no calls.
    trouble: what was wrong with it, in words for the model; empty if it can be done.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    line: str = ""
    trouble: str = ""

    @property
    def action(self) -> str:
        """What the world gets: a call as a JSON object, several as a list of them, or a line."""
        return action_of(self.calls) if self.calls else self.line


def action_of(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Calls as the text of an action: one is an object, several are a list."""
    written = [{"name": name, "arguments": dict(given)} for name, given in calls]
    return dumps(written[0] if len(written) == 1 else written)


def name_of(tool: Schema) -> str:
    return str(tool["function"]["name"])


def parameters_of(tool: Schema) -> Mapping[str, Any]:
    """The JSON Schema of each parameter, by name, in order."""
    found = tool["function"].get("parameters", {}).get("properties", {})
    return found if isinstance(found, Mapping) else {}
