"""The cage: hostile programs reach nothing, in any tier and however it was started.

Each has a control that gets out.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.sandbox.cage import Sandbox, probe, tier
from envs.sandbox.tiers import TIERS
from experience.errors import IsolationError
from tests.hostile.programs import HOSTILE, NOT_HERE, OPEN, READ

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the programs' system calls are x86_64's"
)


@pytest.fixture(scope="module", autouse=True)
def decoy() -> Iterator[None]:
    Path("/tmp/xp-decoy").write_text("a secret")
    yield
    Path("/tmp/xp-decoy").unlink()


CAGES = TIERS[1:]


@pytest.fixture(scope="module", params=CAGES)
def cage(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if (why := probe(request.param)) is not None:
        pytest.skip(f"this machine has no tier {request.param}: {why}")
    with Sandbox(tier=request.param) as sandbox:
        yield sandbox


def test_there_are_more_than_seventy_five_hostile_programs() -> None:
    assert len(HOSTILE) >= 75


def test_every_hostile_program_is_kept_in(cage: Sandbox) -> None:
    before = host()
    escaped = [name for name, program in HOSTILE.items() if "escaped" in cage.run(program).stdout]
    assert not escaped
    assert cage.run("print('alive')").stdout == "alive\n"
    assert host() == before, "and nothing of the host has changed"


def host() -> tuple[set[str], set[str], int]:
    """The names in / and those of ours in /tmp and /dev/shm, and how many mounts there are."""
    ours = {
        n
        for place in ("/tmp", "/dev/shm", "/usr/lib")
        for n in os.listdir(place)
        if n.startswith("xp-owned")
    }
    return set(os.listdir("/")), ours, len(Path("/proc/self/mountinfo").read_text().splitlines())


START = """
import json, sys
sys.path.insert(0, sys.argv[1])
from envs.sandbox.cage import Sandbox
programs = json.load(open(sys.argv[1] + "/programs.json"))
with Sandbox(tier=sys.argv[2]) as cage:
    print(json.dumps([n for n, p in programs.items() if "escaped" in cage.run(p).stdout] + [cage.run("print('alive')").stdout]))
"""


@pytest.mark.parametrize("name", CAGES)
def test_the_same_where_the_cage_is_started_without_root(name: str, tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or shutil.which("setpriv") is None
        or not Path("/usr/bin/python3").exists()
    ):
        pytest.skip("needs root, to give it up, and a system Python")
    home = Path(f"/tmp/xp-nonroot-{os.getpid()}-{name}")
    shutil.copytree(ROOT / "envs/sandbox", home / "envs/sandbox")
    (home / "experience").mkdir()
    shutil.copy(ROOT / "experience/errors.py", home / "experience")
    (home / "programs.json").write_text(json.dumps(HOSTILE))
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
                START,
                str(home),
                name,
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
    assert json.loads(done.stdout) == ["alive\n"]


def mutated(rng: random.Random) -> str:
    """Two programs one after the other, their numbers changed here and there."""
    parts = []
    for program in rng.sample(sorted(HOSTILE.values()), 2):
        changed = re.sub(
            r"\b\d+\b",
            lambda n: str(rng.choice([n[0], n[0], n[0], rng.randrange(600), 0, 2**31 - 1])),
            program,
        )
        parts.append(
            "try:\n"
            + "\n".join("    " + line for line in changed.splitlines())
            + "\nexcept BaseException: pass"
        )
    return "\n".join(parts)


def test_changed_programs_are_kept_in_too(cage: Sandbox, request: pytest.FixtureRequest) -> None:
    """What may be printed there is a claim that a changed check can make; what counts is the host,
    and the zygote."""
    rng, before = random.Random(0), host()
    for _ in range(5000 if request.config.getoption("--long") else 150):
        cage.run(mutated(rng), wall_seconds=0.5)
    assert cage.run("print('alive')").stdout == "alive\n"
    assert host() == before


def test_without_the_system_call_filter_programs_get_out(cage: Sandbox) -> None:
    with Sandbox(tier=cage._tier, filtered=False) as open_cage:
        kept = [name for name in OPEN if "escaped" not in open_cage.run(HOSTILE[name]).stdout]
    allowed = {"signals its keeper"}  # in an own pid namespace there is still somebody to signal
    if cage._tier == "gvisor":  # whose kernel does not have these calls at all
        allowed |= {"changes personality", "opens a process by number", "traces"}
    assert not set(kept) - allowed


def test_without_landlock_programs_read_files() -> None:
    if probe("landlock") is not None:
        pytest.skip("no Landlock here")
    with Sandbox(tier="landlock", closed=False) as open_cage:
        kept = [name for name in READ if "escaped" not in open_cage.run(HOSTILE[name]).stdout]
    assert not kept


def test_without_any_cage_every_program_gets_out() -> None:
    if os.geteuid() != 0:
        pytest.skip("most controls need root")
    with open("/dev/null", "rb") as left_open:
        kept = [
            name
            for name, program in HOSTILE.items()
            if name not in NOT_HERE
            and "escaped"
            not in subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                timeout=300,
                cwd="/",
                pass_fds=[left_open.fileno()],
            ).stdout
        ]
    assert not kept


def test_without_the_system_call_filter_there_is_still_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2); print('escaped')"
        outside = subprocess.run(
            [sys.executable, "-c", connect], capture_output=True, text=True, timeout=300
        )
        assert "escaped" in outside.stdout
        for name in CAGES:
            if probe(name) is None:
                with Sandbox(tier=name, filtered=False) as open_cage:
                    assert "escaped" not in open_cage.run(connect).stdout, name


def test_a_weaker_machine_is_refused_and_never_used_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from envs.sandbox import cage as module

    monkeypatch.setattr(
        module, "probe", lambda name: None if name == "landlock" else "no user namespaces"
    )
    with pytest.raises(IsolationError, match="no user namespaces") as refused:
        tier()
    assert refused.value.exit_code == 5
    monkeypatch.setenv("XP_MIN_TIER", "landlock")
    assert tier() == "landlock"
    monkeypatch.setattr(
        module, "probe", lambda name: None if name in ("none", "landlock") else "no user namespaces"
    )
    monkeypatch.setenv("XP_MIN_TIER", "none")
    assert tier() == "landlock", "none only where nothing better can be built"
    monkeypatch.setattr(module, "probe", lambda name: None if name == "none" else "cannot be built")
    assert tier() == "none"
    monkeypatch.setenv("XP_MIN_TIER", "landlock")
    with pytest.raises(IsolationError, match="landlock: cannot be built"):
        tier()
    monkeypatch.setattr(
        module, "probe", lambda name: None if name == "landlock" else "no user namespaces"
    )
    monkeypatch.setenv("XP_MIN_TIER", "firecracker")
    with pytest.raises(IsolationError, match="not offered"):
        tier()
    monkeypatch.setenv("XP_MIN_TIER", "gvisor")
    with pytest.raises(IsolationError, match="gvisor: no user namespaces"):
        tier()
    monkeypatch.setattr(module, "probe", lambda name: None)
    assert tier() == "gvisor"
    monkeypatch.delenv("XP_MIN_TIER")
    assert tier() == "namespaces", "gvisor, which is slower, only where it is asked for"


def test_tier_none_runs_code_within_limits_and_keeps_nothing_in() -> None:
    with Sandbox(tier="none") as open_process:
        assert open_process.run("def f(x): return 6 * x", calls=[[7]]).answers == (("value", 42),)
        assert open_process.run("while True: pass", wall_seconds=0.5).ending == "timeout"
        assert "MemoryError" in str(open_process.run("x = 'a' * 10**10").answers)
        assert not [
            name for name in READ if "escaped" not in open_process.run(HOSTILE[name]).stdout
        ], "docs/security.md"


@pytest.mark.parametrize(
    ("program", "ending"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        (
            "import signal, time\nfor n in range(1, 32):\n try: signal.signal(n, "
            "signal.SIG_IGN)\n except OSError: pass\n"
            "while True: pass",
            "timeout",
        ),
    ],
)
def test_a_program_that_will_not_end_is_ended(program: str, ending: str, cage: Sandbox) -> None:
    assert cage.run(program, wall_seconds=0.5).ending == ending


def test_a_flood_of_output_is_cut(cage: Sandbox) -> None:
    assert len(cage.run("print('x' * 10_000_000)").stdout) <= 1 << 16


BOMBS = {
    "memory": "x = 'a' * 10**11",
    "list": "x = [0] * 10**11",
    "recursion": "def f(): f()\nf()",
    "integer": "x = 10 ** 10 ** 8; str(x)",
    "descriptors": "import os\nkept = [os.dup(1) for _ in range(10**6)]",
    "pipes": "import os\nkept = [os.pipe() for _ in range(10**6)]",
    "mappings": "import mmap\nkept = [mmap.mmap(-1, 1 << 30) for _ in range(1000)]",
    "strings": "x = ['a' * 10**6 for _ in range(10**6)]",
    "regular expression": "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
    "output": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "results": "import os\nwhile True: os.write(3, b'x' * 65536)",
    "escape codes": "print('\\x1b]0;owned\\x07' * 10**5)",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_goes_off_inside(name: str, cage: Sandbox) -> None:
    cage.run(BOMBS[name], wall_seconds=1.5, cpu_seconds=1)
    assert cage.run("print('alive')").stdout == "alive\n"


def test_a_run_finds_no_trace_of_the_run_before(cage: Sandbox) -> None:
    cage.run("secret = 'the-hidden-input-' + '91173'", calls=[["the-hidden-argument-91173"]])
    search = (
        "import gc\nneedle = ''.join(['hidden', '-argu', 'ment'])\nfound = [o for o in "
        "gc.get_objects() for s in ([o] if isinstance(o, str) else "
        "list(o.values()) if isinstance(o, dict) else list(o) if isinstance(o, (list, tuple)) "
        "else [])\n"
        "         if isinstance(s, str) and needle in s and s is not needle]\nprint(len(found))"
    )
    assert cage.run(search).stdout.strip() == "0"


@pytest.mark.parametrize(
    "forged",
    [
        "[" * 5000,
        "null",
        "{}",
        "[1]",
        "[[1,2,3]]",
        "\\xff\\xfe",
        '[["value"]]',
        '[["value", NaN]]',
        '[["value", 1e999]]',
        '{"answers": 1}',
    ],
)
def test_a_forged_result_is_no_answer_or_plain_data(forged: str, cage: Sandbox) -> None:
    outcome = cage.run(f"import os; os.write(3, b'''{forged}'''); os._exit(0)", calls=[[1]])
    assert outcome.answers == () or (
        forged in ('[["value", NaN]]', '[["value", 1e999]]') and len(outcome.answers) == 1
    )
