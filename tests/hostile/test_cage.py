"""The cage: hostile programs reach nothing. Each has a control that must succeed where its layer is off."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from envs.sandbox.cage import Sandbox

SAFE = "kept in"
# name: a program that prints "escaped" if it reaches what it must not
HOSTILE = {
    "reads the shadow file": "open('/etc/shadow').read(); print('escaped')",
    "reads another process": "open('/proc/self/environ').read(); print('escaped')",
    "lists the home": "import os; os.listdir('/root'); print('escaped')",
    "writes the root": "open('/owned', 'w').write('x'); print('escaped')",
    "writes a library": "open('/usr/lib/owned', 'w').write('x'); print('escaped')",
    "forks": "import os; os.fork(); print('escaped')",
    "forks by clone": "import ctypes; print('escaped' if ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0 else '')",
    "executes": "import os; os.execv('/python/bin/python3', ['x', '-c', 'print(1)']); print('escaped')",
    "opens a socket": "import socket; socket.socket(); print('escaped')",
    "opens a unix socket": "import socket; socket.socket(socket.AF_UNIX); print('escaped')",
    "opens a netlink socket": "import socket; socket.socket(socket.AF_NETLINK, 3); print('escaped')",
    "opens vsock": "import socket; socket.socket(40, 1); print('escaped')",
    "kills its keeper": "import os; os.kill(os.getppid(), 0); print('escaped')",
    "kills everything": "import os; os.kill(-1, 0); print('escaped')",
    "traces": "import ctypes; r = ctypes.CDLL(None).ptrace(0, 0, 0, 0); print('escaped' if r == 0 else '')",
    "makes a namespace": "import ctypes; print('escaped' if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    "takes a key": "import ctypes; r = ctypes.CDLL(None).syscall(250, 0, -3, 1); print('escaped' if r > 0 else '')",
    "makes a memfd": "import os; os.memfd_create('x'); print('escaped')",
    "chroots": "import os; os.chroot('/usr'); print('escaped')",
    "becomes root": "import os; os.setuid(0); print('escaped')",
    "changes personality": "import ctypes; print('escaped' if ctypes.CDLL(None).personality(0x40000) >= 0 else '')",
    "faults by hand": "import ctypes; r = ctypes.CDLL(None).syscall(323, 0); print('escaped' if r >= 0 else '')",
    "starts a thread": "import threading; threading.Thread(target=lambda: print('escaped')).start()",
    "shares memory": "import ctypes; r = ctypes.CDLL(None).shmget(1, 4096, 0o1666); print('escaped' if r >= 0 else '')",
    "raises its limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('escaped')",
    "inherits a descriptor": "import os\nfor n in range(4, 64):\n try: os.fstat(n); print('escaped')\n except OSError: pass",
    "reads an environment": "import os; print('escaped' if os.environ else '')",
}
FILTERED_ONLY = ["forks", "opens a unix socket", "opens a netlink socket", "changes personality", "makes a memfd",
                 "traces", "shares memory", "kills its keeper", "starts a thread"]
OUTSIDE = ["reads another process", "lists the home", "forks", "opens a socket", "executes", "reads an environment",
           "kills its keeper", "reads the shadow file", "makes a memfd"]


@pytest.fixture(scope="module")
def cage() -> Sandbox:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_kept_in(name: str, cage: Sandbox) -> None:
    outcome = cage.run(HOSTILE[name])
    assert "escaped" not in outcome.stdout, outcome
    assert cage.run("print('alive')").stdout == "alive\n"


@pytest.mark.parametrize("name", FILTERED_ONLY)
def test_without_the_system_call_filter_it_gets_out(name: str) -> None:
    with Sandbox(filtered=False) as open_cage:
        assert "escaped" in open_cage.run(HOSTILE[name]).stdout


def test_without_the_system_call_filter_there_is_still_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2); print('escaped')"
        outside = subprocess.run([sys.executable, "-c", connect], capture_output=True, text=True, timeout=20)
        assert "escaped" in outside.stdout
        with Sandbox(filtered=False) as open_cage:
            assert "escaped" not in open_cage.run(connect).stdout


@pytest.mark.parametrize("name", OUTSIDE)
def test_without_any_cage_it_gets_out(name: str) -> None:
    if name in ("reads the shadow file", "lists the home") and os.geteuid() != 0:
        pytest.skip("needs root outside too")
    program = HOSTILE[name].replace("print(1)", "print(\\'escaped\\')").replace("/python/bin/python3", sys.executable)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert "escaped" in done.stdout, done


@pytest.mark.parametrize(("program", "ending"), [
    ("while True: pass", "timeout"), ("import time; time.sleep(60)", "timeout"),
    ("import signal, time\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except OSError: pass\n"
     "while True: pass", "timeout")])
def test_a_program_that_will_not_end_is_ended(program: str, ending: str, cage: Sandbox) -> None:
    assert cage.run(program, wall_seconds=0.5).ending == ending


def test_a_flood_of_output_is_cut(cage: Sandbox) -> None:
    assert len(cage.run("print('x' * 10_000_000)").stdout) <= 1 << 16


def test_a_memory_bomb_fails_inside(cage: Sandbox) -> None:
    outcome = cage.run("x = 'a' * 10**11")
    assert outcome.answers[0][0] == "error"
    assert "MemoryError" in outcome.answers[0][1]


def test_a_run_finds_no_trace_of_the_run_before(cage: Sandbox) -> None:
    cage.run("secret = 'the-hidden-input-' + '91173'", calls=[["the-hidden-argument-91173"]])
    search = ("import gc\nneedle = ''.join(['hidden', '-argu', 'ment'])\nfound = [o for o in gc.get_objects() for s in ([o] if isinstance(o, str) else "
              "list(o.values()) if isinstance(o, dict) else list(o) if isinstance(o, (list, tuple)) else [])\n"
              "         if isinstance(s, str) and needle in s and s is not needle]\nprint(len(found))")
    assert cage.run(search).stdout.strip() == "0"


@pytest.mark.parametrize("forged", ["[" * 5000, "null", "{}", "[1]", "[[1,2,3]]", "\\xff\\xfe", "[[\"value\"]]"])
def test_a_forged_result_is_no_answer(forged: str, cage: Sandbox) -> None:
    outcome = cage.run(f"import os; os.write(3, b'''{forged}'''); os._exit(0)", calls=[[1]])
    assert outcome.answers == ()


def test_nothing_of_the_host_changes(cage: Sandbox) -> None:
    before = set(os.listdir("/")), set(os.listdir("/tmp"))
    for program in HOSTILE.values():
        cage.run(program)
    assert (set(os.listdir("/")), {n for n in os.listdir("/tmp") if "owned" in n}) == (before[0], set())
