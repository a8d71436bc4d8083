"""No place and no page reaches what listens on this machine: Ray's ports, or any other.

Each has a control outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from envs.sandbox.cage import Sandbox, probe
from envs.sandbox.limits import tree
from envs.sandbox.tiers import TIERS
from experience.errors import MissingPartError
from tests.hostile.places import PLACES, first_inside, from_within
from tests.hostile.test_places import needs_root, opened

KNOCK = """
import socket
reached = []
for host in {hosts!r}:
    for port in {ports!r}:
        try:
            socket.create_connection((host, port), 2).close()
            reached.append((host, port))
        except OSError:
            pass
for path in {paths!r}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.connect(path)
            reached.append(path)
        except OSError:
            pass
print("reached", len(reached))
"""
PAGE = """async () => {
  const reached = [];
  for (const host of %s) for (const port of %s) {
    const place = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    await fetch(`http://${place}/`, {mode: "no-cors"}).then(() => reached.push(place), () => 0);
    await new Promise(done => {
      const one = new Image(); one.onload = () => { reached.push(place); done(); }; one.onerror = done;
      one.src = `http://${place}/x.png`; setTimeout(done, 1000);
    });
    await new Promise(done => {
      try {
        const one = new WebSocket(`ws://${place}/`); one.onopen = () => { reached.push(place); done(); };
        one.onerror = one.onclose = done; setTimeout(done, 1000);
      } catch (e) { done(); }
    });
  }
  return reached.length;
}"""


def addresses() -> list[str]:
    """Loopback and what others know this machine by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, contextlib.suppress(OSError):
        one.connect(("192.0.2.1", 9))
        return ["127.0.0.1", "::1", "0.0.0.0", one.getsockname()[0]]
    return ["127.0.0.1", "::1", "0.0.0.0"]


class Listening:
    """Servers on all interfaces and local sockets that count who comes; they answer as an HTTP
    server does."""

    def __init__(self, servers: Sequence[socket.socket], paths: Sequence[str]) -> None:
        self.hosts, self.paths, self.came = addresses(), list(paths), 0
        self.ports = [s.getsockname()[1] for s in servers if s.family != socket.AF_UNIX]
        for server in servers:
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()

    @property
    def settled(self) -> int:
        """How many came, when all who have connected are counted: for half a second, none came."""
        came = -1
        while came != self.came:
            came = self.came
            time.sleep(0.5)
        return came

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = server.accept()
                self.came += 1
                one.settimeout(2)
                with one, contextlib.suppress(OSError):
                    one.recv(4096)
                    one.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
                    )


@contextmanager
def one_at_a_time() -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / f"xp-test-ports-{os.getuid()}", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@pytest.fixture
def listening() -> Iterator[Listening]:
    abstract = f"\0xp-test-{uuid.uuid4().hex}"  # a thread may still hold the last one
    # Two test processes would knock at each other's doors: one listens at a time.
    with (
        one_at_a_time(),
        socket.create_server(("0.0.0.0", 0)) as v4,
        socket.create_server(("::", 0), family=socket.AF_INET6) as v6,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(abstract)
        local.listen()
        yield Listening([v4, v6, local], [abstract])
        for server in (v4, v6, local):
            server.shutdown(socket.SHUT_RDWR)  # its thread waits for somebody


def knock(ports: Sequence[int], paths: Sequence[str] = ()) -> str:
    return KNOCK.format(hosts=addresses(), ports=list(ports), paths=list(paths))


def reaches(code: str) -> int:
    """How much a program reaches from outside any place: the control."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={},
        check=True,
    )
    return int(done.stdout.split()[1])


def kept_in(name: str, code: str) -> None:
    with opened(name):
        assert from_within(first_inside(name), code) == "reached 0\n"


CLOSED = [name for name in PLACES if name != "proxy"]
"""The proxy has the machine's network, and runs our own program only: see the page behind it below.
"""


@needs_root
@pytest.mark.parametrize("name", ["a program of others", "fast browser"])
def test_a_program_in_a_place_reaches_no_port_of_this_machine(
    name: str, listening: Listening
) -> None:
    code = knock(listening.ports, listening.paths)
    assert reaches(code) >= 4
    came = listening.settled
    kept_in(name, code)
    assert listening.settled == came


@pytest.mark.long
@needs_root
@pytest.mark.parametrize("name", CLOSED)
def test_no_place_reaches_a_port_of_this_machine(name: str, listening: Listening) -> None:
    came = listening.came
    kept_in(name, knock(listening.ports, listening.paths))
    assert listening.came == came


@pytest.mark.parametrize("tier", TIERS[1:])
def test_no_cage_reaches_a_port_of_this_machine(tier: str, listening: Listening) -> None:
    if (why := probe(tier)) is not None:
        pytest.skip(f"this machine has no tier {tier}: {why}")
    with Sandbox(tier=tier) as cage:
        assert (
            cage.run(knock(listening.ports, listening.paths), wall_seconds=30).stdout
            == "reached 0\n"
        )
    assert listening.came == 0


def test_a_page_reaches_no_port_of_this_machine(listening: Listening) -> None:
    """Behind Playwright's routes, without them, and behind the proxy with its list of hosts."""
    from envs.browser.chrome.chromium import Chromium
    from envs.browser.chrome.routing import Reply

    script = PAGE % (listening.hosts, listening.ports)
    for hosts in ((), ("example.org",)):
        try:
            browser = Chromium(hosts=hosts)
        except MissingPartError as missing:
            pytest.skip(str(missing))
        try:
            page, _ = browser.wait(browser.open_file("about:blank", 200, 200))
            if not hosts:
                assert browser.wait(page.evaluate(script), 60) == 0
                tab = browser.wait(
                    browser.open(
                        "http://site.test", lambda _: Reply(200, "text/html", b"<p>hello</p>")
                    )
                )
                page = tab.page
                assert browser.wait(page.evaluate(script), 60) == 0
            else:
                browser.wait(
                    page.evaluate(script), 60
                )  # the proxy answers each request with a refusal of its own
        finally:
            browser.close()
    assert listening.came == 0


def test_a_browser_without_a_place_reaches_them(listening: Listening, tmp_path: Path) -> None:
    """The control of the page."""
    shell = shutil.which("chromium-headless-shell")
    if shell is None:
        pytest.skip("apt-get install chromium-headless-shell")
    (tmp_path / "page.html").write_text(
        f"<script>({PAGE % (['127.0.0.1'], listening.ports[:1])})()</script>"
    )
    words = [
        shell,
        "--headless",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        f"--user-data-dir={tmp_path}/profile",
    ]
    subprocess.run(
        [*words, f"file://{tmp_path}/page.html"],
        capture_output=True,
        timeout=300,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert listening.came > 0


# ── the real Ray


@contextmanager
def ray_ports() -> Iterator[tuple[list[int], list[str]]]:
    """(TCP ports, local sockets) of a small Ray of our own."""
    import ray

    before = set(listening_ports(tree(os.getpid())))
    told = ray.init(num_cpus=1, include_dashboard=True, ignore_reinit_error=False)
    try:
        time.sleep(2)
        head = [
            int(p) for p in os.listdir("/proc") if p.isdigit() and b"session_" in command(int(p))
        ]
        session = str(told["session_dir"])
        sockets = [str(p) for p in Path(session, "sockets").glob("*")]
        yield sorted(set(listening_ports([*head, *tree(os.getpid())])) - before), sockets
    finally:
        ray.shutdown()


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def listening_ports(pids: Sequence[int]) -> list[int]:
    """The TCP ports on which one of these processes listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(int(fields[1].rpartition(":")[2], 16))
    return found


@pytest.mark.long
@needs_root
def test_nothing_reaches_the_real_ray() -> None:
    with ray_ports() as (ports, sockets):
        assert len(ports) >= 5, "it listens"
        code = knock(ports, sockets)
        assert reaches(code) >= len(ports)
        for name in CLOSED:
            with contextlib.suppress(pytest.skip.Exception):
                kept_in(name, code)
        for tier in TIERS[1:]:
            if probe(tier) is None:
                with Sandbox(tier=tier) as cage:
                    assert cage.run(code, wall_seconds=60).stdout == "reached 0\n", tier
        from envs.browser.chrome.chromium import Chromium

        browser = Chromium()
        try:
            page, _ = browser.wait(browser.open_file("about:blank", 200, 200))
            assert browser.wait(page.evaluate(PAGE % (addresses(), ports)), 300) == 0
        finally:
            browser.close()
