"""Live sites: the browser reaches a list of hosts, by a proxy that lets nothing else through."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import pytest

from envs.browser.chrome import proxy
from experience.errors import EnvironmentFailure

_PAGE = """<html lang="en"><title>shop</title><h1>Shop</h1>
<a href="/terms" target="_blank">Terms</a>
<form method="post" enctype="multipart/form-data" action="/sent">
<label>Paper <input type="file" name="paper"></label>
<label>Note <input name="note"></label>
<label>Size <select name="size"><option>small<option>large</select></label>
<button>Send</button></form><a href="/away">Away</a>%s</html>"""
_OWN_ADDRESSES = """async () => {
  const stun = {iceServers: [{urls: "stun:127.0.0.1:3478"}]};
  const rtc = new RTCPeerConnection(stun), found = [];
  rtc.onicecandidate = e => e.candidate && found.push(e.candidate.candidate);
  rtc.createDataChannel("x");
  await rtc.setLocalDescription(await rtc.createOffer());
  await new Promise(r => setTimeout(r, 500));
  return found;
}"""
"""The addresses that WebRTC gives a page away: it goes around a browser's proxy."""


class _Site(BaseHTTPRequestHandler):
    more = ""

    def do_GET(self) -> None:
        if self.path == "/away":
            self._answer("", 302, self.server.away)  # type: ignore[attr-defined]
        elif self.path == "/terms":
            self._answer("<title>terms</title><p>Ask for Ann Marie.</p>")
        elif self.path == "/slow":
            time.sleep(1)
            self._answer("<title>slow</title><p>Here at last.</p>")
        else:
            self._answer(_PAGE % self.server.more)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sent.append(sent)  # type: ignore[attr-defined]
        self._answer(
            "<title>sent</title><p>received "
            f"{'paper.txt' if b'paper.txt' in sent else 'nothing'}</p>"
        )

    def _answer(self, html: str, status: int = 200, to: str = "") -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        if to:
            self.send_header("Location", to)
        self.send_header("Content-Length", str(len(html.encode())))
        self.end_headers()
        self.wfile.write(html.encode())

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """Serves `_Site` on a port of its own. Remembers the paths asked for and the forms sent."""

    def __init__(self, more: str, away: str) -> None:
        super().__init__(("127.0.0.1", 0), _Site)
        self.more = more
        self.away = away
        self.asked: list[str] = []
        self.sent: list[bytes] = []


def _serving(more: str = "", away: str = "") -> _Server:
    server = _Server(more, away)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _soon(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 300
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


def _at(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def other() -> Iterator[Any]:
    server = _serving()
    yield server
    server.shutdown()


@pytest.fixture
def site(other: Any) -> Iterator[Any]:
    more = "".join(
        f'<img src="{u}"><script>fetch("{u}", {{mode: "no-cors"}}).catch(() => 0)</script>'
        for u in (
            f"http://{_at(other)}/x",
            f"http://localhost:{other.server_address[1]}/",
            "http://169.254.169.254/latest/",
            "http://[::1]/",
            "http://example.com/",
            "https://example.com/",
        )
    )
    more += f'<script>new WebSocket("ws://{_at(other)}/")</script>'
    server = _serving(more, f"http://{_at(other)}/redirected")
    yield server
    server.shutdown()


def test_an_agent_uses_tabs_and_uploads_on_a_live_site_and_reaches_no_other(
    site: Any, other: Any, tmp_path: Path
) -> None:
    (tmp_path / "paper.txt").write_bytes(b"all of it" * 1000)
    start = f"http://{_at(site)}/"
    hosts = [f"shop.lab={_at(site)}", _at(site)]
    world: Any = gymnasium.make(
        "envs:Web-v0",
        hosts=hosts,
        files=str(tmp_path),
        errands=[
            {
                "goal": "Send the paper to whom the terms tell.",
                "start": start.replace("127.0.0.1", "shop.lab"),
                "address": "http://shop.lab:[0-9]+/sent",
                "shows": "received paper.txt",
                "answer": "Ann Marie",
                "split": "train",
            }
        ],
    )
    try:
        seen, _ = world.reset(seed=0)
        assert (
            "Shop" in seen and "tab 1 of 1: http://shop.lab" in seen and "files: paper.txt" in seen
        )
        seen = world.step("click Terms")[0]
        assert "tab 2 of 2" in seen and "Ask for Ann Marie." in seen
        assert "! no tab 3 of 2" in world.step("tab_focus 3")[0]
        assert "Shop" in world.step("tab_focus 1")[0]
        assert "takes no file" in world.step("upload_file Send paper.txt")[0]
        assert "no file secret" in world.step("upload_file Paper secret")[0]
        assert "no file /etc/passwd" in world.step("upload_file Paper /etc/passwd")[0]
        world.step("upload_file Paper paper.txt")
        world.step("fill Note for Ann")
        world.step("select_option Size large")
        seen, *_, info = world.step("click Send")
        assert "received paper.txt" in seen and "refused" not in info["signals"]
        sent = site.sent[-1]
        assert b"all of it" * 1000 in sent and b"for Ann" in sent and b"large" in sent
        assert "Shop" in world.step("go_back")[0]
        assert "tab 3 of 3: about:blank" in world.step("new_tab")[0]
        assert "tab 2 of 2" in world.step("tab_close")[0]
        seen, *_, info = world.step(f"goto http://{_at(other)}/")
        assert "refused: not on the list" in seen and _at(other) in info["signals"]["refused"][1]
        assert (
            world.step(f"goto https://{_at(other)}/")[4]["signals"]["unreachable"][1]
            == "ERR_TUNNEL_CONNECTION_FAILED"
        )
        for place in (
            "file:///etc/passwd",
            "javascript:alert(1)",
            "view-source:http://x",
            "chrome://version",
        ):
            assert "begins with http" in world.step(f"goto {place}")[0]
        world.step(f"goto http://shop.lab:{site.server_address[1]}/")
        assert (
            "refused" in world.step("click Away")[4]["signals"]
        )  # a redirect to what is not on the list
        assert other.asked == [] and site.asked.count("/away") == 1
        assert world.step("send_msg_to_user Ann Marie")[1:3] == (
            pytest.approx(-0.01),
            True,
        )  # at the wrong page
        world.reset(seed=0)
        world.step("upload_file Paper paper.txt")
        world.step("click Send")
        assert world.step("send_msg_to_user Ann Marie")[1:3] == (pytest.approx(0.99), True)
    finally:
        world.close()


def test_a_tab_that_a_click_opens_is_seen_however_late_its_page_comes() -> None:
    site = _serving(more='<a href="/slow" target="_blank">Slow</a>')
    errand = {"goal": "x", "start": f"http://{_at(site)}/", "answer": "x", "split": "train"}
    world: Any = gymnasium.make("envs:Web-v0", hosts=[_at(site)], errands=[errand])
    try:
        world.reset(seed=0)
        seen = world.step("click Slow")[0]
        assert "tab 2 of 2" in seen and "Here at last." in seen
        assert "tab 1 of 1" in world.step("tab_close")[0]
    finally:
        world.close()
        site.shutdown()


def test_what_a_page_asks_of_other_hosts_is_refused_and_counted(site: Any, other: Any) -> None:
    world: Any = gymnasium.make(
        "envs:Web-v0",
        hosts=[_at(site)],
        errands=[
            {"goal": "Look.", "start": f"http://{_at(site)}/", "answer": "x", "split": "train"}
        ],
    )
    try:
        world.reset(seed=0)

        def all_reported() -> bool:
            hosts = {urlsplit(url).hostname for url in world.unwrapped.tabs.refused}
            return hosts >= {"127.0.0.1", "localhost", "169.254.169.254", "::1", "example.com"}

        assert _soon(all_reported), world.unwrapped.tabs.refused
        assert other.asked == []
        alone = world.unwrapped.wait(world.unwrapped.tabs.tab.page.evaluate(_OWN_ADDRESSES))
        assert alone == []
    finally:
        world.close()
    world = gymnasium.make(
        "envs:Web-v0",
        hosts=[_at(site), _at(other)],
        errands=[
            {"goal": "Look.", "start": f"http://{_at(site)}/", "answer": "x", "split": "train"}
        ],
    )
    world.reset(
        seed=0
    )  # the control: where it is on the list, both the picture and the script get there
    assert _soon(lambda: other.asked.count("/x") >= 2), other.asked
    world.close()


def test_an_errand_or_a_host_that_cannot_be_used_says_what_is_wrong() -> None:
    for wrong, said in (
        ({"goal": "x", "start": "ftp://x", "answer": "x"}, "not http"),
        ({"goal": "x", "start": "http://x.org"}, "tell what holds at its end"),
        ({"goal": "x", "start": "http://x.org", "answer": "("}, "cannot be read"),
        ({"goal": "x", "start": "http://x.org", "answers": "x"}, "not 'answers'"),
    ):
        with pytest.raises(ValueError, match=said):
            gymnasium.make("envs:Web-v0", hosts=["x.org"], errands=[wrong])
    errand = {"goal": "x", "start": "http://127.0.0.1:9/", "answer": "x", "split": "train"}
    world: Any = gymnasium.make("envs:Web-v0", hosts=["no host!"], errands=[errand])
    with pytest.raises(ValueError, match="is no host"):
        world.reset(seed=0)
    world = gymnasium.make("envs:Web-v0", hosts=["127.0.0.1:9"], errands=[errand])
    with pytest.raises(ValueError, match="for split heldout"):
        world.reset(seed=0, options={"split": "heldout"})
    with pytest.raises(EnvironmentFailure, match="did not open"):
        world.reset(seed=0)
    world.close()


def test_rules_name_hosts_ports_and_addresses() -> None:
    rules = [
        proxy.read_rule(r)
        for r in (
            "Example.org",
            "*.wiki.org",
            "x.net:8080",
            "10.0.0.5:8000",
            "[::1]:90",
            "wiki.lab=10.0.0.6:8443",
        )
    ]

    def held(host: str, port: int) -> bool:
        return any(r.holds(host, port) for r in rules)

    for host, port in (
        ("example.org", 80),
        ("example.org", 443),
        ("en.wiki.org", 443),
        ("x.net", 8080),
        ("10.0.0.5", 8000),
        ("::1", 90),
        ("wiki.lab", 8443),
    ):
        assert held(host, port), host
    for host, port in (
        ("example.org", 22),
        ("www.example.org", 80),
        ("wiki.org", 80),
        ("evilwiki.org", 80),
        ("x.net", 80),
        ("10.0.0.6", 8443),
        ("wiki.lab", 80),
        ("example.org.evil.com", 80),
    ):
        assert not held(host, port), host
    for wrong in (
        "",
        "*",
        "*.",
        "http://x.org",
        "x.org/",
        "a b.org",
        "x.org:0",
        "x.org:99999",
        "x=y",
        "2130706433",
        "0x7f.1",
        "*.10.0.0.1",
        "x.org:8o",
        "=",
        "user@x.org",
    ):
        with pytest.raises(ValueError):
            proxy.read_rule(wrong)


def test_only_public_addresses_are_anybodys() -> None:
    for public in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"):
        assert proxy.is_public(public), public
    for own in (
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "ff02::1",
        "fec0::1",
        "2001:0:7f00:1::",
        "192.0.2.1",
        "198.18.0.1",
    ):
        assert not proxy.is_public(own), own


def test_a_name_that_leads_into_the_own_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(proxy.Refused, match="not public"):
        asyncio.run(proxy.addresses([proxy.read_rule("localhost")], "localhost", 80))
    answers = [[(2, 1, 6, "", ("93.184.215.14", 80)), (2, 1, 6, "", ("127.0.0.1", 80))]]

    async def found(*_: Any, **__: Any) -> Any:
        return answers[0]

    async def asked() -> list[str]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        return await proxy.addresses([proxy.read_rule("evil.org")], "EVIL.org.", 80)

    with pytest.raises(proxy.Refused, match="not public"):  # one good answer of two does not do
        asyncio.run(asked())
    answers[0] = answers[0][:1]
    assert asyncio.run(asked()) == ["93.184.215.14"]


@pytest.fixture
def running(site: Any) -> Iterator[tuple[int, Any]]:
    """A proxy on a port of its own that lets `site` through."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-I", proxy.__file__, f"shop.lab={_at(site)}"],
            stdin=listening.fileno(),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        yield listening.getsockname()[1], process
    process.kill()
    process.stdout.close()
    process.wait()


def _asked(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while more := connection.recv(1 << 16):
            found += more
        return found


def test_a_request_reaches_the_host_it_was_checked_for_and_no_other(
    running: tuple[int, Any], site: Any, other: Any
) -> None:
    port, _ = running
    there = f"shop.lab:{site.server_address[1]}"
    found = _asked(
        port,
        f"GET http://{there}/terms HTTP/1.1\r\nHost: evil\r\nProxy-Authorization: "
        "x\r\n\r\n".encode(),
    )
    assert b"Ask for Ann Marie" in found
    second = f"GET http://{_at(other)}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    _asked(port, f"GET http://{there}/terms HTTP/1.1\r\nHost: x\r\n\r\n".encode() + second)
    tunnelled = _asked(
        port, f"CONNECT {there} HTTP/1.1\r\n\r\nGET /terms HTTP/1.0\r\n\r\n".encode()
    )
    assert tunnelled.startswith(b"HTTP/1.1 200 ") and b"Ann Marie" in tunnelled
    for refused in (
        second,
        f"CONNECT {_at(other)} HTTP/1.1\r\n\r\n".encode(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET http://{there}@{_at(other)}/ HTTP/1.1\r\n\r\n".encode(),
        f"GET http://{_at(other)}\\@{there}/ HTTP/1.1\r\n\r\n".encode(),
        f"GET ftp://{there}/ HTTP/1.1\r\n\r\n".encode(),
        b"CONNECT shop.lab HTTP/1.1\r\n\r\n",
        f"GET http://{there}/ HTTP/1.1\r\nA: b\rHost: c\r\n\r\n".encode(),
        f"GET http://{there}/a b HTTP/1.1\r\n\r\n".encode(),
        b"\x16\x03\x01\r\n\r\n",
    ):
        assert _asked(port, refused).startswith(b"HTTP/1.1 403 "), refused
    assert other.asked == []


def test_no_bytes_bring_the_proxy_down(running: tuple[int, Any], site: Any, other: Any) -> None:
    port, process = running
    rng = random.Random(0)
    address = f"http://shop.lab:{site.server_address[1]}/terms"
    good = f"GET {address} HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n".encode()
    wrong = f"CONNECT {_at(other)} HTTP/1.1\r\n\r\n".encode()
    for _ in range(2000):
        text = bytearray(rng.choice([good, wrong]))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(3)] = rng.choice(
                [b"\r\n", b"\0", b" ", b"@", b":", b"/", b"\xff", b"%", b"", b"[", rng.randbytes(3)]
            )
        with suppress(ValueError):
            proxy.read_head(bytes(text).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        if rng.random() < 0.1:
            _asked(port, bytes(text))
    assert process.poll() is None and other.asked == []
    assert b"Ann Marie" in _asked(port, good)
