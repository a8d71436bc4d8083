"""What a page asks of its site, and what Python answers: no request of such a page leaves here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What a page asks of its site: `query` without its question mark."""

    method: str
    path: str
    query: str
    body: bytes
    content_type: str


@dataclass(frozen=True)
class Reply:
    status: int
    content_type: str
    body: bytes


Handler = Callable[[Request], Reply]


async def serve_only(context: Any, origin: str, handler: Handler) -> None:
    """Answers all requests of a Playwright context to `origin` by `handler`; refuses all others."""

    async def answer(route: Any) -> None:
        asked = route.request
        url = urlsplit(asked.url)
        if f"{url.scheme}://{url.netloc}" != origin:
            await route.abort("blockedbyclient")
            return
        body = asked.post_data_buffer or b""
        kind = asked.headers.get("content-type", "")
        reply = handler(Request(asked.method, url.path, url.query, body, kind))
        await route.fulfill(status=reply.status, body=reply.body, content_type=reply.content_type)

    await context.route("**/*", answer)
    # Playwright's `route` does not see web sockets: they need a route of their own.
    await context.route_web_socket("**/*", lambda socket: socket.close())
