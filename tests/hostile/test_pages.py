"""A page that we serve answers its own form and nobody else's, and every bad request with a status."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import HTTPServer

import numpy as np
import pytest

from envs.play.game import Game, page
from envs.play.page import make_server
from tests.planted_worlds import Sound


@pytest.fixture
def served() -> Iterator[tuple[HTTPServer, Game]]:
    game = Game(Sound(), seed=0, split="train")
    server = make_server(lambda: page(game), lambda command: game.log.append(game.do(command)), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server, game
    server.shutdown()
    server.server_close()


def ask(server: HTTPServer, request: str | bytes) -> bytes:
    """The answer to a request sent as it is; PORT stands for the server's."""
    raw = request if isinstance(request, bytes) else request.encode()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(raw.replace(b"PORT", str(server.server_port).encode()))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


def post(body: str = "do=open+1", **headers: str) -> str:
    sent = {"Host": "127.0.0.1:PORT", "Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return "POST / HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items()) + f"\r\n{body}"


def test_its_own_form_acts_and_its_page_shows_it(served: tuple[HTTPServer, Game]) -> None:
    server, game = served
    assert ask(server, post(Origin="http://127.0.0.1:PORT")).startswith(b"HTTP/1.0 303")
    assert "drawer 1 holds" in game.seen
    assert b"drawer 1 holds" in ask(server, "GET / HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:PORT",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:PORT.evil.example",
        "localhost:PORT@evil.example",
        "[::1]:PORT",
        "0.0.0.0:PORT",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_is_not_its_own_is_refused_on_every_method(
    method: str, host: str, served: tuple[HTTPServer, Game]
) -> None:
    """DNS rebinding: a page of another name reads loopback."""
    server, game = served
    request = post(Host=host) if method == "POST" else f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"
    answer = ask(server, request)
    assert answer.startswith(b"HTTP/1.0 403") and b"three drawers" not in answer
    assert game.seen == "three drawers, all shut"


@pytest.mark.parametrize("lines", ["", "Host: 127.0.0.1:PORT\r\nHost: evil.example\r\n"])
def test_no_host_and_two_hosts_are_refused(lines: str, served: tuple[HTTPServer, Game]) -> None:
    assert ask(served[0], f"GET / HTTP/1.1\r\n{lines}\r\n").startswith(b"HTTP/1.0 403")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1:PORT",
        "http://127.0.0.1:PORT.evil.example",
        "file://",
        "x://127.0.0.1:PORT",
    ],
)
def test_a_form_of_another_site_does_nothing(origin: str, served: tuple[HTTPServer, Game]) -> None:
    server, game = served
    assert ask(server, post(Origin=origin)).startswith(b"HTTP/1.0 403")
    assert game.seen == "three drawers, all shut"


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("x", 400),
        ("-1", 400),
        ("", 400),
        ("1e3", 400),
        ("0x10", 400),
        ("١٢", 400),
        ("9" * 30, 413),
        ("70000", 413),
        ("1 2", 400),
    ],
)
def test_a_length_that_is_none_is_answered(
    length: str, status: int, served: tuple[HTTPServer, Game]
) -> None:
    server, game = served
    assert ask(server, post(Content_Length=length)).startswith(b"HTTP/1.0 %d" % status)
    assert game.seen == "three drawers, all shut"


def test_a_body_in_chunks_is_answered(served: tuple[HTTPServer, Game]) -> None:
    assert ask(served[0], post("5\r\nhello\r\n0\r\n\r\n", Transfer_Encoding="chunked")).startswith(
        b"HTTP/1.0 411"
    )


def refused(served: tuple[HTTPServer, Game], lines: str, status: int) -> None:
    """A form with these header lines is answered with `status`, and nothing was done."""
    server, game = served
    answer = ask(server, f"POST / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{lines}\r\ndo=open+1")
    assert answer.startswith(b"HTTP/1.0 %d" % status)
    assert game.seen == "three drawers, all shut"


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 9\r\nContent-Length: 4\r\n",
        "Content-Length: 9\r\nContent-Length: 9\r\n",
        "Content-Length: 50\r\n",
    ],
)
def test_two_lengths_and_a_form_that_ends_early_are_refused(
    lines: str, served: tuple[HTTPServer, Game]
) -> None:
    refused(served, lines, 400)


@pytest.mark.parametrize(
    "lines",
    [
        "Origin: http://127.0.0.1:PORT\r\nOrigin: http://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ],
)
def test_a_browser_that_tells_of_another_site_in_other_words_is_refused(
    lines: str, served: tuple[HTTPServer, Game]
) -> None:
    refused(served, f"{lines}Content-Length: 9\r\n", 403)


def test_a_target_of_another_site_is_refused_and_its_own_is_answered(
    served: tuple[HTTPServer, Game],
) -> None:
    for target, status in (
        ("http://evil.example/", 403),
        ("http://127.0.0.1:PORT/", 200),
        ("http://127.0.0.1:1/", 403),
    ):
        answer = ask(served[0], f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 %d" % status), target


def test_connections_that_say_nothing_or_never_end_keep_nobody_out(
    served: tuple[HTTPServer, Game],
) -> None:
    """Each held the page for 10 s, and one that went on slowly for ever; browsers open idle ones
    ahead of need."""
    server, _ = served
    held = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(20)]
    for connection in held[10:]:
        connection.sendall(b"GET / HT")
    with pytest.raises(TimeoutError):
        held[0].settimeout(0.2)
        held[0].recv(1)
    asked = "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n"
    assert b"HTTP/1.0 200" in ask(server, asked)
    held[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        held[0].recv(
            1
        )  # the first of them still waits: it was not answered or cut before the other
    for connection in held:
        connection.close()


def test_a_world_is_in_the_thread_that_serves_and_in_no_other() -> None:
    """SQLite and others keep their things in one thread."""
    seen: list[threading.Thread] = []
    server = make_server(
        lambda: str(seen.append(threading.current_thread())),
        lambda _: seen.append(threading.current_thread()),
        0,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    assert ask(server, post()).startswith(b"HTTP/1.0 303")
    assert b"HTTP/1.0 200" in ask(server, "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n")
    server.shutdown()
    server.server_close()
    assert seen == [thread, thread]


@pytest.mark.parametrize("path", ["/x", "/../etc/passwd", "//evil.example/", "/%2e%2e/"])
def test_nothing_but_the_page_is_served(path: str, served: tuple[HTTPServer, Game]) -> None:
    answer = ask(served[0], f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 404")


def test_a_thousand_broken_requests_leave_the_page_served(served: tuple[HTTPServer, Game]) -> None:
    server, _ = served
    rng = np.random.default_rng(0)
    good = post().encode()
    for _ in range(1000):
        broken = bytearray(good)
        for place in rng.integers(len(broken), size=int(rng.integers(1, 8))):
            broken[place] = int(rng.integers(256))
        ask(server, bytes(broken[: int(rng.integers(len(broken) + 1))]))
    assert b"HTTP/1.0 200" in ask(server, "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n")


def test_what_a_world_says_is_text_on_its_page() -> None:
    class Hostile(Sound):
        instructions = "<script>alert(1)</script>"

        def observe(self) -> str:
            return "<img src=x onerror=alert(1)>"

    game = Game(Hostile(), seed=0, split="train")
    game.log.append(game.do("</pre><script>alert(1)</script>"))
    shown = page(game)
    assert "<script" not in shown and "<img src=x" not in shown
