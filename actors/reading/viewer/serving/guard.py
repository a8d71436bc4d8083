"""What a request must keep before it is answered, and what every answer carries.

Host and, if a browser sends it, Origin must name this server, on every request: the page of another
site can reach loopback through a name of its own (DNS rebinding). Only GET and HEAD are answered
without the token; they change nothing. A write is a POST with the token in a header of ours, which
the page of another site cannot send without asking first, and nobody answers its question. The
answers allow no script but our files, no markup from data, and no frame around them.
Covers: pages of other sites in the user's browser; writes by other users of this machine. Does not
cover: reads by other programs and users of this machine, which can reach loopback.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from experience.text.strict_json import dumps

TOKEN = b"x-xp-token"
MOST_BYTES = 1 << 16
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another, which sees only requests that keep the rules."""

    def __init__(self, app: App, hosts: list[str], token: str) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = [host.encode() for host in hosts]
        self._origins = [b"http://" + host for host in self._hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of ours opens a web socket
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refusal(scope)
        if refused is not None:
            await _answer(_with_headers(send), *refused)
            return
        if scope["method"] == "POST":
            receive = _bounded(receive)
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """(status, why) of a request that is not answered."""
        named: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            named.setdefault(name.lower(), []).append(value)
        # All headers of a name: two of them could be read differently by two readers.
        hosts = named.get(b"host", [])
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 403, "this server answers to its own address only"
        origins = named.get(b"origin")
        if origins is not None and (len(origins) != 1 or origins[0] not in self._origins):
            return 403, "this server answers to its own pages only"
        came_from = named.get(b"sec-fetch-site", [b"same-origin"])
        is_visit = named.get(b"sec-fetch-mode") == [b"navigate"]
        if came_from not in ([b"same-origin"], [b"none"]) and not is_visit:
            return 403, "this server answers to its own pages only"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "GET, HEAD and POST are answered"
        return self._refused_write(named) if scope["method"] == "POST" else None

    def _refused_write(self, named: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        tokens = named.get(TOKEN, [])
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._token):
            return 403, "a write needs the token: open the address that ./xp view printed"
        if named.get(b"content-type") != [b"application/json"]:
            return 415, "a write is JSON"
        lengths = named.get(b"content-length", [])
        if len(lengths) != 1 or not lengths[0].isdigit() or b"transfer-encoding" in named:
            return 411, "a write says its length"
        if len(lengths[0]) > 9 or int(lengths[0]) > MOST_BYTES:
            return 413, f"a write has {MOST_BYTES} bytes at most"
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            own = [pair for pair in _HEADERS if pair[0] not in given]
            if b"cache-control" not in given:
                own.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sending


def _bounded(receive: Receive) -> Receive:
    """Ends a body that is longer than it may be, whatever its length was said to be."""
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MOST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receiving


async def _answer(send: Send, status: int, why: str) -> None:
    body = dumps({"error": why, "hint": ""}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
