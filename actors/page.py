"""A page of our own, served on loopback: what every request must keep before it is answered.

Host and, where a browser sends it, Origin must name this server, on every method: another site's page can reach
loopback through a name of its own (DNS rebinding). Bodies are small forms with an honest length. Nothing else is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_MOST_BYTES = 1 << 16
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'"


class _Refused(Exception):
    """Why a request is not answered, as an HTTP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def serve(render: Callable[[], str], do: Callable[[str], None], port: int) -> None:
    """Serves `render()` at http://127.0.0.1:PORT/ and gives what its form `do` sends to `do`, until interrupted."""
    server = make_server(render, do, port)
    print(f"http://127.0.0.1:{server.server_port}/   (ctrl-c ends it)", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def make_server(render: Callable[[], str], do: Callable[[str], None], port: int) -> HTTPServer:
    """The server itself, bound and not yet serving; port 0 takes a free one."""

    class Page(BaseHTTPRequestHandler):
        timeout = 10.0  # a client that sends half a request does not hold the page for ever

        def do_GET(self) -> None:
            self._guarded(lambda: self._answer(200, render()))

        def do_POST(self) -> None:
            self._guarded(self._post)

        def _guarded(self, answer: Callable[[], None]) -> None:
            try:
                self._check_origin()
                answer()
            except _Refused as refused:
                self.close_connection = True
                self._answer(refused.status, str(refused), "text/plain")

        def _check_origin(self) -> None:
            origin = self.headers.get("Origin")
            if self.headers.get_all("Host") not in [[host] for host in hosts]:
                raise _Refused(403, "this page answers to its own address only")
            if origin is not None and origin not in {f"http://{host}" for host in hosts}:
                raise _Refused(403, "this page answers to itself only")
            if urlsplit(self.path).path != "/":
                raise _Refused(404, "there is one page here: /")

        def _post(self) -> None:
            said = parse_qs(self._body().decode("utf-8", "replace")).get("do", [])
            command = next((c for c in said if c.strip()), "").strip()
            if command:
                do(command)
            self.send_response(303)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self) -> bytes:
            length = self.headers.get("Content-Length", "")
            if "Transfer-Encoding" in self.headers:
                raise _Refused(411, "send the form with its Content-Length")
            if not (length.isascii() and length.isdigit()):
                raise _Refused(400, "Content-Length is a whole number of bytes")
            if len(length) > 9 or int(length) > _MOST_BYTES:
                raise _Refused(413, f"a form has {_MOST_BYTES} bytes at most")
            return self.rfile.read(int(length))

        def _answer(self, status: int, text: str, kind: str = "text/html") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", port), Page)
    hosts = [f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}"]
    return server
