"""Worlds over the Model Context Protocol, both ways: one of ours as a server's tools, a server's tools as a world.

./xp env serve envs:Coq-v0            # on stdin and stdout, for any MCP client: its actions, and `new_episode`
envs:Mcp-v0 with command=[...]        # a stranger's server as a world; its checker tool, if named, pays
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.contract import INVALID, Outcome, World
from experience.errors import ConfigError, EnvironmentFailure, MissingPartError
from experience.signal import SignalKind
from experience.text.strict_json import dumps

NEW = "new_episode"


def _library() -> Any:
    try:
        import mcp
        import mcp.server.stdio
    except ImportError as missing:
        raise MissingPartError(f"this needs mcp 2: {missing}", "./xp setup worlds") from missing
    return mcp


def serve(world: Any, answers: Any) -> None:
    """Serves `world` on stdin and `answers`, a text stream, until the client leaves.

    Raises ConfigError for a world without typed actions.
    """
    mcp = _library()
    import anyio
    from mcp import types
    from mcp.server.lowlevel import Server

    tools = getattr(world, "tools", {})
    if not tools:
        raise ConfigError(
            f"{type(world).__name__} has no typed actions, which become the tools",
            "write it as a ToolWorld: ./xp env new my_world",
        )
    began = False

    async def list_tools(_: Any, __: Any) -> Any:
        schema = {
            "type": "object",
            "properties": {"seed": {"type": "integer"}, "split": {"enum": list(world.splits)}},
        }
        new = types.Tool(
            name=NEW, description="Begin an episode; returns what is seen.", input_schema=schema
        )
        return types.ListToolsResult(
            tools=[
                new,
                *(
                    types.Tool(
                        name=t.name, description=t.description, input_schema=t.input_schema()
                    )
                    for t in tools.values()
                ),
            ]
        )

    async def call_tool(_: Any, asked: Any) -> Any:
        nonlocal began
        arguments = dict(asked.arguments or {})
        if asked.name == NEW:
            split = arguments.get("split", world.splits[0])
            seen, _info = world.reset(seed=arguments.get("seed", 0), options={"split": split})
            began, told = True, {"seen": seen}
        elif not began or world._ended:
            first = types.TextContent(type="text", text=f"call {NEW} first")
            return types.CallToolResult(content=[first], is_error=True)
        else:
            call = dumps({"name": asked.name, "arguments": arguments})
            seen, reward, terminated, truncated, info = world.step(call)
            told = {
                "seen": seen,
                "reward": None if reward != reward else reward,
                "terminated": terminated,
                "truncated": truncated,
                "signals": json.loads(dumps(info["signals"], default=str)),
            }
        return types.CallToolResult(content=[types.TextContent(type="text", text=dumps(told))])

    async def run() -> None:
        server = Server(
            type(world).__name__,
            version=world.env_version,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )
        async with mcp.server.stdio.stdio_server(stdout=anyio.wrap_file(answers)) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(run())


class Mcp(World[int]):
    """A server's tools as actions: `TOOL {"argument": value}`, one process an episode, which runs beside us with our
    files and network, but with none of our environment: put `bwrap …` before its command to give it a place.

    With `checker`, that tool is asked after each action what it is worth: its answer's first number in [0, 1], or its
    JSON's "score". Without one, nothing is paid, and the reward is unknown.
    """

    sandbox_tier = "none"
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "score": SignalKind("fraction", "verifier"),
        "tool_errors": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"score": 1.0, "tool_errors": -0.05, INVALID: -0.1}

    def __init__(
        self, command: Sequence[str], checker: str = "", task: str = "", max_turns: int = 20
    ) -> None:
        super().__init__()
        _library()
        self._command, self._checker, self._asked = list(command), checker, task
        self.max_turns = max_turns
        self._session: _Session | None = None
        self.begin()
        assert self._session is not None
        told = [
            f"`{t.name} {dumps(t.input_schema.get('properties', {}))[:120]}` {t.description}"
            for t in self._session.tools.values()
        ]
        self.instructions = "Reply with one line, TOOL and its arguments as JSON: " + "; ".join(
            told
        )  # type: ignore[misc]

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**31))

    def begin(self) -> None:
        self.close()
        self._session = _Session(self._command)
        self._told, self._score = self._asked, 0.0

    def observe(self) -> str:
        return self._told

    def act(self, action: str) -> Outcome:
        assert self._session is not None
        name, _, rest = action.partition(" ")
        if name not in self._session.tools or name == self._checker:
            raise ValueError(
                f"no tool {name[:20]}: {', '.join(n for n in self._session.tools if n != self._checker)}"
            )
        try:
            arguments = json.loads(rest or "{}")
        except ValueError:
            raise ValueError("arguments are a JSON object") from None
        if not isinstance(arguments, dict):
            raise ValueError("arguments are a JSON object")
        self._told, failed = self._session.call(name, arguments)
        signals: dict[str, Any] = {"tool_errors": float(failed)}
        if self._checker:
            score = _score(self._session.call(self._checker, {})[0])
            signals["score"] = None if score is None else (score - self._score, f"{score:g}")
            self._score = self._score if score is None else score
        return signals, self._score >= 1.0

    def oracle_action(self) -> str:
        raise NotImplementedError("a stranger's server comes without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        assert self._session is not None
        names = [n for n in self._session.tools if n != self._checker]
        return f"{names[int(rng.integers(len(names)))]} {{}}"

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class _Session:
    """A client and its server process, kept by an event loop in a thread."""

    def __init__(self, command: Sequence[str]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True).start()
        self._done = asyncio.Event()
        self.tools: dict[str, Any] = {}
        ready = threading.Event()
        self._life = asyncio.run_coroutine_threadsafe(self._live(command, ready), self._loop)
        while not ready.wait(0.05):
            if self._life.done():
                raise EnvironmentFailure(
                    f"the MCP server could not be reached: {self._life.exception()}"
                )

    async def _live(self, command: Sequence[str], ready: threading.Event) -> None:
        mcp = _library()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(Path.home()),
            "LANG": "C.UTF-8",
        }
        parameters = mcp.StdioServerParameters(
            command=command[0], args=list(command[1:]), env=environment
        )
        async with (
            mcp.stdio_client(parameters) as (read, write),
            mcp.ClientSession(read, write) as self._client,
        ):
            await self._client.initialize()
            self.tools = {t.name: t for t in (await self._client.list_tools()).tools}
            ready.set()
            await self._done.wait()

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """(what a tool says, whether it is an error). Raises EnvironmentFailure if the server is gone."""
        asked = asyncio.run_coroutine_threadsafe(
            self._client.call_tool(name, arguments), self._loop
        )
        try:
            result = asked.result(30)
        except Exception as error:
            raise EnvironmentFailure(
                f"the MCP server failed: {type(error).__name__}: {error}"
            ) from error
        return "\n".join(getattr(part, "text", "") for part in result.content), bool(
            result.is_error
        )

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        try:
            self._life.result(5)
        except Exception as error:
            raise EnvironmentFailure(f"the MCP server did not end well: {error}") from error
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)


def _score(told: str) -> float | None:
    """The number that a checker's answer holds, or None."""
    try:
        found = json.loads(told)
        return float(found["score"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError):
        return None
