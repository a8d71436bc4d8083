"""The package that is mended, networkx as installed, and the verdicts of its own tests.

Tests run in a place of their own, with one module replaced and the test files as they came. Covers:
edited tests, files left behind, settings that point the tests elsewhere. Does not cover: code of
the module that forges the tests' report, which runs in one process with the tests (`edits` keeps
such code out).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

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
# pytest is started by hand: with -S, the place's Python finds no packages by itself.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import pytest; "
    "sys.exit(pytest.main(sys.argv[2:]))"
)
_OPTIONS = (
    "-q",
    "-rA",
    "--tb=no",
    # No file of the package or of this machine may change what the tests do.
    "--noconftest",
    "-p",
    "no:cacheprovider",
    "-c",
    "/dev/null",
    "--rootdir",
    "/tmp",
)

Verdicts = Mapping[str, str]
"""PASSED, FAILED or ERROR, by the name of a test."""


@lru_cache(maxsize=1)
def _package() -> Path:
    spec = find_spec("networkx")
    if spec is None or spec.origin is None:
        raise MissingPartError("code/repo needs networkx", "remove .venv and run ./xp again")
    return Path(spec.origin).resolve().parent


@lru_cache(maxsize=64)
def source(module: str) -> tuple[str, ...]:
    """The lines of a module as it came."""
    return tuple((_package() / f"algorithms/{module}.py").read_text().splitlines())


@contextmanager
def copied(module: str, text: str) -> Iterator[Path]:
    """A folder with a copy of the package in which `text` is the module, for a place to change."""
    with confine.folder("xp-repo-") as name:
        folder = Path(name)
        here = _package()
        shutil.copytree(here, folder / "networkx", ignore=_left_out)
        tests = folder / "networkx/algorithms/tests"
        tests.mkdir(exist_ok=True)
        shutil.copy(here / f"algorithms/tests/test_{module}.py", tests)
        (folder / f"networkx/algorithms/{module}.py").write_text(text)
        confine.give(folder)
        yield folder


def _left_out(folder: str, names: Sequence[str]) -> set[str]:
    """What a copy of the package does without: others' tests, and compiled files."""
    return {name for name in names if name in ("tests", "__pycache__")}


@lru_cache(maxsize=4096)
def tested(module: str, text: str) -> Verdicts:
    """The verdicts of a module's tests with `text` in the place of the module.

    A program that does not end in time fails all tests: no verdict is in the result. Raises
    EnvironmentFailure if the tests could not be run at all.
    """
    if text == "\n".join(source(module)) + "\n":
        return reference(module)
    try:
        return _run_tests(module, text)
    except subprocess.TimeoutExpired:
        return {}


@lru_cache(maxsize=64)
def reference(module: str) -> Verdicts:
    """The verdicts of a module's tests on the module as it came.

    Raises EnvironmentFailure if there is no verdict in time: against an empty reference, any file
    would pass for mended.
    """
    try:
        return _run_tests(module, "\n".join(source(module)) + "\n")
    except subprocess.TimeoutExpired as late:
        raise EnvironmentFailure(
            f"networkx's own tests of {module} gave no verdict in {TEST_SECONDS} s",
            "this machine is busy, or slow: try again",
        ) from late


def _run_tests(module: str, text: str) -> Verdicts:
    """As `tested`. Raises TimeoutExpired after TEST_SECONDS."""
    tests = f"{_package()}/algorithms/tests/test_{module}.py"
    site = _package().parent
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        done = confine.run(
            [shared_python()[0], "-S", "-c", _START, str(site), *_OPTIONS, tests],
            seconds=TEST_SECONDS,
            readable=[site],
            chdir="/tmp",
            data={str(_package() / f"algorithms/{module}.py"): file.fileno()},
            environment={"PYTHONDONTWRITEBYTECODE": "1", "NETWORKX_TEST_BACKEND": ""},
        )
    said = done.stdout.decode("utf-8", "replace")
    found = {
        name.partition("::")[2]: verdict
        for verdict, name in re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", said, re.MULTILINE)
    }
    # pytest exits with 1 if a test failed, with 2 if the module could not be imported.
    if not found and done.returncode not in (1, 2):
        raise EnvironmentFailure(f"the tests of {module} could not be run: {said[-300:]}")
    return found
