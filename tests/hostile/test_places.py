"""Every place: what programs of others and agents' code find there of the host, and what they can
use up of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envs.sandbox import confine
from envs.sandbox.cage import Sandbox, probe
from envs.sandbox.limits import tree
from envs.sandbox.tiers import TIERS
from experience.errors import IsolationError, MissingPartError
from tests.hostile.places import PLACES, command_line, first_inside, from_within, inside, running

ROOT = Path(__file__).resolve().parents[2]
SECRET = "planted" + "-" + "secret" + "-91173"
SEARCH = r"""
import os, stat, sys
needle = "-".join(["planted", "secret", "91173"]).encode()
found = []
def look(path, most=1 << 20):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            data = os.pread(descriptor, most, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError:
        return
    if needle in data or needle in os.fsencode(path):
        found.append(path)
def names(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
if any(needle.decode() in n + v for n, v in os.environ.items()):
    found.append("environment")
for pid in filter(str.isdigit, names("/proc")):
    for name in ("environ", "cmdline", "maps", "mountinfo", "mounts", "cgroup", "status"):
        look(f"/proc/{pid}/{name}")
    for n in names(f"/proc/{pid}/fd"):
        look(f"/proc/{pid}/fd/{n}")
        try:
            if needle.decode() in os.readlink(f"/proc/{pid}/fd/{n}"):
                found.append(f"/proc/{pid}/fd/{n} by name")
        except OSError:
            pass
for n in range(64):
    look(f"/dev/fd/{n}")
for top in names("/"):
    if top not in ("usr", "proc", "lib", "lib64", "bin", "sbin", "dev", "sys", "python", "cage"):
        for at, _, files in os.walk("/" + top):
            for name in files:
                look(os.path.join(at, name))
for name in names("/dev/shm"):
    look("/dev/shm/" + name)
print("found", sorted(set(found)), "of", len(names("/proc")))
"""


@contextmanager
def opened(name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(PLACES[name]())
        except (MissingPartError, IsolationError) as missing:
            pytest.skip(str(missing))
        yield


def held(pid: int) -> list[str]:
    """Where the secret is in a process as the host sees it: environment, words, stack and heap."""
    found = [
        name
        for name in ("environ", "cmdline")
        if SECRET.encode() in Path(f"/proc/{pid}/{name}").read_bytes()
    ]
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.endswith(("[stack]", "[heap]")):
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                memory.seek(start)
                if SECRET.encode() in memory.read(end - start):
                    found.append(line.split()[-1])
    return found


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """Secrets in this process's environment, in the name of its temporary folder, and in a
    descriptor left open."""
    monkeypatch.setenv("XP_TEST_API_KEY", SECRET)
    folder = tmp_path / SECRET
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (folder / "key").write_text(SECRET)
    descriptor = os.open(folder / "key", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    yield descriptor
    os.close(descriptor)


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nsenter") is None, reason="joins places as root"
)


@needs_root
@pytest.mark.parametrize("name", PLACES)
def test_a_place_holds_nothing_of_the_hosts_environment(name: str, planted: None) -> None:
    with opened(name):
        told = from_within(first_inside(name), SEARCH)
        assert told.startswith("found [] of"), told
        assert int(told.split()[-1]) > 10, "it has looked through a /proc"
        for pid in inside():
            assert not held(pid), command_line(pid)


@needs_root
def test_the_search_finds_what_is_given_to_a_place(planted: int) -> None:
    """The control: bubblewrap with the host's environment, as it was once started here."""
    with tempfile.TemporaryFile() as words:
        words.write(confine.packed(confine.bwrap_arguments()))
        words.seek(0)
        with running(
            subprocess.Popen(
                [*confine.entry(words.fileno()), "sleep", "600"], pass_fds=(words.fileno(), planted)
            )
        ):
            told = from_within(first_inside(""), SEARCH)
            assert "/proc/1/environ" in told and "/fd/" in told, told
            assert any({"environ", "[stack]"} <= set(held(pid)) for pid in inside())


@pytest.mark.parametrize("tier", TIERS[1:])
def test_a_cage_holds_nothing_of_the_hosts_environment(tier: str, planted: None) -> None:
    if (why := probe(tier)) is not None:
        pytest.skip(f"this machine has no tier {tier}: {why}")
    with Sandbox(tier=tier) as cage:
        told = cage.run(SEARCH, wall_seconds=20, cpu_seconds=20)
        assert told.stdout.startswith("found [] of"), told
        if os.geteuid() == 0:
            for pid in tree(os.getpid())[1:]:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    # gVisor's own processes, which the cage does not see, are told where its root
                    # is
                    assert not set(held(pid)) & (
                        {"environ"}
                        if tier == "gvisor"
                        else {"environ", "cmdline", "[stack]", "[heap]"}
                    )


def test_a_place_that_cannot_be_started_gives_no_verdict() -> None:
    """In a user namespace of one account no place drops its rights. What setpriv said of it was
    taken for Metamath's refusal: a right proof earned nothing, in silence."""
    program = (
        "from envs.sandbox import confine\nfrom experience.errors import EnvironmentFailure\n"
        "try: print(confine.run(['true'], seconds=60))\n"
        "except EnvironmentFailure as error: print('no verdict:', error)"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", sys.executable, "-c", program],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        env={"PATH": os.environ["PATH"]},
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no user namespace can be made here: {done.stderr}")
    assert done.stdout.startswith("no verdict: no place for true could be started: setpriv"), done
