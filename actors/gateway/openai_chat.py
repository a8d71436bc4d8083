"""OpenAI's chat completions: requests read, answers written, whole or as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actors.gateway.messages import (
    Asked,
    BadRequest,
    Message,
    Role,
    Said,
    a_list,
    a_mapping,
    a_number,
    a_text,
    a_tool,
    checked,
    refuse,
    stops_of,
    texts_of,
)
from experience.text.strict_json import dumps
from experience.text.tools import ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_KEPT = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "tool_choice",
)
_PARTS = ("text", "refusal")
_PIECE = 200
"""Characters of one event."""


def read(body: Mapping[str, Any]) -> Asked:
    """Raises BadRequest with what is wrong, and where."""
    refuse(
        body,
        {"n": (1,), "response_format": ({"type": "text"},), "audio": (), "modalities": (["text"],)},
    )
    messages = [
        _message(given, f"messages[{number}]")
        for number, given in enumerate(a_list(body.get("messages"), "messages"))
    ]
    tools = [
        _tool(given, f"tools[{number}]")
        for number, given in enumerate(a_list(body.get("tools") or [], "tools"))
    ]
    if body.get("tool_choice") == "none":
        tools = []
    streaming = body.get("stream_options")
    return checked(
        Asked(
            tuple(messages),
            tuple(tools),
            a_number(body.get("temperature"), "temperature", 0, 10),
            stops_of(body.get("stop"), "stop"),
            a_text(body.get("model", ""), "model"),
            body.get("stream") is True,
            isinstance(streaming, Mapping) and streaming.get("include_usage") is True,
            body.get("return_token_ids") is True or body.get("logprobs") is True,
            {name: body[name] for name in _KEPT if body.get(name) is not None},
        )
    )


def write(said: Said, asked: Asked, created: int) -> dict[str, Any]:
    """The whole answer. With `return_token_ids`, its tokens too, in vLLM's words."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.calls:
        message["tool_calls"] = [_call(call) for call in said.calls]
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": said.finish}
    choice["logprobs"] = None
    answer = _head(said, asked, created, "chat.completion")
    if asked.wants_tokens and len(said.answer_ids):
        answer["prompt_token_ids"] = [int(token) for token in said.prompt_ids]
        choice["token_ids"] = [int(token) for token in said.answer_ids]
        told = zip(said.answer_ids, said.logprobs, strict=True)
        choice["logprobs"] = {
            "content": [
                {"token": f"token_id:{i}", "logprob": float(p), "bytes": None, "top_logprobs": []}
                for i, p in told
            ],
            "refusal": None,
        }
    return answer | {"choices": [choice], "usage": _usage(said)}


def events(said: Said, asked: Asked, created: int) -> Iterator[str]:
    """The answer as server-sent events."""
    head = _head(said, asked, created, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return f"data: {dumps({**head, 'choices': [choice]})}\n\n"

    yield chunk({"role": "assistant", "content": ""})
    for place in range(0, len(said.text), _PIECE):
        yield chunk({"content": said.text[place : place + _PIECE]})
    for number, call in enumerate(said.calls):
        yield chunk({"tool_calls": [{"index": number, **_call(call)}]})
    yield chunk({}, said.finish)
    if asked.wants_usage:
        yield f"data: {dumps({**head, 'choices': [], 'usage': _usage(said)})}\n\n"
    yield "data: [DONE]\n\n"


def error(wrong: BadRequest) -> dict[str, Any]:
    kind = "invalid_request_error" if wrong.status < 500 else "server_error"
    return {"error": {"message": str(wrong), "type": kind, "param": None, "code": wrong.code}}


def error_event(wrong: BadRequest) -> str:
    return f"data: {dumps(error(wrong))}\n\n"


def _message(given: Any, where: str) -> Message:
    given = a_mapping(given, where)
    role = given.get("role")
    if role not in _ROLES:
        raise BadRequest(f"{where}.role: {str(role)[:40]!r}; there are {', '.join(_ROLES)}")
    calls = [
        _read_call(call, f"{where}.tool_calls[{number}]")
        for number, call in enumerate(a_list(given.get("tool_calls") or [], where))
    ]
    text = texts_of(given.get("content"), f"{where}.content", _PARTS)
    return Message(_ROLES[role], text, tuple(calls), str(given.get("tool_call_id", "")))


def _read_call(given: Any, where: str) -> ToolCall:
    function = a_mapping(a_mapping(given, where).get("function"), f"{where}.function")
    name = a_text(function.get("name"), f"{where}.function.name")
    arguments = a_text(function.get("arguments", "{}"), f"{where}.function.arguments")
    return ToolCall(str(given.get("id", "")), name, arguments)


def _tool(given: Any, where: str) -> Any:
    function = a_mapping(a_mapping(given, where).get("function"), f"{where}.function")
    return a_tool(
        function.get("name"), function.get("description"), function.get("parameters"), where
    )


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _head(said: Said, asked: Asked, created: int, kind: str) -> dict[str, Any]:
    model = asked.model or said.model
    return {"id": f"chatcmpl-{said.id}", "object": kind, "created": created, "model": model}


def _usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.answer_tokens,
        "total_tokens": said.prompt_tokens + said.answer_tokens,
    }
