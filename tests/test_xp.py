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
    return subprocess.run(
        [str(place / "xp"), *words], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], [], ["demo", "--help"], ["run", "-h"], ["setup", "--help"]]
)
def test_help_installs_nothing(words: list[str], bare: Path) -> None:
    done = told(bare, *words)
    assert done.returncode == 0 and "Usage: xp" in done.stdout
    assert {p.name for p in bare.iterdir()} == {"xp", "requirements.lock"}


def test_an_unknown_part_is_refused_before_anything_is_installed(bare: Path) -> None:
    done = told(bare, "setup", "everything")
    assert done.returncode == 1 and "worlds, wiki, peers, vllm" in done.stderr
    assert not (bare / ".venv").exists()


def test_help_before_the_set_up_names_the_verbs_that_there_are(bare: Path) -> None:
    before = set(re.findall(r"^  (\w+)  ", told(bare).stdout, re.MULTILINE))
    after = subprocess.run(
        [sys.executable, "-m", "actors", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert before == set(re.findall(r"^  (\w+)  ", after, re.MULTILINE))


def test_it_acts_on_the_folder_that_it_is_called_from(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text(
        "raise SystemExit('a module of this folder stood in for the standard one')\n"
    )
    made = subprocess.run(
        [str(ROOT / "xp"), "env", "new", "my_world"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "my_world.py").exists() and not (ROOT / "my_world.py").exists()
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nworlds: [{id: 'my_world:MyWorld-v0', groups: 1}]\n"
    )
    checked = subprocess.run(
        [str(ROOT / "xp"), "run", "-c", "mine.yaml", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0 and "my_world:MyWorld-v0" in checked.stdout, checked.stderr
    listed = subprocess.run(
        [str(ROOT / "xp"), "env", "check", "my_world:MyWorld-v0", "--only", "startup"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in listed.stdout, listed.stderr
