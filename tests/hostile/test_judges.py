"""Strangers' judges: what an agent writes reaches no secret, no file, no network, no other episode.
Each attack has a control that succeeds where the wall is off: the same text before the same judge,
in a process of the host."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
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
    hosted = Hosted(
        guest, ["numpy"], limits=Limits(answer_seconds=3, cpu_seconds=8, memory_bytes=256 << 20)
    )
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
    done = subprocess.run(
        [sys.executable, "-c", program, text], capture_output=True, text=True, timeout=300
    )
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
    "asks a shell": "__import__('subprocess').check_output('cat /tmp/xp-judge-decoy; env', "
    "shell=True, text=True)",
    "looks through the processes": EVERY_PROCESS,
}


@pytest.mark.parametrize("attack", READS)
def test_an_answer_run_as_python_finds_no_secret(evaluating: Hosted, attack: str) -> None:
    assert SECRET in outside(READS[attack]), "the control shows it"
    assert SECRET not in said(evaluating, READS[attack])


ENTERS = {
    "opens a file to write": "open('/tmp/x', 'w').close()",
    "appends to a file": "open('/tmp/x', 'a').close()",
    "makes an empty file": "__import__('os').close(__import__('os').open('/tmp/x', 64))",
    "makes a folder": "__import__('os').mkdir('/tmp/xp-judge-folder')",
    "makes a link": "__import__('os').symlink('x', '/tmp/xp-judge-link')",
    "opens a socket": "__import__('socket').socket().fileno()",
    "opens a socket of files": "__import__('socket').socket(1).fileno()",
    "forks": "__import__('os').fork() and None",
    "starts a thread": "__import__('threading').Thread(target=print).start()",
    "starts a program": "__import__('subprocess').call(['/bin/true'])",
    "signals its keeper": "__import__('os').kill(__import__('os').getppid(), 0)",
    "signals its keeper by a "
    "descriptor": "__import__('fcntl').fcntl(0, 8, __import__('os').getppid())",
    "makes a file in memory": "__import__('os').memfd_create('x')",
    "lifts its limits": "__import__('resource').setrlimit(7, (4096, 4096))",
    "traces": "[1 / (__import__('ctypes').CDLL(None).ptrace(0, 0, 0, 0) == 0)]",
}


@pytest.mark.parametrize("attack", ENTERS)
def test_an_answer_run_as_python_does_nothing_to_the_place(
    evaluating: Hosted, attack: str, tmp_path: Path
) -> None:
    text = ENTERS[attack].replace("/tmp/", f"{tmp_path}/")
    assert "Error" not in outside(text), "the control does it"
    assert said(evaluating, ENTERS[attack]).startswith("failed: the judge failed:"), (
        "it is refused, and says so"
    )
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
def test_nothing_that_an_answer_does_lasts_to_the_next_episode(
    evaluating: Hosted, attack: str
) -> None:
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
    "nests without end": (
        "__import__('functools').reduce(lambda x, _: [x], range(5000), [])",
        "not plain data|no line",
    ),
    "returns what is no data": ("object()", "not plain data"),
    "divides by nothing": ("1 / 0", "ZeroDivisionError"),
    "overflows the stack": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError|ended"),
}


@pytest.mark.parametrize("attack", FAILS)
def test_a_judge_that_misbehaves_costs_its_own_episode_and_no_other(
    evaluating: Hosted, attack: str
) -> None:
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
    assert evaluating._process is not None
    evaluating._process._process.kill()
    evaluating._process._process.wait()
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
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("bwrap", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(
        IsolationError, match="no place for strangers' code can be built here: no namespaces here"
    ):
        Hosted(guest, ["numpy"]).open()


def test_a_judge_whose_package_is_missing_says_what_to_type(tmp_path: Path) -> None:
    guest = tmp_path / "guest.py"
    guest.write_text("import nowhere_to_be_found\nclass Judge: ...")
    with pytest.raises(MissingPartError, match="nowhere_to_be_found"):
        Hosted(guest, ["nowhere_to_be_found"]).open()
    with pytest.raises(MissingPartError, match="nowhere_to_be_found"):
        Hosted(guest, ["numpy"]).open()


# Reasoning: nine of reasoning-gym's scorers run an answer as Python


RUNNING = (
    "spiral_matrix",
    "string_insertion",
    "binary_matrix",
    "n_queens",
    "countdown",
    "puzzle24",
    "simple_integration",
    "intermediate_integration",
    "polynomial_multiplication",
)
KEY = "__import__('os').environ['XP_PLANTED_API_KEY']"
OWN_ANSWER = (
    "entry['answer'].split()",
    "[list(map(int, r.split())) for r in entry['answer'].split('\\n')]",
    "entry['answer']",
    "eval(entry['answer'])",
    "__import__('sys')._getframe(1).f_locals['entry']['answer'].split()",
    "[__import__('gc').get_objects()][0]",
    "(lambda: entry)()['answer']",
    "oracle_answer.split()",
)


@pytest.fixture(scope="module")
def as_they_are() -> Iterator[Hosted]:
    """The control: the scorers with their own `eval` and `parse_expr`."""
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    hosted = Hosted(
        GUESTS / "reasoning.py",
        ["reasoning_gym"],
        {"literally": False},
        limits=Limits(answer_seconds=5),
    )
    yield hosted
    hosted.close()


def reasoning(dataset: str) -> Any:
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make("envs:Reasoning-v0", dataset=dataset).unwrapped


@pytest.fixture(scope="module")
def in_the_host() -> dict[str, str]:
    """The control: what reasoning-gym's own scorers show in a process of the host, as it was
    before."""
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    program = (
        "import json, os, sys, reasoning_gym\nfor name, text in json.loads(sys.argv[1]).items():\n"
        "    d = reasoning_gym.create_dataset(name, size=3, seed=0)\n"
        "    os.write(2, f'\\n{name} '.encode())\n    d.score_answer(text, d[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps({d: shows(d) for d in RUNNING})],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return dict(
        line.split(" ", 1) for line in done.stderr.splitlines() if line.partition(" ")[0] in RUNNING
    )


def shows(dataset: str) -> str:
    """An answer that writes the planted key where the test sees it."""
    text = f"__import__('os').write(2, {KEY}.encode())"
    return f"[{text}]" if dataset == "string_insertion" else text


@pytest.mark.parametrize("dataset", RUNNING)
def test_what_an_answer_would_run_sees_no_secret_and_runs_no_more(
    dataset: str, as_they_are: Hosted, in_the_host: dict[str, str]
) -> None:
    assert SECRET in in_the_host[dataset], "the control shows it"
    finds = (
        "[__import__('time').sleep(99) if 'XP_PLANTED_API_KEY' in __import__('os').environ else 0]"
    )
    with (
        as_they_are.open() as episode
    ):  # in its place it runs, and finds nothing: it does not sleep
        assert episode.ask("score", dataset=dataset, index=0, text=finds) < 1
    world = reasoning(dataset)
    for text in (
        shows(dataset),
        finds,
        "[__import__('time').sleep(99)]",
        "(lambda f: f(f))(lambda f: f(f))",
        "[0 for _ in iter(int, 1)]",
        "__import__('os').fork()",
        "len(b'x' * (1 << 33))",
    ):
        world.reset(seed=0)
        _, reward, terminated, _, info = world.step(f"answer {text}")
        assert terminated and reward < 0.1, (text, info)


def test_a_scorer_that_hangs_is_a_failure_and_no_score(as_they_are: Hosted) -> None:
    with (
        pytest.raises(EnvironmentFailure, match="did not answer within 5 s"),
        as_they_are.open() as episode,
    ):
        episode.ask(
            "score", dataset="spiral_matrix", index=0, text="[__import__('time').sleep(99)]"
        )


def test_an_answer_that_changes_its_scorer_makes_no_later_answer_right(as_they_are: Hosted) -> None:
    changes = "[setattr(type(self), 'score_answer', lambda *_: 1.0)]"
    asked: dict[str, Any] = {"dataset": "spiral_matrix", "index": 0}
    with as_they_are.open() as episode:
        episode.ask("score", text=changes, **asked)
        assert episode.ask("score", text="wrong", **asked) == 1.0, (
            "the control: in the same child it lasts"
        )
    with as_they_are.open() as episode:
        assert episode.ask("score", text="wrong", **asked) == 0.0
    world = reasoning("spiral_matrix")
    for text in (changes, "wrong"):
        world.reset(seed=0)
        assert world.step(f"answer {text}")[1] == 0.0


@pytest.mark.parametrize("dataset", RUNNING)
def test_no_answer_reads_the_right_one_from_its_scorer(dataset: str, as_they_are: Hosted) -> None:
    world = reasoning(dataset)
    paid = []
    for text in OWN_ANSWER:
        world.reset(seed=3)
        assert world.step(f"answer {text}")[1] < 0.1, text
        with as_they_are.open() as episode:
            paid.append(episode.ask("score", dataset=dataset, index=world.task, text=text))
    if dataset in ("spiral_matrix", "string_insertion", "binary_matrix"):
        assert max(paid) >= 0.1, "the control: the scorer hands out its own answer"


@pytest.mark.parametrize(
    "text",
    [
        "x**3/3 + C",
        "3*sin(2*x) - exp(x)/2",
        "42*x**2 - 7*x*y + 1",
        "(10 + 2) * 2",
        "5!",
        "1.5e3",
        "-4",
    ],
)
def test_an_expression_is_one(text: str) -> None:
    assert _guest("reasoning").is_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "x.y",
        "x._",
        "__import__",
        "'x'",
        "a[0]",
        "f'{x}'",
        "lambda: 1",
        "x if y else z",
        "eval(1)",
        "x:=1",
        "{1}",
        "x;y",
        "entry",
        "open(1)",
        "type(x)",
        "\\x41",
        "x\u00b2",
        "ｅval(1)",
        "symbols(x)",
        "S(1)\n`1`",
    ],
)
def test_a_program_is_no_expression(text: str) -> None:
    assert not _guest("reasoning").is_expression(text)


def _guest(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"guest_{name}", GUESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def oracles_earn(dataset: str, episodes: int) -> float:
    world = reasoning(dataset)
    total = 0.0
    for seed in range(episodes):
        world.reset(seed=seed)
        total += world.step(world.oracle_action())[1]
    return total / episodes


@pytest.mark.parametrize("dataset", [*RUNNING, "chain_sum", "codeio", "rubiks_cube"])
def test_the_right_answer_earns_all(dataset: str) -> None:
    assert oracles_earn(dataset, 4) == 1.0


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_right_answer_earns_all_in_every_dataset() -> None:
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    from envs.bridges.reasoning import datasets

    without = {
        "composite",  # a mixture, which must be told of what
        "boxnet",
        "graph_color",
        "rush_hour",
    }  # these give no answer of their own
    names = [n for n in datasets() if n not in without]
    assert len(names) == 102
    short = {n: mean for n in names if (mean := oracles_earn(n, 5)) < 1}
    assert set(short) <= {"propositional_logic"}, (
        short
    )  # whose own example is not always right to its own scorer


def test_a_dataset_that_pays_a_constant_answer_warns_by_name() -> None:
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    from envs.bridges.reasoning import CONSTANT, Reasoning, datasets

    assert set(CONSTANT) <= set(datasets()) and len(CONSTANT) >= 11 and "chain_sum" not in CONSTANT
    with pytest.warns(
        UserWarning, match=r"game_of_life_halting: one answer, always the same, averages 1\.00"
    ):
        Reasoning("game_of_life_halting")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reasoning()
    with pytest.raises(ValueError, match="choose one of"):
        Reasoning("no such")


# The games: what an agent types is a move, and a broken game is no outcome


@pytest.mark.parametrize("name", ["Arena-v0", "Duel-v0"])
def test_a_game_lives_in_its_own_child(name: str) -> None:
    pytest.importorskip(
        {"Arena-v0": "textarena", "Duel-v0": "pettingzoo"}[name], reason="./xp setup worlds"
    )
    one, other = (gymnasium.make(f"envs:{name}").unwrapped for _ in range(2))
    assert one.sandbox_tier == "namespaces"
    seen, _ = one.reset(seed=0)
    assert other.reset(seed=0)[0] == seen, "the same seed, the same game"
    one._game.close()
    with pytest.raises(EnvironmentFailure, match="has ended"):
        one.step(one.random_action(np.random.default_rng(0)) if name == "Duel-v0" else "[4]")
    assert not other.step(other.random_action(np.random.default_rng(0)))[2]
    assert one.reset(seed=0)[0] == seen, "a new episode has a new child"
    one.close()
    other.close()


def test_a_cell_nested_too_deeply_is_told() -> None:
    world = gymnasium.make("envs:PythonTask-v0", max_turns=9).unwrapped
    world.reset(seed=0)
    for cell in ("-" * 19_000 + "1", "1+" * 9_900 + "1", "(" * 5000, "a\0b"):
        seen, _, _, _, _ = world.step(f"cell {cell}")
        assert "nested too deeply" in seen or "SyntaxError" in seen
