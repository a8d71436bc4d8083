"""OpenAI's responses: as much of them as agent programs use that send their whole history.

Covers: instructions, messages, function calls and their outputs, function tools, streaming. Does not
cover: `previous_response_id` and conversations kept by the server, hosted tools, pictures; they are
refused in words.
"""

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
    texts_of,
)
from experience.text.strict_json import dumps
from experience.text.tools import ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_PARTS = ("input_text", "output_text", "text", "refusal")
_KEPT = ("max_output_tokens", "temperature", "top_p", "tool_choice")


def read(body: Mapping[str, Any]) -> Asked:
    """Raises BadRequest with what is wrong, and where."""
    refuse(
        body,
        {
            "previous_response_id": (),
            "conversation": (),
            "background": (False,),
            "text": ({}, {"format": {"type": "text"}}),
        },
    )
    messages: list[Message] = []
    if body.get("instructions"):
        messages.append(Message("system", a_text(body["instructions"], "instructions")))
    given = body.get("input")
    if isinstance(given, str):
        messages.append(Message("user", a_text(given, "input")))
    else:
        for number, item in enumerate(a_list(given, "input")):
            _take(messages, a_mapping(item, f"input[{number}]"), f"input[{number}]")
    tools = []
    for number, tool in enumerate(a_list(body.get("tools") or [], "tools")):
        where = f"tools[{number}]"
        kind = a_mapping(tool, where).get("type")
        if kind != "function":
            raise BadRequest(f"{where}: only tools of type function are taken, not {kind!r}"[:200])
        tools.append(
            a_tool(tool.get("name"), tool.get("description"), tool.get("parameters"), where)
        )
    if body.get("tool_choice") == "none":
        tools = []
    return checked(
        Asked(
            tuple(messages),
            tuple(tools),
            a_number(body.get("temperature"), "temperature", 0, 10),
            model=a_text(body.get("model", ""), "model"),
            stream=body.get("stream") is True,
            settings={name: body[name] for name in _KEPT if body.get(name) is not None},
        )
    )


def _take(messages: list[Message], item: Mapping[str, Any], where: str) -> None:
    """Adds one item. A text and the calls after it are one message of the assistant."""
    kind = item.get("type", "message")
    if kind == "reasoning":  # never said by this gateway, and not part of what a model reads
        return
    if kind == "function_call":
        name = a_text(item.get("name"), f"{where}.name")
        call = ToolCall(
            str(item.get("call_id", "")),
            name,
            a_text(item.get("arguments", "{}"), f"{where}.arguments"),
        )
        text, calls = "", tuple[ToolCall, ...]()
        if messages and messages[-1].role == "assistant":
            last = messages.pop()
            text, calls = last.text, last.calls
        messages.append(Message("assistant", text, (*calls, call)))
        return
    if kind == "function_call_output":
        text = texts_of(item.get("output"), f"{where}.output", _PARTS)
        messages.append(Message("tool", text, of=str(item.get("call_id", ""))))
        return
    role = item.get("role")
    if kind != "message" or role not in _ROLES:
        raise BadRequest(f"{where}: an item {kind!r} of {role!r} is not taken"[:200])
    content = texts_of(item.get("content"), f"{where}.content", _PARTS)
    messages.append(Message(_ROLES[role], content))


def write(said: Said, asked: Asked, created: int) -> dict[str, Any]:
    """The whole answer."""
    is_whole = said.finish != "length"
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": created,
        "status": "completed" if is_whole else "incomplete",
        "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
        "error": None,
        "instructions": None,
        "metadata": {},
        "model": asked.model or said.model,
        "output": _output(said),
        "parallel_tool_calls": True,
        "temperature": asked.temperature,
        "tool_choice": "auto",
        "tools": [
            {**tool["function"], "type": "function", "strict": False} for tool in asked.tools
        ],
        "top_p": 1.0,
        "usage": {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said.answer_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.prompt_tokens + said.answer_tokens,
        },
    }


def events(said: Said, asked: Asked, created: int) -> Iterator[str]:
    """The answer as server-sent events, in the order in which the protocol names them."""
    whole = write(said, asked, created)
    number = 0

    def event(kind: str, **fields: Any) -> str:
        nonlocal number
        data = {"type": kind, "sequence_number": number, **fields}
        number += 1
        return f"event: {kind}\ndata: {dumps(data)}\n\n"

    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for place, item in enumerate(whole["output"]):
        of = {"output_index": place, "item_id": item["id"]}
        if item["type"] == "message":
            empty = {**item, "status": "in_progress", "content": []}
            yield event("response.output_item.added", output_index=place, item=empty)
            (part,) = item["content"]
            of["content_index"] = 0
            yield event("response.content_part.added", **of, part={**part, "text": ""})
            yield event("response.output_text.delta", **of, delta=part["text"], logprobs=[])
            yield event("response.output_text.done", **of, text=part["text"], logprobs=[])
            yield event("response.content_part.done", **of, part=part)
        else:
            empty = {**item, "status": "in_progress", "arguments": ""}
            yield event("response.output_item.added", output_index=place, item=empty)
            arguments = item["arguments"]
            yield event("response.function_call_arguments.delta", **of, delta=arguments)
            yield event(
                "response.function_call_arguments.done",
                **of,
                arguments=arguments,
                name=item["name"],
            )
        yield event("response.output_item.done", output_index=place, item=item)
    last = "response.completed" if said.finish != "length" else "response.incomplete"
    yield event(last, response=whole)


def error(wrong: BadRequest) -> dict[str, Any]:
    kind = "invalid_request_error" if wrong.status < 500 else "server_error"
    return {"error": {"message": str(wrong), "type": kind, "param": None, "code": wrong.code}}


def error_event(wrong: BadRequest) -> str:
    data = {"type": "error", "code": wrong.code, "message": str(wrong), "param": None}
    return f"event: error\ndata: {dumps({**data, 'sequence_number': 0})}\n\n"


def _output(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if said.text or not said.calls:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        items.append(
            {
                "id": f"msg_{said.id}",
                "type": "message",
                "role": "assistant",
                "status": "completed" if said.finish != "length" else "incomplete",
                "content": [part],
            }
        )
    for number, call in enumerate(said.calls):
        items.append(
            {
                "id": f"fc_{said.id}{number}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items
