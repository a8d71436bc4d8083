"""`./xp` before anything is set up: it helps without installing, and names every verb."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout's command and lock in a folder with a space in its name, nothing set up."""
    place = tmp_path / "a folder"
    place.mkdir()
    for name in ("xp", "requirements.lock"):
        shutil.copy(ROOT / name, place / name)
    return place


def told(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(place / "xp"), *words], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["demo", "--help"], ["run", "-h"], ["setup", "--help"]])
def test_help_installs_nothing(words: list[str], bare: Path) -> None:
    done = told(bare, *words)
    assert done.returncode == 0 and "Usage: xp" in done.stdout
    assert {p.name for p in bare.iterdir()} == {"xp", "requirements.lock"}


def test_an_unknown_part_is_refused_before_anything_is_installed(bare: Path) -> None:
    done = told(bare, "setup", "everything")
    assert done.returncode == 1 and "worlds, wiki, peers" in done.stderr
    assert not (bare / ".venv").exists()


def test_help_before_the_set_up_names_the_verbs_that_there_are(bare: Path) -> None:
    before = set(re.findall(r"^  (\w+)  ", told(bare).stdout, re.MULTILINE))
    after = subprocess.run([sys.executable, "-m", "actors", "--help"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout
    assert before == set(re.findall(r"^  (\w+)  ", after, re.MULTILINE)) | {"setup"}
