"""Anthropic's messages: requests read, answers written, whole or as events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from actors.gateway.messages import (
    Asked,
    BadRequest,
    Message,
    Said,
    a_list,
    a_mapping,
    a_number,
    a_text,
    a_tool,
    checked,
    stops_of,
    texts_of,
)
from experience.text.strict_json import dumps
from experience.text.tools import ToolCall

_KEPT = ("max_tokens", "temperature", "top_p", "top_k", "tool_choice", "stop_sequences")
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def read(body: Mapping[str, Any]) -> Asked:
    """Raises BadRequest with what is wrong, and where."""
    messages: list[Message] = []
    if body.get("system"):
        messages.append(Message("system", texts_of(body["system"], "system", ("text",))))
    for number, given in enumerate(a_list(body.get("messages"), "messages")):
        where = f"messages[{number}]"
        messages += _messages(a_mapping(given, where), where)
    tools = []
    for number, tool in enumerate(a_list(body.get("tools") or [], "tools")):
        where = f"tools[{number}]"
        if "input_schema" not in a_mapping(tool, where):
            raise BadRequest(f"{where}: a tool of the server's own; only tools with input_schema")
        tools.append(a_tool(tool.get("name"), tool.get("description"), tool["input_schema"], where))
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") == "none":
        tools = []
    return checked(
        Asked(
            tuple(messages),
            tuple(tools),
            a_number(body.get("temperature"), "temperature", 0, 10),
            stops_of(body.get("stop_sequences"), "stop_sequences"),
            a_text(body.get("model", ""), "model"),
            body.get("stream") is True,
            settings={name: body[name] for name in _KEPT if body.get(name) is not None},
        )
    )


def _messages(given: Mapping[str, Any], where: str) -> list[Message]:
    """A message of the protocol: results of tools stand in the user's, and are apart here."""
    role, content = given.get("role"), given.get("content")
    if role not in ("user", "assistant"):
        raise BadRequest(f"{where}.role: {str(role)[:40]!r}; there are user and assistant")
    if isinstance(content, str):
        return [Message(role, a_text(content, where))]
    texts: list[str] = []
    calls: list[ToolCall] = []
    found: list[Message] = []
    for number, part in enumerate(a_list(content, f"{where}.content")):
        place = f"{where}.content[{number}]"
        kind = a_mapping(part, place).get("type")
        if kind == "text":
            texts.append(a_text(part.get("text"), f"{place}.text"))
        elif kind == "tool_use" and role == "assistant":
            name = a_text(part.get("name"), f"{place}.name")
            calls.append(ToolCall(str(part.get("id", "")), name, dumps(part.get("input") or {})))
        elif kind == "tool_result" and role == "user":
            text = texts_of(part.get("content"), f"{place}.content", ("text",))
            found.append(Message("tool", text, of=str(part.get("tool_use_id", ""))))
        elif kind not in ("thinking", "redacted_thinking"):
            raise BadRequest(f"{place}: a part of type {str(kind)[:40]!r} is not taken, only text")
    if texts or calls or not found:
        found.append(Message(role, "\n".join(texts), tuple(calls)))
    return found


def write(said: Said, asked: Asked, created: int) -> dict[str, Any]:
    """The whole answer."""
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": asked.model or said.model,
        "content": _content(said),
        "stop_reason": _REASONS[said.finish],
        "stop_sequence": None,
        "usage": {"input_tokens": said.prompt_tokens, "output_tokens": said.answer_tokens},
    }


def events(said: Said, asked: Asked, created: int) -> Iterator[str]:
    """The answer as server-sent events."""
    whole = write(said, asked, created)
    usage = {**whole["usage"], "output_tokens": 0}
    begun = {**whole, "content": [], "stop_reason": None, "usage": usage}
    yield _event("message_start", message=begun)
    for place, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": dumps(block["input"])}
        yield _event("content_block_start", index=place, content_block=empty)
        yield _event("content_block_delta", index=place, delta=delta)
        yield _event("content_block_stop", index=place)
    reason = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=reason, usage=whole["usage"])
    yield _event("message_stop")


def error(wrong: BadRequest) -> dict[str, Any]:
    kind = _KINDS.get(wrong.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(wrong)}}


def error_event(wrong: BadRequest) -> str:
    return f"event: error\ndata: {dumps(error(wrong))}\n\n"


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {dumps({'type': kind, **fields})}\n\n"


def _content(said: Said) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.text or not said.calls:
        blocks.append({"type": "text", "text": said.text})
    for call in said.calls:
        values = json.loads(call.arguments)
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": values})
    return blocks
