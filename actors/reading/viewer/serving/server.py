"""The server: pages, answers, pictures and live news on loopback, until it is interrupted."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from actors.reading.viewer.serving.guard import Guard
from actors.reading.viewer.serving.live import news
from actors.reading.viewer.serving.pages import page_files
from actors.reading.viewer.serving.questions import QUESTIONS, Answer
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import NotThere, Shelf
from actors.reading.viewer.turns.feedback import give
from experience.command.output import say
from experience.errors import ConfigError, RecordError, ShardError, XpError
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps

HOST = "127.0.0.1"
_PICTURES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_log = logging.getLogger(__name__)


class _Data(JSONResponse):
    """JSON of a run, past the redactor: a secret may stand in any text that a world showed."""

    def render(self, content: Any) -> bytes:
        text = dumps(content, ensure_ascii=False, default=str)
        return Redactor.current().text(text).encode(errors="replace")


def make_app(shelf: Shelf, hosts: list[str], token: str) -> Guard:
    """The application for a server that answers to `hosts`, and writes for who has `token`."""
    routes = [Route(path, _asked(shelf, answer)) for path, answer in QUESTIONS.items()]
    routes += [
        Route("/api/runs/{run}/live", _live(shelf)),
        Route("/api/runs/{run}/feedback", _feedback(shelf), methods=["POST"]),
        Route("/blobs/{run}/{digest}", _picture(shelf)),
    ]
    routes += [Route(path, _page(body, kind)) for path, (body, kind) in page_files().items()]
    errors = {404: _unknown_address, 405: _unknown_address, Exception: _broken}
    handlers: Any = {XpError: _refused, **errors}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts, token)


def serve(shelf: Shelf, port: int, start: str, opened: Callable[[str], None]) -> None:
    """Serves until interrupted. `opened` is called with the address, its token in the fragment."""
    import uvicorn

    listening = bind(port)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    app = make_app(shelf, [f"{HOST}:{port}", f"localhost:{port}"], token)
    opened(f"http://{HOST}:{port}/#{start}?token={token}")
    uvicorn.Server(settings_of(app)).run(sockets=[listening])


def settings_of(app: Guard) -> Any:
    """How uvicorn serves: few connections, no log of addresses, no name of itself."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=128,
        timeout_keep_alive=30,
        # Live news never end by themselves: an interrupt must not wait for them.
        timeout_graceful_shutdown=1,
        ws="none",
    )


def bind(port: int) -> socket.socket:
    """A socket on loopback. Raises ConfigError if the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} cannot be served on: {error.strerror}",
            "choose another: --port 0 takes a free one",
        ) from None
    listening.listen(128)
    return listening


Endpoint = Callable[[Request], Awaitable[Response]]


def _asked(shelf: Shelf, answer: Answer) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        question = Question(dict(request.query_params))
        # In a thread: reading a store must not keep the news of another page waiting.
        data = await run_in_threadpool(answer, shelf, dict(request.path_params), question)
        return _Data(data)

    return endpoint


def _live(shelf: Shelf) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        run = await run_in_threadpool(shelf.run, request.path_params["run"])
        return StreamingResponse(
            news(run.directory, request.is_disconnected), media_type="text/event-stream"
        )

    return endpoint


def _feedback(shelf: Shelf) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            said = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise ConfigError("the feedback is no JSON") from None
        return _Data(await run_in_threadpool(give, shelf, request.path_params["run"], said))

    return endpoint


def _picture(shelf: Shelf) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        data = await run_in_threadpool(
            read_picture, shelf, request.path_params["run"], request.path_params["digest"]
        )
        # A hash names its bytes for ever. Another user of the browser's cache gets nothing.
        kept = {"cache-control": "private, max-age=31536000, immutable"}
        sandboxed = {"content-security-policy": "default-src 'none'; sandbox"}
        return Response(data, media_type=picture_kind(data), headers=kept | sandboxed)

    return endpoint


def read_picture(shelf: Shelf, run: str, digest: str) -> bytes:
    """The bytes of a blob by its hash in hex. Raises NotThere for what is no hash of the store."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise NotThere(f"{digest[:80]!r} is no SHA-256 in hexadecimal")
    return shelf.run(run).picture(bytes.fromhex(digest))


def picture_kind(data: bytes) -> str:
    """The media type by the bytes themselves; what is no picture of these is only downloaded.

    A world says a media type too, but could say text/html of a script.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return "application/octet-stream"


def _page(body: bytes, kind: str) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        return Response(body, media_type=kind)

    return endpoint


_STATUS = ((NotThere, 404), (ConfigError, 400), (RecordError, 400), (ShardError, 409))


async def _refused(_: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    hint = getattr(error, "hint", "")
    said = str(error).removesuffix(f"\n  {hint}")
    return _Data({"error": said, "hint": hint}, status_code=status)


async def _unknown_address(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _Data({"error": "nothing is at this address", "hint": ""}, status_code=status)


async def _broken(_: Request, error: Exception) -> Response:
    # The page gets no traceback: it may hold paths and values of this machine.
    _log.error("an answer failed", exc_info=error)
    told = f"the viewer failed: {type(error).__name__}; its terminal has the traceback"
    return _Data({"error": told, "hint": ""}, status_code=500)


def tell(address: str) -> None:
    say(f"{address}\n  (ctrl-c ends it; the token after # lets this browser write feedback)")
