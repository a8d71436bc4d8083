"""A world's typed actions as the tools of an MCP server, whatever carries its messages."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from envs.bridges.serving.play import About, Turn
from experience.errors import ConfigError, MissingPartError
from experience.text.strict_json import dumps

OVER = "\n\n(the episode has ended)"
_AS_TOOLS = (
    "Each tool is an action of the world; a tool answers with what is seen after it. "
    "Where the rules below say to write a line, call the tool of that name instead."
)
_MOST_WORDS = 500
_MEDIA = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}

Call = Callable[[str, dict[str, Any]], Awaitable[Turn]]
"""Does what a tool call asks for: (name, arguments) to what is then seen."""


def library() -> Any:
    """The package `mcp`. Raises MissingPartError without it."""
    try:
        import mcp
        import mcp.server.lowlevel
    except ImportError as missing:
        raise MissingPartError(f"this needs mcp 2: {missing}", "./xp setup worlds") from missing
    return mcp


def check_tools(about: About) -> None:
    """Raises ConfigError for a world without typed actions."""
    if not about.tools:
        raise ConfigError(
            f"{about.name} has no typed actions, which become the tools",
            "write it as a ToolWorld: ./xp env new my_world",
        )


def rules(about: About, first: str = "") -> str:
    """What a model must know before it calls a tool: `first`, then the world's own instructions."""
    return "\n\n".join(part for part in (first, _AS_TOOLS, about.instructions) if part)


def tool_server(
    about: About, call: Call, instructions: str, own: Mapping[str, str] | None = None
) -> Any:
    """An MCP server that offers the actions of a world, and `own` tools {name: description}.

    One call is done at a time. An answer holds what is seen, as text and pictures: no reward, no
    signal. Whatever goes wrong is an answer in words with `is_error`.
    """
    library()
    from mcp import types
    from mcp.server.lowlevel import Server

    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    schemas = dict.fromkeys(own or {}, nothing)
    schemas |= {tool["name"]: tool.get("parameters") or nothing for tool in about.tools}
    words = dict(own or {}) | {tool["name"]: tool.get("description", "") for tool in about.tools}
    one_at_a_time = asyncio.Lock()

    async def list_tools(_: Any, __: Any) -> Any:
        listed = [
            types.Tool(name=name, description=words[name], input_schema=schema)
            for name, schema in schemas.items()
        ]
        return types.ListToolsResult(tools=listed)

    async def call_tool(_: Any, asked: Any) -> Any:
        async with one_at_a_time:
            content, failed = await _answered(asked.name, dict(asked.arguments or {}))
        return types.CallToolResult(content=content, is_error=failed)

    async def _answered(name: str, arguments: dict[str, Any]) -> tuple[list[Any], bool]:
        if name not in schemas:
            return [_text(f"there is no tool {name[:40]}; there are: {', '.join(schemas)}")], True
        try:
            turn = await call(name, arguments)
        except Exception as error:  # noqa: BLE001  a client must get an answer to every call
            logging.getLogger(__name__).warning("%s: %s", name, error)
            return [_text(in_words(error))], True
        pictures = [_picture(data) for data in turn.images.values()]
        seen = turn.seen + OVER if turn.ended else turn.seen
        return [_text(seen), *(p for p in pictures if p is not None)], turn.refused

    return Server(
        about.name,
        version=about.version,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def as_action(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as a world with typed actions reads it."""
    return dumps({"name": name, "arguments": dict(arguments)})


def in_words(error: BaseException) -> str:
    """An error as a model may read it: its first line, without a traceback and without a hint that
    is meant for the operator."""
    line = (str(error).strip().splitlines() or [""])[0]
    return (line or type(error).__name__)[:_MOST_WORDS]


def _text(text: str) -> Any:
    from mcp import types

    return types.TextContent(type="text", text=text)


def _picture(data: bytes) -> Any:
    """A picture as a part of an answer; None for bytes of no known kind."""
    from mcp import types

    media = next((kind for start, kind in _MEDIA.items() if data.startswith(start)), None)
    if media is None:
        return None
    encoded = base64.b64encode(data).decode("ascii")
    return types.ImageContent(type="image", data=encoded, mime_type=media)
