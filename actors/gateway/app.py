"""The gateway's door: HTTP on loopback or on a Unix socket, in three protocols.

Covers: only loopback names as Host and Origin (a page in a browser cannot reach it by another
name); URLs that nobody can guess; bodies, waits and calls at a time are bounded; each error in the
form of the protocol that asked. Does not cover: other programs of the same user, which may read the
key of the tokens.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.gateway import anthropic_messages, openai_chat, openai_responses
from actors.gateway.messages import Asked, BadRequest, Said
from experience.text.strict_json import dumps

MOST_BYTES = 16 << 20
_BODY_SECONDS = 30.0
_ALIVE_SECONDS = 5.0
"""Between two signs of life of an event stream whose answer is not there yet."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
PROTOCOLS: Mapping[str, ModuleType] = {
    "chat/completions": openai_chat,
    "responses": openai_responses,
    "messages": anthropic_messages,
}


class Door(Protocol):
    """What stands behind the app. Each may raise BadRequest."""

    seconds: float
    """How long a call may take."""

    def models(self, token: str) -> list[str]:
        """The models that a rollout may ask."""

    def call(self, token: str, asked: Asked) -> Future[Said]:
        """Answers a call of the rollout that a token names."""

    def begin(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Begins a rollout."""

    def finish(self, token: str, body: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Ends a rollout, or adds what is known of it now."""


def make_app(door: Door) -> ASGIApp:
    """The app: `/r/TOKEN/v1/...` for calls, `/r/TOKEN/end`, and `POST /rollouts`."""
    routes = [
        Route(f"/r/{{token}}/{prefix}{name}", _calls(door, speaks), methods=["POST"])
        for name, speaks in PROTOCOLS.items()
        for prefix in ("v1/", "")
    ]
    routes += [
        Route("/r/{token}/v1/models", _models(door), methods=["GET"]),
        Route("/r/{token}/models", _models(door), methods=["GET"]),
        Route("/r/{token}/end", _own(door, _finish), methods=["POST"]),
        Route("/rollouts", _own(door, _begin), methods=["POST"]),
    ]
    return LoopbackOnly(Starlette(routes=routes))


class LoopbackOnly:
    """Refuses a request whose Host or Origin is no name of this machine's own loopback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"])
            host = _name(f"//{given.get(b'host', b'').decode('latin-1')}")
            origin = given.get(b"origin")
            is_ours = origin is None or _name(origin.decode("latin-1")) in _LOOPBACK
            if host not in _LOOPBACK or not is_ours:
                wrong = BadRequest("only programs of this machine are answered", 403, "not_allowed")
                await _failure(openai_chat, wrong)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _calls(door: Door, speaks: ModuleType) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        try:
            asked = speaks.read(await _body(request))
            waits = asyncio.wrap_future(door.call(request.path_params["token"], asked))
            created = int(time.time())
            if asked.stream:
                events = _events(speaks, asked, waits, created, door.seconds)
                return StreamingResponse(events, media_type="text/event-stream")
            said = await _in_time(waits, door.seconds)
        except BadRequest as wrong:
            return _failure(speaks, wrong)
        return JSONResponse(speaks.write(said, asked, created))

    return answer


async def _events(
    speaks: ModuleType, asked: Asked, waits: asyncio.Future[Said], created: int, seconds: float
) -> AsyncIterator[str]:
    """The events of an answer; until it is there, comments that keep the connection open."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, _ = await asyncio.wait([waits], timeout=_ALIVE_SECONDS)
        if done:
            break
        yield ": waiting\n\n"
    try:
        said = await _in_time(waits, 0.0)
    except BadRequest as wrong:
        yield speaks.error_event(wrong)
        return
    for event in speaks.events(said, asked, created):
        yield event


async def _in_time(waits: asyncio.Future[Any], seconds: float) -> Any:
    done, _ = await asyncio.wait([waits], timeout=seconds)
    if not done:
        waits.cancel()
        raise BadRequest(f"no answer within {seconds:g} seconds", 504, "timeout")
    return waits.result()


def _own(door: Door, does: Callable[..., Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await does(door, request))
        except BadRequest as wrong:
            return _failure(openai_chat, wrong)

    return answer


async def _begin(door: Door, request: Request) -> dict[str, Any]:
    given = request.headers.get("authorization", "")
    return door.begin(given.removeprefix("Bearer ").strip(), await _body(request))


async def _finish(door: Door, request: Request) -> dict[str, Any]:
    found = door.finish(request.path_params["token"], await _body(request))
    answer: dict[str, Any] = await _in_time(asyncio.wrap_future(found), door.seconds)
    return answer


def _models(door: Door) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        try:
            names = door.models(request.path_params["token"])
        except BadRequest as wrong:
            return _failure(openai_chat, wrong)
        kind = {"object": "model", "created": 0, "owned_by": "xp"}
        return JSONResponse({"object": "list", "data": [{"id": name, **kind} for name in names]})

    return answer


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises BadRequest for anything else."""
    try:
        data = await asyncio.wait_for(_read(request), _BODY_SECONDS)
    except TimeoutError:
        raise BadRequest("the request did not come in time", 408, "timeout") from None
    if not data:
        return {}
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}"[:200]) from None
    if not isinstance(body, dict):
        raise BadRequest("the body is no JSON object")
    return body


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise BadRequest(
                f"the body is larger than {MOST_BYTES >> 20} MiB", 413, "request_too_large"
            )
    return bytes(data)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _failure(speaks: ModuleType, wrong: BadRequest) -> Response:
    return Response(dumps(speaks.error(wrong)), wrong.status, media_type="application/json")
