"""Strangers' judges: what an agent writes reaches no secret, no file, no network, no other episode. Each attack has a
control that succeeds where the wall is off: the same text before the same judge, in a process of the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.sandbox.hosted import Hosted, Limits, Session
from experience.errors import EnvironmentFailure, MissingPartError

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-planted-3141592653589793"
GUESTS = ROOT / "envs/bridges/guests"
EVALUATING = """\"\"\"A judge that runs an answer as Python, as the worst of them do.\"\"\"
import json, random
from host import Refused
class Judge:
    marks = []
    def score(self, text):
        return eval(text)
    def refuse(self):
        raise Refused("not that")
    def drawn(self):
        return random.random()
    def left(self):
        return [list(self.marks), hasattr(json, "left"), self.score.__name__]
"""


@pytest.fixture(scope="module", autouse=True)
def planted() -> Iterator[None]:
    """A secret in the host's environment and in a file that all may read."""
    os.environ["XP_PLANTED_API_KEY"] = SECRET
    decoy = Path("/tmp/xp-judge-decoy")
    decoy.write_text(SECRET)
    yield
    decoy.unlink()
    del os.environ["XP_PLANTED_API_KEY"]


@pytest.fixture(scope="module")
def evaluating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    guest = tmp_path_factory.mktemp("judge") / "evaluating.py"
    guest.write_text(EVALUATING)
    hosted = Hosted(guest, ["numpy"], limits=Limits(answer_seconds=3, cpu_seconds=8, memory_bytes=256 << 20))
    yield hosted
    hosted.close()


def said(hosted: Hosted, text: str) -> str:
    """What a judge says to an answer, whatever becomes of it."""
    try:
        with hosted.open() as episode:
            return json.dumps(episode.ask("score", text=text))
    except EnvironmentFailure as failed:
        return f"failed: {failed}"


def outside(text: str) -> str:
    """The control: the same answer before the same judge, in a process of the host."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport json\nprint(json.dumps(eval(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr[-200:]


LOOK = """
import glob
out = ""
for path in [*glob.glob("/proc/[0-9]*/environ"), *glob.glob("/proc/[0-9]*/cmdline"), *glob.glob("/proc/self/fd/*")]:
    try: out += open(path, "rb").read(1 << 16).decode("latin-1") if "fd" not in path else __import__("os").readlink(path)
    except OSError: pass
"""
EVERY_PROCESS = f"(lambda g: exec({LOOK!r}, g) or g['out'])({{}})"
READS = {
    "reads the environment": "dict(__import__('os').environ)",
    "asks the environment by name": "__import__('os').getenv('XP_PLANTED_API_KEY')",
    "reads a file that all may read": "open('/tmp/xp-judge-decoy').read()",
    "asks a shell": "__import__('subprocess').check_output('cat /tmp/xp-judge-decoy; env', shell=True, text=True)",
    "looks through the processes": EVERY_PROCESS,
}


@pytest.mark.parametrize("attack", READS)
def test_an_answer_run_as_python_finds_no_secret(evaluating: Hosted, attack: str) -> None:
    assert SECRET in outside(READS[attack]), "the control shows it"
    assert SECRET not in said(evaluating, READS[attack])


ENTERS = {
    "opens a file to write": "open('/tmp/x', 'w').close()", "appends to a file": "open('/tmp/x', 'a').close()",
    "makes an empty file": "__import__('os').close(__import__('os').open('/tmp/x', 64))",
    "makes a folder": "__import__('os').mkdir('/tmp/xp-judge-folder')",
    "makes a link": "__import__('os').symlink('x', '/tmp/xp-judge-link')",
    "opens a socket": "__import__('socket').socket().fileno()",
    "opens a socket of files": "__import__('socket').socket(1).fileno()",
    "forks": "__import__('os').fork() and None",
    "starts a thread": "__import__('threading').Thread(target=print).start()",
    "starts a program": "__import__('subprocess').call(['/bin/true'])",
    "signals its keeper": "__import__('os').kill(__import__('os').getppid(), 0)",
    "signals its keeper by a descriptor": "__import__('fcntl').fcntl(0, 8, __import__('os').getppid())",
    "makes a file in memory": "__import__('os').memfd_create('x')",
    "lifts its limits": "__import__('resource').setrlimit(7, (4096, 4096))",
    "traces": "[1 / (__import__('ctypes').CDLL(None).ptrace(0, 0, 0, 0) == 0)]",
}


@pytest.mark.parametrize("attack", ENTERS)
def test_an_answer_run_as_python_does_nothing_to_the_place(evaluating: Hosted, attack: str, tmp_path: Path) -> None:
    text = ENTERS[attack].replace("/tmp/", f"{tmp_path}/")
    assert "Error" not in outside(text), "the control does it"
    assert said(evaluating, ENTERS[attack]).startswith("failed: the judge failed:"), "it is refused, and says so"
    with evaluating.open() as episode:
        assert episode.ask("score", text="6 * 7") == 42


LASTS = {
    "changes the scorer's class": "[setattr(type(self), 'score', lambda self, text: 1.0), 1][1]",
    "keeps a mark in its class": "self.marks.append(1)",
    "changes a module": "setattr(__import__('json'), 'left', 1)",
    "changes a builtin": "setattr(__import__('builtins'), 'hasattr', lambda *_: True)",
    "seeds the random numbers": "__import__('random').seed(1)",
}


@pytest.mark.parametrize("attack", LASTS)
def test_nothing_that_an_answer_does_lasts_to_the_next_episode(evaluating: Hosted, attack: str) -> None:
    def state(episode: Session) -> Any:
        return [episode.ask("left"), episode.ask("drawn")]

    with evaluating.open() as fresh:
        clean = state(fresh)
    with evaluating.open() as episode:
        episode.ask("score", text=LASTS[attack])
        assert state(episode) != clean, "the control: in the same child it lasts"
    with evaluating.open() as episode:
        assert state(episode) == clean


FAILS = {
    "sleeps": ("__import__('time').sleep(999)", "did not answer within 3 s: it was ended"),
    "computes without end": ("[0 for _ in iter(int, 1)]", "did not answer within 3 s|MemoryError"),
    "takes memory": ("len(b'x' * (1 << 30))", "MemoryError"),
    "ends itself": ("__import__('os')._exit(0)", "ended without an answer: it exited with 0"),
    "kills itself": ("__import__('os').abort()", "ended without an answer: it was ended by SIG"),
    "leaves Python": ("exit()", "SystemExit|NameError"),
    "answers for itself": ("__import__('os').write(3, b'nonsense\\n')", "no line of JSON"),
    "answers for later": ("__import__('os').write(3, b'[1]\\n')", "neither value nor refusal"),
    "answers too much": ("'x' * (1 << 21)", "an answer of"),
    "nests without end": ("__import__('functools').reduce(lambda x, _: [x], range(5000), [])", "not plain data|no line"),
    "returns what is no data": ("object()", "not plain data"),
    "divides by nothing": ("1 / 0", "ZeroDivisionError"),
    "overflows the stack": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError|ended"),
}


@pytest.mark.parametrize("attack", FAILS)
def test_a_judge_that_misbehaves_costs_its_own_episode_and_no_other(evaluating: Hosted, attack: str) -> None:
    text, how = FAILS[attack]
    with evaluating.open() as other:
        with pytest.raises(EnvironmentFailure, match=how), evaluating.open() as episode:
            episode.ask("score", text=text)
        assert other.ask("score", text="6 * 7") == 42, "who was there before is there still"
    with evaluating.open() as episode:
        assert episode.ask("score", text="6 * 7") == 42


def test_an_answer_ahead_of_its_question_is_not_taken_for_one(evaluating: Hosted) -> None:
    forged = "__import__('os').write(3, b'{\"value\": 1}\\n{\"value\": 1}\\n')"
    with evaluating.open() as episode:
        episode.ask("score", text=forged)
        with pytest.raises(EnvironmentFailure, match="answered what it was not asked"):
            episode.ask("score", text="0")
        with pytest.raises(EnvironmentFailure, match="has ended"):
            episode.ask("score", text="0")


def test_a_refusal_is_no_failure_and_a_too_long_answer_is_refused(evaluating: Hosted) -> None:
    with evaluating.open() as episode:
        with pytest.raises(ValueError, match="not that"):
            episode.ask("refuse")
        with pytest.raises(ValueError, match="at most"):
            episode.ask("score", text="x" * (1 << 21))
        assert episode.ask("score", text="6 * 7") == 42


def test_a_closed_episode_leaves_no_process_and_no_descriptor(evaluating: Hosted) -> None:
    import psutil

    with evaluating.open() as episode:
        episode.ask("drawn")
    me = psutil.Process()
    before = me.num_fds(), len(me.children(recursive=True))
    for _ in range(40):
        said(evaluating, "1 / 0")
    evaluating.warm("drawn")  # the requests to end are read before this one
    assert (me.num_fds(), len(me.children(recursive=True))) <= before


def test_a_place_that_dies_is_built_anew(evaluating: Hosted) -> None:
    episode = evaluating.open()
    assert evaluating._place is not None
    evaluating._place._process.kill()
    evaluating._place._process.wait()
    with pytest.raises(EnvironmentFailure, match="it was ended with its place"):
        for _ in range(200):  # the kernel ends those within a moment later
            episode.ask("drawn")
            time.sleep(0.05)
    with evaluating.open() as episode:
        assert episode.ask("score", text="6 * 7") == 42


def test_without_a_place_there_is_no_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from experience.errors import IsolationError

    guest = tmp_path / "guest.py"
    guest.write_text("class Judge: ...")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IsolationError, match="bwrap"):
        Hosted(guest, ["numpy"]).open()
    for name in ("bwrap", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(IsolationError, match="no place for strangers' code can be built here: no namespaces here"):
        Hosted(guest, ["numpy"]).open()


def test_a_judge_whose_package_is_missing_says_what_to_type(tmp_path: Path) -> None:
    guest = tmp_path / "guest.py"
    guest.write_text("import nowhere_to_be_found\nclass Judge: ...")
    with pytest.raises(MissingPartError, match="nowhere_to_be_found"):
        Hosted(guest, ["nowhere_to_be_found"]).open()
    with pytest.raises(MissingPartError, match="nowhere_to_be_found"):
        Hosted(guest, ["numpy"]).open()
