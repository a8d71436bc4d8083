"""A test that needs what is not installed is skipped with the line to type, and runs once that was
typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
import pathlib, pytest
from experience.errors import MissingPartError
def part(hint="./xp setup worlds"):
    if not pathlib.Path("installed").exists():
        raise MissingPartError("this needs more", hint)
@pytest.fixture
def world():
    part()
def test_in_a_fixture(world): pass
def test_in_its_body(): part()
def test_of_another_part(): part("./xp setup wiki")
def test_of_neither(): pass
"""
MODULE = """
import pathlib, pytest
if not pathlib.Path("installed").exists():
    pytest.skip("a module: ./xp setup worlds", allow_module_level=True)
def test_of_a_file_that_was_skipped_whole(): pass
"""


def run(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            "/dev/null",
            "--rootdir",
            str(folder),
            "-q",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            *words,
            str(folder),
        ],
        cwd=folder,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("how", [(), ("--numprocesses=2",)], ids=["alone", "in two"])
def test_what_a_setup_made_possible_runs_then_and_nothing_else(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    (tmp_path / "test_some.py").write_text(SUITE)
    (tmp_path / "test_whole.py").write_text(MODULE)
    code, said = run(tmp_path, *how)
    assert (
        code == 0
        and "1 passed, 4 skipped" in said
        and "3 skipped; to run them: ./xp setup worlds" in said
    ), said
    code, said = run(tmp_path, "--extras=worlds", *how)
    assert code == 1 and "FAILED test_some.py::test_in_its_body - still" in said, said
    (tmp_path / "installed").touch()
    code, said = run(tmp_path, "--extras=worlds", *how)
    assert code == 0 and "3 passed" in said and "skipped" not in said, said


def test_a_part_that_no_setup_brings_is_a_failure_and_no_skip(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SUITE.replace("./xp setup worlds", "apt-get install it"))
    code, said = run(tmp_path)
    assert code == 1 and "1 failed" in said and "1 error" in said, said


def test_the_tests_of_an_extra_cannot_be_asked_for_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SUITE)
    code, said = run(tmp_path, "--extras=worlds")
    assert code == 4 and "run ./xp test first" in said, said
