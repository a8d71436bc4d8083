"""A page of our own, served on loopback, and what a request must keep before it is answered.

Host and, if a browser sends it, Origin must name this server, on every method: the page of another
site can reach loopback through a name of its own (DNS rebinding). Bodies are small forms with an
honest length. No other path exists. Requests are read in parallel, each with a deadline, and
answered one after another in the thread that serves: a silent or endless connection blocks nobody,
and the world is used by one thread only. Covers: pages of other sites in the user's browser. Does
not cover: other programs and users of this machine, which can reach loopback.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

from experience.command.output import say

_MOST_BYTES = 1 << 16
_MOST_CONNECTIONS = 64
_READ_SECONDS = 10.0
_LOOK_SECONDS = 0.05
"""How often the serving thread looks for requests that were read, besides new connections."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'"
)


class _Refused(Exception):
    """A request that is not answered: an HTTP status and the reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Server(ThreadingMixIn, HTTPServer):
    """Reads each request in a thread; runs the work given to `here` in the serving thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *words: Any) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(*words)

    def here(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, which the serving thread does; waits for it."""
        done: Future[Any] = Future()
        self._work.put((work, done))
        return done.result()

    def service_actions(self) -> None:
        while not self._work.empty():
            work, done = self._work.get()
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001  it is raised where the work was asked for
                done.set_exception(error)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Without a bound, a page that opens connections would start a thread for each.
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def serve(render: Callable[[], str], do: Callable[[str], None], port: int) -> None:
    """Serves `render()` at http://127.0.0.1:PORT/ until interrupted; passes form input to `do`."""
    server = make_server(render, do, port)
    say(f"http://127.0.0.1:{server.server_port}/   (ctrl-c ends it)")
    try:
        server.serve_forever(_LOOK_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def make_server(render: Callable[[], str], do: Callable[[str], None], port: int) -> HTTPServer:
    """The server itself, bound and not yet serving; port 0 takes a free one."""

    class Page(BaseHTTPRequestHandler):
        timeout = _READ_SECONDS

        def setup(self) -> None:
            super().setup()
            # `timeout` bounds the wait for each byte; this bounds the whole request.
            self._deadline = threading.Timer(_READ_SECONDS, self._cut)
            self._deadline.daemon = True
            self._deadline.start()

        def _cut(self) -> None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RD)

        def finish(self) -> None:
            self._deadline.cancel()
            super().finish()

        def do_GET(self) -> None:
            self._guarded(lambda: self._answer(200, server.here(render)))

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
            asked = urlsplit(self.path)
            # All headers of a name: two of them could be read differently by two readers.
            named = self.headers.get_all("Host", [])
            if len(named) != 1 or named[0] not in hosts or asked.netloc not in ("", *hosts):
                raise _Refused(403, "this page answers to its own address only")
            origins = self.headers.get_all("Origin")
            ours = [[f"http://{host}"] for host in hosts]
            if origins is not None and origins not in ours:
                raise _Refused(403, "this page answers to itself only")
            fetched_from = self.headers.get("Sec-Fetch-Site", "same-origin")
            if self.command == "POST" and fetched_from != "same-origin":
                raise _Refused(403, "this page answers to itself only")
            if asked.path not in ("/", "" if asked.netloc else "/"):
                raise _Refused(404, "there is one page here: /")

        def _post(self) -> None:
            said = parse_qs(self._body().decode("utf-8", "replace")).get("do", [])
            command = next((c for c in said if c.strip()), "").strip()
            if command:
                server.here(lambda: do(command))
            # See Other: to reload the page then does not act again.
            self.send_response(303)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self) -> bytes:
            lengths = self.headers.get_all("Content-Length", [])
            # Two lengths, or a length and chunks, would let two requests pass for one.
            length = lengths[0] if len(lengths) == 1 else ""
            if "Transfer-Encoding" in self.headers:
                raise _Refused(411, "send the form with its Content-Length")
            if not (length.isascii() and length.isdigit()):
                raise _Refused(400, "Content-Length is one whole number of bytes")
            if len(length) > 9 or int(length) > _MOST_BYTES:
                raise _Refused(413, f"a form has {_MOST_BYTES} bytes at most")
            body = self.rfile.read(int(length))
            if len(body) != int(length):
                raise _Refused(400, "the form ends before its Content-Length")
            return body

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

    server = _Server(("127.0.0.1", port), Page)
    hosts = [f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}"]
    return server
