"""A server's tools as a world, over the Model Context Protocol; its checker tool, if named, pays.

    gymnasium.make("envs:Mcp-v0", command=[...])

`./xp env serve` is the other way round: envs/bridges/serving/over_stdio.py.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.bridges.serving.tool_server import library
from envs.contract import INVALID, Outcome, World
from experience.errors import EnvironmentFailure
from experience.signal import SignalKind
from experience.text.strict_json import dumps

_CALL_SECONDS = 30
_END_SECONDS = 5


class Mcp(World[int]):
    """A server's tools as actions: `TOOL {"argument": value}`. Each episode starts a new server.

    The server runs beside us, with our files and our network but without our environment: put
    `bwrap …` before its command to confine it.

    After each action, the tool named `checker` is called for the score so far: its answer is a
    number in [0, 1], or JSON with such a "score". Without `checker`, the reward is unknown.
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
        library()
        self._command = list(command)
        self._checker = checker
        self._task_text = task
        self.max_turns = max_turns
        self._session: _Session | None = None
        self.begin()
        assert self._session is not None
        usages = "; ".join(_usage(tool) for tool in self._session.tools.values())
        self.instructions = (  # type: ignore[misc]
            f"Reply with one line, TOOL and its arguments as JSON: {usages}"
        )

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The server's tools as language models are told of them; all but the checker."""
        assert self._session is not None
        tools = self._session.tools
        return [_schema(tools[name]) for name in self._tool_names()]

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**31))

    def begin(self) -> None:
        self.close()
        self._session = _Session(self._command)
        self._seen_text = self._task_text
        self._score = 0.0

    def observe(self) -> str:
        return self._seen_text

    def act(self, action: str) -> Outcome:
        assert self._session is not None
        name, rest = _name_and_arguments(action)
        names = self._tool_names()
        if name not in names:
            raise ValueError(f"no tool {name[:20]}: {', '.join(names)}")
        try:
            arguments = json.loads(rest or "{}")
        except ValueError:
            raise ValueError("arguments are a JSON object") from None
        if not isinstance(arguments, dict):
            raise ValueError("arguments are a JSON object")
        self._seen_text, failed = self._session.call(name, arguments)
        # Without a checker nobody measures the score: it is unknown, and so is the reward.
        signals: dict[str, Any] = {"tool_errors": float(failed), "score": None}
        score = _score(self._session.call(self._checker, {})[0]) if self._checker else None
        if score is not None:
            signals["score"] = (score - self._score, f"{score:g}")
            self._score = score
        return signals, self._score >= 1.0

    def oracle_action(self) -> str:
        raise NotImplementedError("a stranger's server comes without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        names = self._tool_names()
        return f"{names[int(rng.integers(len(names)))]} {{}}"

    def _tool_names(self) -> list[str]:
        """The tools that are actions: all but the checker."""
        assert self._session is not None
        return [name for name in self._session.tools if name != self._checker]

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class _Session:
    """An MCP client and its server process. The client runs on an event loop in a thread."""

    def __init__(self, command: Sequence[str]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True).start()
        self._done = asyncio.Event()
        self.tools: dict[str, Any] = {}
        ready = threading.Event()
        self._life = asyncio.run_coroutine_threadsafe(self._live(command, ready), self._loop)
        # Polled: `_live` sets `ready` only if all goes well, and else ends with its error.
        while not ready.wait(0.05):
            if self._life.done():
                raise EnvironmentFailure(
                    f"the MCP server could not be reached: {self._life.exception()}"
                )

    async def _live(self, command: Sequence[str], ready: threading.Event) -> None:
        mcp = library()
        # Not ours: it may hold secrets, and the server is a stranger's program.
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
        """(the text of a tool's answer, whether it is an error).

        Raises EnvironmentFailure if the server is gone or does not answer in time.
        """
        call = self._client.call_tool(name, arguments)
        pending = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            result = pending.result(_CALL_SECONDS)
        except Exception as error:
            raise EnvironmentFailure(
                f"the MCP server failed: {type(error).__name__}: {error}"
            ) from error
        text = "\n".join(getattr(part, "text", "") for part in result.content)
        return text, bool(result.is_error)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        try:
            self._life.result(_END_SECONDS)
        except Exception as error:
            raise EnvironmentFailure(f"the MCP server did not end well: {error}") from error
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)


def _usage(tool: Any) -> str:
    """How to call a tool, in the words of `instructions`."""
    arguments = dumps(tool.input_schema.get("properties", {}))[:120]
    return f"`{tool.name} {arguments}` {tool.description}"


def _schema(tool: Any) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description or ""}
    return {"type": "function", "function": described | {"parameters": tool.input_schema}}


def _name_and_arguments(action: str) -> tuple[str, str]:
    """The tool of a call and its arguments as JSON: of a line, or of an object in JSON."""
    name, _, rest = action.partition(" ")
    if not action.startswith("{"):
        return name, rest
    try:
        call = json.loads(action)
        return str(call["name"]), dumps(call.get("arguments", {}))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError('a tool call is {"name": ..., "arguments": {...}}') from None


def _score(answer: str) -> float | None:
    """The score in a checker's answer; None if it holds none."""
    try:
        found = json.loads(answer)
        score = float(found["score"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return score if math.isfinite(score) else None  # Python reads NaN as JSON, too
