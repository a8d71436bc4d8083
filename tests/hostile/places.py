"""Every place that the product starts, opened as its world does it, and ways to look into it from
within and without."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from envs.sandbox import confine
from envs.sandbox.limits import tree
from experience.errors import EnvironmentFailure


@contextmanager
def coqtop() -> Iterator[None]:
    from envs.proof.coq.coqtop import Coqtop

    with contextlib.closing(Coqtop()):
        yield


@contextmanager
def program() -> Iterator[None]:
    """As coqc, metamath and Lean have it."""
    with running(confine.start(["sleep", "600"], pipes=PIPES)):
        yield


@contextmanager
def repo() -> Iterator[None]:
    from envs.code_execution.repo.package import source, tested

    text = "\n".join(source("euler")) + "\nimport time\ntime.sleep(11)\n"

    def run() -> None:
        with contextlib.suppress(EnvironmentFailure):
            tested("euler", text)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until = time.monotonic() + 300
    while not any(b"pytest" in command_line(pid) for pid in inside()) and time.monotonic() < until:
        time.sleep(0.05)
    yield
    for pid in inside():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    thread.join()
    tested.cache_clear()


@contextmanager
def wiki() -> Iterator[None]:
    """Its place, whether or not MediaWiki and PHP are there."""
    from envs.browser.mediawiki import Site

    with (
        confine.folder("xp-wiki-") as compiled,
        contextlib.closing(Site(Path(compiled))) as site,
        running(
            confine.start(
                ["sleep", "600"], environment={"XP_CLOCK": "1"}, pipes=PIPES, **site.place()
            )
        ),
    ):
        yield


@contextmanager
def desktop() -> Iterator[None]:
    from envs.desktop.desktop import Desktop

    with contextlib.closing(Desktop({"note.txt": b"hello"})) as made:
        made.launch("lxterminal", "LXTerminal")
        yield


@contextmanager
def office() -> Iterator[None]:
    from envs.desktop.office.document_judge import Judge
    from envs.desktop.office.documents import letter
    from envs.desktop.programs import programs

    programs()
    with contextlib.closing(Judge()) as judge:
        assert judge.paragraphs(letter(["well"])) == ["well"]
        yield


@contextmanager
def browser() -> Iterator[None]:
    from envs.browser.chrome.chromium import Chromium

    chromium = Chromium()
    chromium.wait(chromium.open_file("about:blank", 200, 200))
    yield
    chromium.close()


@contextmanager
def fast_browser() -> Iterator[None]:
    from envs.browser.chrome.devtools import Devtools
    from envs.browser.chrome.page import Page

    with contextlib.closing(Devtools()) as devtools:
        Page(devtools, 200, 200)
        yield


@contextmanager
def proxy() -> Iterator[None]:
    from envs.browser.chrome.chromium import Chromium

    chromium = Chromium(hosts=["example.org"])
    yield
    chromium.close()


Started = TypeVar("Started", bound="subprocess.Popen[bytes]")
PLACES: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "a program of others": program,
    "coqtop": coqtop,
    "repo": repo,
    "wiki": wiki,
    "desktop": desktop,
    "office": office,
    "browser": browser,
    "fast browser": fast_browser,
    "proxy": proxy,
}
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


@contextmanager
def running(process: Started) -> Iterator[Started]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def inside() -> list[int]:
    """The processes below this one that are in a place."""
    ours = os.stat("/proc/self/ns/pid").st_ino
    found = []
    for pid in tree(os.getpid())[1:]:
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/pid").st_ino != ours:
                found.append(pid)
    return found


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def first_inside(name: str) -> int:
    """A process of the place, not one in a place that it has made within."""
    mark = {
        "proxy": b"/proxy.py",
        "browser": b"--remote-debugging-pipe",
        "fast browser": b"--remote-debugging-pipe",
    }
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for pid in inside():
            words = command_line(pid)
            if (
                words
                and mark.get(name, b"") in words
                and not {b"bwrap", b"prlimit"}
                & {os.path.basename(w) for w in words.split(b"\0")[:1]}
            ):
                return pid
        time.sleep(0.02)
    raise AssertionError(f"nothing runs in the place of {name}")


def from_within(pid: int, code: str, seconds: float = 300) -> str:
    """What a program prints that joins the place of `pid` as another of its processes."""
    uid = str(os.stat(f"/proc/{pid}").st_uid)
    inner = next(
        line.split()[0]
        for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()
        if line.split()[1] == uid
    )
    done = subprocess.run(
        [
            "nsenter",
            f"--target={pid}",
            "--user",
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--uts",
            f"--setuid={inner}",
            f"--setgid={inner}",
            "/usr/bin/python3",
            "-I",
            "-c",
            code,
        ],
        env={},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def sandboxed() -> list[tuple[bool, bool]]:
    """For each renderer: whether it has a system-call filter, and namespaces that are not the
    browser's."""
    browser = next(
        p
        for p in inside()
        if b"--remote-debugging-pipe" in command_line(p)
        and b"type=" not in command_line(p)
        and b"/chromium/" in command_line(p).split(b" ")[0].split(b"\0")[0]
    )
    renderers = [p for p in inside() if b"--type=renderer" in command_line(p)]
    return [
        (
            "Seccomp:\t2" in Path(f"/proc/{p}/status").read_text(),
            all(
                os.readlink(f"/proc/{p}/ns/{n}") != os.readlink(f"/proc/{browser}/ns/{n}")
                for n in ("user", "pid", "net")
            ),
        )
        for p in renderers
    ]


def eventually_sandboxed() -> bool:
    """A renderer that has just been made takes its filter a moment later."""
    for _ in range(100):
        if (found := sandboxed()) and all(a and b for a, b in found):
            return True
        time.sleep(0.05)
    return False
