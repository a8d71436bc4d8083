"""Worlds over OpenEnv's protocol: its servers as worlds, our worlds as a server for its clients.

    gymnasium.make("envs:OpenEnv-v0", url="http://host:8000")  # any OpenEnv server; without openenv
    python -m envs.bridges.open_env envs:KeyDoor-v0 8000 [120]  # serves ours; needs `openenv`; the
                                                                # last number limits an answer, in s

The protocol is that of OpenEnv 0.10: JSON over a WebSocket, one session for each connection. It has
one `done` for terminated and truncated episodes; our server says in the observation's metadata
which it was. Unknown rewards (None) stay unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.bridges.serving.play import Play
from envs.bridges.serving.world_thread import ANSWER_SECONDS
from envs.bridges.stranger import Stranger
from envs.contract import Outcome
from experience.errors import EnvironmentFailure, MissingPartError


class OpenEnv(Stranger):
    """A world that an OpenEnv server runs; its task is one of `tasks` seeds.

    An action is a JSON object of the server's schema. If the schema has one field, that field's
    value alone is enough. `seconds` limits one answer.
    """

    def __init__(
        self, url: str, max_turns: int = 100, tasks: int = 1000, seconds: float = 60.0
    ) -> None:
        super().__init__(url.rstrip("/"), tasks)
        self.max_turns = max_turns
        self._url = url.rstrip("/")
        self._seconds = seconds
        try:
            with urllib.request.urlopen(f"{self._url}/schema", timeout=seconds) as answer:
                schema = json.load(answer)["action"]
        except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
            raise EnvironmentFailure(
                f"no OpenEnv server at {url}: {error}", "start it, or mend the url"
            ) from error
        # `metadata` is in each of OpenEnv's schemas, and no part of an action.
        fields = schema.get("properties", {}).items()
        self.schema: dict[str, Any] = {n: p for n, p in fields if n != "metadata"}
        described = json.dumps(self.schema)[:1500]
        self.instructions = f"Reply with a JSON object of: {described}"  # type: ignore[misc]
        self._socket: Any = None
        self._answer: dict[str, Any] = {}

    def begin(self) -> None:
        if self._socket is None:
            self._socket = self._connected()
        self._answer = self._ask("reset", {"seed": self.task})

    def _connected(self) -> Any:
        try:
            from websockets.sync.client import connect
        except ImportError as missing:
            raise MissingPartError(
                f"OpenEnv needs websockets: {missing}", "./xp setup worlds"
            ) from missing
        try:
            # http becomes ws and https wss. No proxy: a server is asked by its own address.
            return connect(
                f"ws{self._url.removeprefix('http')}/ws",
                open_timeout=self._seconds,
                proxy=None,
                max_size=100 * 2**20,
            )
        except (OSError, TimeoutError) as error:
            raise EnvironmentFailure(f"no OpenEnv session at {self._url}: {error}") from error

    def _ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The data of the server's answer.

        Raises ValueError if the server refused an action, EnvironmentFailure for any other error.
        """
        from websockets.exceptions import WebSocketException

        try:
            self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(self._seconds))
        except (WebSocketException, OSError, TimeoutError) as error:
            # A late answer would be read as that of the next question: the session ends.
            self.close()
            raise EnvironmentFailure(
                f"the OpenEnv server at {self._url} failed: {error}"
            ) from error
        found: dict[str, Any] = answer["data"]
        if answer["type"] == "error":
            details = json.dumps(found.get("errors", ""), default=str)
            why = f"{found.get('message')} {details}"[:300]
            if found.get("code") == "VALIDATION_ERROR" and kind == "step":
                raise ValueError(why)
            raise EnvironmentFailure(f"the OpenEnv server at {self._url}: {why}")
        return found

    def observe(self) -> str:
        seen = {n: v for n, v in self._answer["observation"].items() if n != "metadata"}
        only = next(iter(seen.values())) if len(seen) == 1 else None
        return only if isinstance(only, str) else json.dumps(seen)

    def act(self, action: str) -> Outcome:
        try:
            given = json.loads(action)
        except ValueError:
            given = action
        if not isinstance(given, dict):
            if len(self.schema) != 1:
                raise ValueError(f"an action is a JSON object of {', '.join(self.schema)}")
            # `5` is JSON too, but the text that was written is meant.
            given = {next(iter(self.schema)): given if isinstance(given, str) else action}
        self._answer = self._ask("step", given)
        metadata = self._answer["observation"].get("metadata") or {}
        self.cut_off = bool(metadata.get("truncated"))
        terminated = bool(self._answer["done"]) and not self.cut_off
        return {"env_reward": self._answer["reward"]}, terminated

    def random_action(self, rng: np.random.Generator) -> str:
        return json.dumps({name: _drawn(part, rng) for name, part in self.schema.items()})

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _drawn(schema: dict[str, Any], rng: np.random.Generator) -> Any:
    """A random value of a field with this JSON Schema."""
    whole = int(rng.integers(int(schema.get("minimum", 0)), int(schema.get("maximum", 9)) + 1))
    if "enum" in schema:
        choices = schema["enum"]
        return choices[int(rng.integers(len(choices)))]
    by_type: dict[str | None, Any] = {
        "integer": whole,
        "number": float(whole),
        "boolean": bool(whole % 2),
        "array": [],
        "object": {},
    }
    return by_type.get(schema.get("type"), str(whole))


def application(make: Callable[[], Any], sessions: int = 8, seconds: float = ANSWER_SECONDS) -> Any:
    """A FastAPI application that serves the worlds of `make` to OpenEnv's clients.

    Each session has a world of its own, on a thread of its own; `seconds` limits a reset or a step,
    after which the client gets an error in words, and the session's next reset a new world. Raises
    MissingPartError without `openenv`, whose dependencies need a Python of its own.
    """
    try:
        from openenv.core.env_server import (
            Action,
            Environment,
            Observation,
            State,
            create_fastapi_app,
        )
    except ImportError as missing:
        raise MissingPartError(
            f"serving OpenEnv's clients needs openenv: {missing}",
            "./xp setup peers, then that Python: .peers/openenv/bin/python",
        ) from missing

    class Say(Action):  # type: ignore[misc]
        text: str

    class Seen(Observation):  # type: ignore[misc]
        text: str

    class Served(Environment):  # type: ignore[misc]
        # Each world brings its thread: sessions must not share the one that OpenEnv would give.
        SUPPORTS_CONCURRENT_SESSIONS = True
        _numbers = itertools.count()

        def __init__(self) -> None:
            super().__init__()
            self._play = Play(make, seconds)
            self._state = State()

        async def reset_async(
            self, seed: int | None = None, episode_id: str | None = None, split: str | None = None
        ) -> Any:
            if self._play.is_lost:
                self._play = Play(make, seconds)
            start = await self._play.begin(seed, split or "")
            self._state = State(
                episode_id=episode_id or f"{seed}-{next(self._numbers)}", step_count=0
            )
            told = {"instructions": self._play.about.instructions, "task_id": self._play.task_id}
            return Seen(text=start.seen, metadata=told)

        async def step_async(self, action: Any, timeout_s: float | None = None) -> Any:
            turn = await self._play.do(action.text)
            self._state.step_count += 1
            told = {"truncated": turn.truncated, "signals": dict(turn.signals)}
            if turn.tag or turn.late:
                told |= {"tag": turn.tag, "late": dict(turn.late)}
            return Seen(text=turn.seen, done=turn.ended, reward=turn.reward, metadata=told)

        def reset(self, seed: int | None = None, **more: Any) -> Any:
            return asyncio.run(self.reset_async(seed, **more))

        def step(self, action: Any, timeout_s: float | None = None) -> Any:
            return asyncio.run(self.step_async(action, timeout_s))

        @property
        def state(self) -> Any:
            return self._state

        def close(self) -> None:
            self._play.close()

    return create_fastapi_app(Served, Say, Seen, max_concurrent_envs=sessions)


if __name__ == "__main__":
    import uvicorn

    from envs.make import make_as_text

    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else ANSWER_SECONDS
    served = application(lambda: make_as_text(sys.argv[1])[2], seconds=seconds)
    uvicorn.run(served, host="127.0.0.1", port=int(sys.argv[2]))
