"""What a program asks of a model, and what it is answered, in words that no protocol owns.

Covers: what the three protocols share, the checks that all need, and the names under which a
conversation is found again. Does not cover: pictures, which are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from experience.text.characters import without_lone_surrogates
from experience.text.strict_json import dumps
from experience.text.tools import Schema, ToolCall

Role = Literal["system", "user", "assistant", "tool"]
MOST_MESSAGES = 10_000
MOST_TOOLS = 512


class BadRequest(Exception):
    """A request that cannot be answered. status: of HTTP. code: a word that programs look for."""

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Message:
    """One message. calls: of tools, by the assistant. of: the id of the call that a result is of."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    of: str = ""

    @property
    def key(self) -> str:
        """Equal for a message that was sent and the same message when it comes back."""
        calls = [[call.name, _plain_arguments(call.arguments)] for call in self.calls]
        return dumps([self.role, self.text.strip(), calls])


@dataclass(frozen=True)
class Asked:
    """A call of the model.

    temperature: None leaves it to the gateway. stops: texts before which an answer is cut for the
    program; the store keeps what was sampled. settings: what else was asked, kept with the row.
    """

    messages: tuple[Message, ...]
    tools: tuple[Schema, ...] = ()
    temperature: float | None = None
    stops: tuple[str, ...] = ()
    model: str = ""
    stream: bool = False
    wants_usage: bool = False
    wants_tokens: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        """A name for the conversation up to each message, that message included."""
        before = hashlib.sha256(dumps(list(self.tools), sort_keys=True).encode()).hexdigest()
        found = []
        for message in self.messages:
            before = further_key(before, message)
            found.append(before)
        return found

    def name_with(self, said: Said) -> str:
        """The name of the conversation with its answer."""
        return further_key(self.names()[-1], said.message)


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class Said:
    """The answer to a call. prompt_ids, answer_ids, logprobs: where the engine tells them."""

    id: str
    text: str
    calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls"]
    model: str
    prompt_tokens: int
    answer_tokens: int
    prompt_ids: np.ndarray = field(default_factory=_none)
    answer_ids: np.ndarray = field(default_factory=_none)
    logprobs: np.ndarray = field(default_factory=_none)

    @property
    def message(self) -> Message:
        return Message("assistant", self.text, self.calls)


def further_key(before: str, message: Message) -> str:
    """The name of a conversation that goes on with one more message."""
    return hashlib.sha256(f"{before}\n{message.key}".encode()).hexdigest()[:32]


def readable(messages: Sequence[Message]) -> str:
    """Messages as the observation of a row: each after its role."""
    parts = []
    for message in messages:
        said = [message.text] if message.text else []
        said += [f"{call.name} {call.arguments}" for call in message.calls]
        parts.append(f"[{message.role}]\n" + "\n".join(said))
    return without_lone_surrogates("\n\n".join(parts))


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stops."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


# ── reading JSON


def a_mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{what}: {_kind(value)}, and an object is needed")
    return value


def a_list(value: Any, what: str, most: int = MOST_MESSAGES) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{what}: {_kind(value)}, and a list is needed")
    if len(value) > most:
        raise BadRequest(f"{what}: {len(value)} items; at most {most} are taken")
    return value


def a_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{what}: {_kind(value)}, and a text is needed")
    return without_lone_surrogates(value)


def a_number(value: Any, what: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise BadRequest(f"{what}: {value!r} is no number from {least:g} to {most:g}"[:300])
    return float(value)


def texts_of(content: Any, what: str, kinds: Sequence[str]) -> str:
    """The text of a content: a text, or a list of parts of these kinds. Pictures are refused."""
    if content is None:
        return ""
    if isinstance(content, str):
        return without_lone_surrogates(content)
    found = []
    for number, part in enumerate(a_list(content, what)):
        where = f"{what}[{number}]"
        kind = a_mapping(part, where).get("type")
        if kind not in kinds:
            raise BadRequest(f"{where}: a part of type {str(kind)[:40]!r} is not taken, only text")
        found.append(a_text(part.get("text", part.get("refusal", "")), f"{where}.text"))
    return "\n".join(found)


def a_tool(name: Any, description: Any, parameters: Any, what: str) -> Schema:
    """A tool in the form that language models are given."""
    function = {
        "name": a_text(name, f"{what}.name"),
        "description": a_text(description or "", f"{what}.description"),
        "parameters": dict(a_mapping(parameters or {"type": "object"}, f"{what}.parameters")),
    }
    return {"type": "function", "function": function}


def stops_of(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    given = [value] if isinstance(value, str) else a_list(value, what, 16)
    return tuple(text for stop in given if (text := a_text(stop, what)))


def refuse(body: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]]) -> None:
    """Raises BadRequest where a setting is not one of the values that can be done here."""
    for name, values in allowed.items():
        if name in body and body[name] is not None and body[name] not in values:
            raise BadRequest(
                f"{name}: {str(body[name])[:80]} cannot be done here; leave it out",
                code="unsupported_parameter",
            )


def checked(asked: Asked) -> Asked:
    """Raises BadRequest for a conversation that leaves nothing to be answered."""
    if all(message.role == "system" for message in asked.messages):
        raise BadRequest("messages: there are none that could be answered")
    if asked.messages[-1].role == "assistant":
        raise BadRequest(
            "messages: the last one is the assistant's; nothing is left to be answered"
        )
    if len(asked.tools) > MOST_TOOLS:
        raise BadRequest(f"tools: {len(asked.tools)}; at most {MOST_TOOLS} are taken")
    return asked


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"this is of type {type(value).__name__}"


def _plain_arguments(text: str) -> Any:
    """Arguments as values, so that spaces between them make no difference."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
