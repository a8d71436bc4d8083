"""code/repo: find and mend one changed line in a real package, by reading it and running its own
tests.

The package is networkx as installed, with its own test files. One operator, constant or comparison
of a module is changed so that some of its tests fail; the agent reads, edits lines, runs the tests
and submits. It is mended when every test that failed passes and none that passed fails, in a fresh
place, with the test files as they came. An edit may use only names that the file already has, and
no imports, strings or underscored names: the tests run in one process with the code, and nothing
else keeps code there from writing their report. Covers: edited tests, forged reports, files left
behind. Does not cover: a mend that the tests do not tell from wrong.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tempfile
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.sandbox import confine
from envs.sandbox.tiers import shared_python
from experience.errors import EnvironmentFailure, MissingPartError

MODULES = (
    "dag",
    "clique",
    "core",
    "euler",
    "tournament",
    "cluster",
    "dominating",
    "matching",
    "regular",
    "simple_paths",
    "structuralholes",
    "swap",
    "triads",
    "wiener",
)
TEST_SECONDS = 12
_WINDOW = 24
_CHANGES: tuple[tuple[type, str, str], ...] = (
    (ast.Lt, "<", "<="),
    (ast.LtE, "<=", "<"),
    (ast.Gt, ">", ">="),
    (ast.GtE, ">=", ">"),
    (ast.Eq, "==", "!="),
    (ast.NotEq, "!=", "=="),
    (ast.In, " in ", " not in "),
    (ast.NotIn, " not in ", " in "),
    (ast.Is, " is ", " is not "),
    (ast.IsNot, " is not ", " is "),
    (ast.Add, "+", "-"),
    (ast.Sub, "-", "+"),
    (ast.Mult, "*", "+"),
    (ast.And, " and ", " or "),
    (ast.Or, " or ", " and "),
)


@dataclass(frozen=True)
class Fault:
    """One changed line of a module: its number (from 1), and what stands there now."""

    module: str
    line: int
    text: str


@lru_cache(maxsize=1)
def _package() -> Path:
    spec = find_spec("networkx")
    if spec is None or spec.origin is None:
        raise MissingPartError("code/repo needs networkx", "remove .venv and run ./xp again")
    return Path(spec.origin).resolve().parent


@lru_cache(maxsize=64)
def source(module: str) -> tuple[str, ...]:
    return tuple((_package() / f"algorithms/{module}.py").read_text().splitlines())


@lru_cache(maxsize=64)
def faults(module: str) -> tuple[Fault, ...]:
    """Every change of one operator or small constant, in the order of the file; docstrings are left
    alone."""
    lines, found = source(module), []
    for node in ast.walk(ast.parse("\n".join(lines))):
        for at, end, old, new in _edits(node, lines):
            text = lines[at[0] - 1]
            where = text.find(old, at[1], end)
            if where >= 0 and _may_be_written(text, lines):
                found.append(Fault(module, at[0], text[:where] + new + text[where + len(old) :]))
    return tuple(dict.fromkeys(sorted(found, key=lambda f: (f.line, f.text))))


def _edits(node: ast.AST, lines: Sequence[str]) -> list[tuple[tuple[int, int], int, str, str]]:
    if (
        isinstance(node, ast.Constant)
        and type(node.value) in (int, bool)
        and node.lineno == node.end_lineno
    ):
        old = lines[node.lineno - 1][node.col_offset : node.end_col_offset]
        new = str(not node.value) if isinstance(node.value, bool) else str(int(str(node.value)) + 1)
        return [((node.lineno, node.col_offset), node.end_col_offset or 0, old, new)]
    pairs: list[tuple[ast.AST, ast.expr, ast.expr]] = []
    if isinstance(node, ast.Compare):
        pairs = list(zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False))
    elif isinstance(node, ast.BinOp):
        pairs = [(node.op, node.left, node.right)]
    elif isinstance(node, ast.BoolOp):
        pairs = [(node.op, a, b) for a, b in zip(node.values, node.values[1:], strict=False)]
    return [
        ((left.end_lineno or 0, left.end_col_offset or 0), right.col_offset, old, new)
        for op, left, right in pairs
        if left.end_lineno == right.lineno
        for kind, old, new in _CHANGES
        if type(op) is kind
    ]


@lru_cache(maxsize=4096)
def tested(module: str, text: str) -> Mapping[str, str]:
    """PASSED, FAILED or ERROR per test of the module, with `text` in its place. Raises
    EnvironmentFailure if the tests could not be run at all; a program that never ends fails them
    all."""
    tests = f"{_package()}/algorithms/tests/test_{module}.py"
    site = _package().parent
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        command = [
            shared_python()[0],
            "-S",
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import pytest; "
            "sys.exit(pytest.main(sys.argv[2:]))",
            str(site),
            "-q",
            "-rA",
            "--tb=no",
            "--noconftest",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
            "--rootdir",
            "/tmp",
            tests,
        ]
        try:
            done = confine.run(
                command,
                seconds=TEST_SECONDS,
                readable=[site],
                chdir="/tmp",
                data={str(_package() / f"algorithms/{module}.py"): file.fileno()},
                environment={"PYTHONDONTWRITEBYTECODE": "1", "NETWORKX_TEST_BACKEND": ""},
            )
        except subprocess.TimeoutExpired:
            return {}
    said = done.stdout.decode("utf-8", "replace")
    found = {
        name.partition("::")[2]: verdict
        for verdict, name in re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", said, re.MULTILINE)
    }
    if not found and done.returncode not in (1, 2):
        raise EnvironmentFailure(f"the tests of {module} could not be run: {said[-300:]}")
    return found


def _broken(fault: Fault) -> str:
    lines = list(source(fault.module))
    lines[fault.line - 1] = fault.text
    return "\n".join(lines) + "\n"


class Repo(ToolWorld[Fault]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "mended": SignalKind("fraction", "verifier"),
        "test_runs": SignalKind("count", "env_state"),
        "edits": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"mended": 1.0, "test_runs": -0.01, "edits": -0.01}
    max_turns = 16
    sandbox_tier = "namespaces"
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 0.95
    cheats = (
        "edit 1 import os; os._exit(0)",
        "edit 1 print('PASSED test_x')",
        "edit 1 raise SystemExit(0)",
        "submit",
        "edit 1 exec('1')",
        "edit 1 __import__('sys').exit()",
        "edit 999999 x",
        "edit 0 x",
        "edit 1 x = ''",
        "test",
    )

    def tasks(self, split: str, rng: np.random.Generator) -> Fault:
        """One module in five is held out, whole."""
        held = {m for i, m in enumerate(MODULES) if i % 5 == 2}
        while True:
            module = MODULES[int(rng.integers(len(MODULES)))]
            if (module in held) == (split == "heldout"):
                among = faults(module)
                start = int(rng.integers(len(among)))
                return next(f for f in (*among[start:], *among[:start]) if self.failing(f))

    def failing(self, fault: Fault) -> list[str]:
        """The tests that pass before the change and fail with it; none where the whole module
        breaks."""
        before = tested(fault.module, "\n".join(source(fault.module)) + "\n")
        after = tested(fault.module, _broken(fault))
        failed = [
            name
            for name, verdict in before.items()
            if verdict == "PASSED" and after.get(name) != "PASSED"
        ]
        return failed if 0 < len(failed) < len(before) else []

    def signature(self, task: Fault) -> str:
        return f"{task.module}:{task.line} {task.text.strip()}"

    def begin(self) -> None:
        self._lines = _broken(self.task).splitlines()
        self._failing = self.failing(self.task)
        self._at = max(1, self.task.line - int(self.np_random.integers(0, _WINDOW)))
        self._report = ""

    def observe(self) -> str:
        shown = [
            f"{n:4d} {self._lines[n - 1]}"
            for n in range(self._at, min(self._at + _WINDOW, len(self._lines) + 1))
        ]
        told = [
            f"networkx/algorithms/{self.task.module}.py; failing: {', '.join(self._failing[:4])}",
            *shown,
        ]
        return "\n".join([*told, *([self._report] if self._report else [])])

    @action
    def show(self, line: int) -> Outcome:
        """Show the file from a line on."""
        if not 1 <= line <= len(self._lines):
            raise ValueError(f"line from 1 to {len(self._lines)}")
        self._at = line
        return {}, False

    @action
    def edit(self, line: int, text: str) -> Outcome:
        """Replace a line; its indentation is kept."""
        if not 1 <= line <= len(self._lines):
            raise ValueError(f"line from 1 to {len(self._lines)}")
        old = self._lines[line - 1]
        new = old[: len(old) - len(old.lstrip())] + text.strip()
        changed = [*self._lines[: line - 1], new, *self._lines[line:]]
        _check_edit(text, "\n".join(self._lines), "\n".join(changed))
        self._lines = changed
        return {"edits": 1.0}, False

    @action
    def test(self) -> Outcome:
        """Run the module's tests."""
        verdicts = tested(self.task.module, "\n".join(self._lines) + "\n")
        failed = [name for name, verdict in verdicts.items() if verdict != "PASSED"]
        self._report = (
            f"{len(verdicts) - len(failed)} passed, failing: {', '.join(failed[:4]) or 'none'}"
        )
        return {"test_runs": 1.0}, False

    @action
    def submit(self) -> Outcome:
        """Hand the file in."""
        before = tested(self.task.module, "\n".join(source(self.task.module)) + "\n")
        now = tested(self.task.module, "\n".join(self._lines) + "\n")
        wrong = [
            name
            for name, verdict in before.items()
            if verdict == "PASSED" and now.get(name) != "PASSED"
        ]
        return {"mended": (float(not wrong), f"failing: {', '.join(wrong[:3]) or 'none'}")}, True

    def oracle_action(self) -> str:
        right = source(self.task.module)[self.task.line - 1]
        if self._lines[self.task.line - 1] != right:
            return f"edit {self.task.line} {right.strip()}"
        return "submit"

    def random_action(self, rng: np.random.Generator) -> str:
        among = faults(self.task.module)
        guess = among[int(rng.integers(len(among)))]
        return str(
            rng.choice(
                ["test", "submit", f"show {guess.line}", f"edit {guess.line} {guess.text.strip()}"]
            )
        )


def _may_be_written(line: str, lines: Sequence[str]) -> bool:
    """Whether an agent could write `line`, were it not there: a change is made only where it can be
    mended."""
    try:
        _check_edit(line.strip(), "\n".join(lines), "\n".join(lines))
    except ValueError:
        return False
    return True


def _check_edit(text: str, before: str, after: str) -> None:
    """Raises ValueError for an edit with words that the file does not have, or that is no Python."""
    if not text.isascii():
        raise ValueError("only ASCII: Python reads many a letter for another")
    if "_" in "".join(re.findall(r"\b_\w*", text)) or re.search(
        r"[\"'#;\\]|\bimport\b|\bexec\b|\beval\b", text
    ):
        raise ValueError("no imports, strings, comments or underscored names")
    if len(text) > 200:
        raise ValueError("at most 200 characters")
    known = set(re.findall(r"[A-Za-z_]\w*", before)) | {
        "True",
        "False",
        "None",
        "not",
        "and",
        "or",
        "in",
        "is",
    }
    try:
        words = {
            t.string
            for t in tokenize.generate_tokens(io.StringIO(text).readline)
            if t.type == tokenize.NAME
        }
    except (tokenize.TokenError, IndentationError):
        words = set(re.findall(r"[A-Za-z_]\w*", text))
    if words - known:
        raise ValueError(f"the file has no {min(words - known)}")
    try:
        ast.parse(after)
    except SyntaxError as wrong:
        raise ValueError(f"line {wrong.lineno}: {wrong.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError("that is nested too deeply") from None
