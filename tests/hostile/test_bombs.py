"""Bombs in every place: the place ends at its limits, its neighbours and the host go on, and
nothing is left over."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envs.sandbox import cgroups, confine
from envs.sandbox.cage import Sandbox, probe
from envs.sandbox.limits import BROWSER, DESKTOP, MIB, Limits
from experience.errors import EnvironmentFailure, MissingPartError
from tests.hostile.places import PIPES, first_inside, inside, running

BOMBS = {
    "processes": "import os, time\ncount = 0\ntry:\n    while count < 20000:\n        if "
    "os.fork() == 0: time.sleep(3600)\n        count += 1\n"
    "except OSError: pass\nprint('used', count, flush=True)\nos.kill(-1, 9)",
    "threads": "import threading, time\ncount = 0\ntry:\n    while count < 20000:\n        "
    "threading.Thread(target=time.sleep, args=(3600,), "
    "daemon=True).start(); count += 1\nexcept RuntimeError: pass\nprint('used', count, "
    "flush=True)\nimport os; os._exit(0)",
    "descriptors": "import os\ncount = 0\ntry:\n    while count < 10**6: os.dup(1); count += "
    "1\nexcept OSError: pass\nprint('used', count)",
    "memory": "kept = []\nfor n in range(20000):\n    kept.append(bytearray(b'x') * (1 << "
    "20))\n    print('used', n + 1, flush=True)",
    "memory of many": "import os, time\nhas, tells = os.pipe()\nos.set_blocking(has, "
    "False)\nchildren = []\nfor n in range(16):\n"
    "    pid = os.fork()\n    if pid == 0:\n        kept = bytearray(b'x') * (600 << 20)\n"
    "        os.write(tells, bytes([n]))\n        time.sleep(3600)\n    children.append(pid)\n"
    "time.sleep(5)\ntry: full = os.read(has, 99)\nexcept BlockingIOError: full = b''\n"
    "print('used', 600 * sum(os.waitpid(children[n], os.WNOHANG)[0] == 0 for n in full), "
    "flush=True)",
    "memory without a "
    "name": "import os\nkept = []\nfor n in range(20000):\n    d = os.memfd_create('x'); "
    "os.write(d, b'x' * (1 << 20)); kept.append(d) if n % 900 else None\n"
    "    print('used', n + 1, flush=True)",
    "disk": "import os\ncount = 0\nfor top in ('/tmp', '/home', '/dev/shm', '/', '/dev', "
    "'/etc', '/run', '/var/tmp', '/dev/mqueue', '/data', '/compiled'):\n"
    "    try:\n        with open(top + '/full', 'wb', buffering=0) as file:\n            while "
    "count < 20000: file.write(b'x' * (1 << 20)); count += 1; print('used', count, flush=True)\n"
    "    except OSError: pass\nprint('used', count)",
    "files": "import os\ncount = 0\nfor top in ('/tmp', '/home', '/dev/shm', '/', '/dev', "
    "'/data'):\n    try:\n        while count < 5 * 10**6:\n"
    "            os.close(os.open(f'{top}/{count}', os.O_CREAT | os.O_WRONLY)); count += 1\n   "
    "         if count % 1000 == 0: print('used', count, flush=True)\n"
    "    except OSError: pass\nprint('used', count)",
}
"""Each uses up one thing as far as it can, and prints how much it got; sizes in MiB."""


def most(bomb: str, limits: Limits) -> int:
    """What a bomb may get: memory and disk end at the place's memory; without groups a watch looks
    at it now and then, on a busy machine seldom, and a bomb may have taken some more by then."""
    held = (limits.memory_bytes >> 20) + (0 if cgroups.homes() else 256)
    return {
        "processes": limits.processes,
        "threads": limits.processes,
        "descriptors": limits.files,
        "memory": held,
        "memory of many": held,
        "memory without a name": held,
        "disk": held + (limits.folder_bytes >> 20),
        "files": limits.inodes + 200_000,
    }[bomb]


@contextmanager
def neighbour() -> Iterator[Callable[[], list[float]]]:
    """A cage that answers all the while: gives how long its answers took so far, in seconds."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with Sandbox(
            tier=next(t for t in ("namespaces", "landlock", "none") if probe(t) is None)
        ) as cage:
            while not over.is_set():
                started = time.monotonic()
                assert cage.run("print('alive')", wall_seconds=20).stdout == "alive\n"
                took.append(time.monotonic() - started)
                over.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: list(took)
    finally:
        over.set()
        thread.join(60)


def left_over() -> list[str]:
    """Groups and processes of places that this process has started."""
    groups = [str(g) for home in cgroups.homes() for g in home.path.glob(f"*-{os.getpid()}-*")]
    return groups + [f"process {pid}" for pid in inside()]


def explode(bomb: str, limits: Limits, **where: Any) -> tuple[int, int]:
    """(how the place ended, how much it got) of a bomb in such a place, which a neighbour outlives."""
    before = left_over()
    with neighbour() as answers:
        process = confine.start(
            ["/usr/bin/python3", "-I", "-c", BOMBS[bomb]], limits=limits, pipes=PIPES, **where
        )
        try:
            output, _ = process.communicate(b"", timeout=300)
        finally:
            process.kill()
            process.communicate()
        while not answers():
            time.sleep(0.05)
        assert max(answers()) < 20, "the neighbour answered"
    assert left_over() == before
    used = re.findall(rb"^used (\d+)$", output, re.MULTILINE)
    return process.returncode, int(used[-1]) if used else 0


SMALL = Limits(
    memory_bytes=192 * MIB,
    processes=40,
    files=100,
    tmp_bytes=32 * MIB,
    inodes=20_000,
    folder_bytes=32 * MIB,
)


@pytest.mark.parametrize("bomb", ["processes", "descriptors", "memory", "disk"])
def test_a_bomb_ends_at_the_limits_of_its_place(bomb: str) -> None:
    ended, used = explode(bomb, SMALL)
    assert 0 < used <= most(bomb, SMALL)
    assert ended != 0 or bomb not in ("memory", "memory of many"), (
        "and is no program that went well"
    )


def test_a_fork_of_this_process_ends_no_place_of_it() -> None:
    with running(confine.start(["sleep", "600"], limits=SMALL, pipes=PIPES)) as place:
        first_inside("")
        if (child := os.fork()) == 0:
            place.bounds.close()
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.2)
        assert place.poll() is None


@pytest.mark.parametrize("bomb", ["processes", "descriptors"])
def test_the_bombs_go_on_where_limits_are_wide(bomb: str) -> None:
    """The control."""
    wide = Limits(processes=400, files=5000)
    assert explode(bomb, wide)[1] > most(bomb, SMALL)


# As each kind of place is started: its limits, and what its programs are given.
KINDS: dict[str, tuple[Limits, dict[str, Any]]] = {
    "a program of others": (Limits(), {}),
    "proxy": (Limits(), {"network": True}),
    "wiki": (Limits(), {"writable": "/data"}),
    "desktop": (DESKTOP, {"chdir": "/home"}),
    "browser": (BROWSER, {"filtered": False}),
}


@pytest.mark.long
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_bomb_ends_at_the_limits_of_every_place(kind: str, bomb: str) -> None:
    limits, where = KINDS[kind]
    with confine.folder("xp-bomb-") as folder:
        if "writable" in where:
            where = {"writable": {Path(folder): "/data"}}
        _, used = explode(bomb, limits, **where)
    refused = bomb == "memory without a name" and where.get("filtered", True)
    least = (
        0 if refused or bomb == "memory of many" else 1
    )  # the kernel may end the one that counts first
    assert least <= used <= (0 if refused else most(bomb, limits))


@pytest.mark.long
@pytest.mark.parametrize("bomb", ["processes", "memory of many", "disk"])
def test_a_bomb_in_a_terminal_ends_no_other_desktop(bomb: str) -> None:
    from envs.desktop.desktop import Desktop

    try:
        bombed, other = Desktop({"bomb.py": BOMBS[bomb].encode()}), Desktop({})
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with contextlib.closing(bombed), contextlib.closing(other):
        bombed.run("python3 /home/bomb.py")
        time.sleep(8)
        other.launch("mousepad", "Mousepad")
        assert len(other.window_manager.windows()) == 1


@pytest.mark.long
def test_a_package_whose_code_fills_memory_is_no_verdict() -> None:
    from envs.code_execution.repo.package import source, tested

    text = "\n".join(source("euler")) + "\n" + BOMBS["memory"] + "\n"
    with pytest.raises(EnvironmentFailure, match="could not be run"):
        tested("euler", text)


@pytest.mark.long
def test_a_page_that_fills_memory_ends_its_browser_and_no_other() -> None:
    from envs.browser.chrome.devtools import Devtools
    from envs.browser.chrome.page import Page

    script = (
        "const kept = []; for (;;) { const a = new Uint8Array(1 << 28); a.fill(7); kept.push(a); }"
    )
    try:
        bombed, other = Devtools(), Devtools()
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with contextlib.closing(bombed), contextlib.closing(other):
        page, beside = Page(bombed, 200, 200), Page(other, 200, 200)
        with contextlib.suppress(EnvironmentFailure):
            page.session.send("Runtime.evaluate", expression=script)
        assert beside.session.send("Runtime.evaluate", expression="6 * 7")["result"]["value"] == 42


NOT_ROOTS = (
    "processes",
    "threads",
    "descriptors",
    "memory",
    "memory of many",
    "memory without a name",
    "disk",
    "files",
)
NOT_ROOT = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from envs.sandbox import cgroups, confine
from envs.sandbox.limits import Limits
limits = Limits(memory_bytes=192 << 20, processes=40, files=100, tmp_bytes=32 << 20, inodes=20_000)
told = {}
for name, bomb in json.load(open(sys.argv[1] + "/bombs.json")).items():
    process = confine.start(["/usr/bin/python3", "-I", "-c", bomb], limits=limits, pipes={
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT})
    output, _ = process.communicate(timeout=300)
    used = [int(line.split()[1]) for line in output.decode().splitlines() if line.startswith("used ")]
    told[name] = (process.returncode, max(used, default=0), process.bounds.broken)
print(json.dumps(told))
"""


def test_without_root_bombs_end_at_the_limits_too() -> None:
    """There are no groups for a user as a rule: what holds is rlimits, and the watch over memory
    and files."""
    if (
        os.geteuid() != 0
        or shutil.which("setpriv") is None
        or not Path("/usr/bin/python3").exists()
    ):
        pytest.skip("needs root, to give it up, and a system Python")
    root = Path(__file__).resolve().parents[2]
    home = Path(f"/tmp/xp-nonroot-{os.getpid()}-bombs")
    shutil.copytree(root / "envs/sandbox", home / "envs/sandbox")
    (home / "experience").mkdir()
    shutil.copy(root / "experience/errors.py", home / "experience")
    (home / "bombs.json").write_text(json.dumps({n: BOMBS[n] for n in NOT_ROOTS}))
    try:
        done = subprocess.run(
            [
                "setpriv",
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                NOT_ROOT,
                str(home),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr[-500:]
    told = json.loads(done.stdout)
    for bomb, (ended, used, broken) in told.items():
        beyond = {"memory": 1024, "disk": 1024, "files": 200_000}.get(
            bomb, 0
        )  # between two looks of the watch
        if bomb == "memory of many":
            assert used == 0 and "memory" in broken
        elif bomb == "memory without a name":
            assert used == 0, "there are none"
        else:
            assert 0 < used <= most(bomb, SMALL) + beyond, (bomb, ended, used, broken)
    assert "memory" in told["memory"][2] and "files" in told["files"][2]
