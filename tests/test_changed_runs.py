"""A run that is gone on with: its configuration is held against what its store was made with, its
checkpoint is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.config.changes import changes
from actors.runs.directory import RunDirectory
from experience.errors import ShardError

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "worlds=[{id: 'envs:KeyDoor-v0', groups: 1, demonstrations: 2}]",
    "budget.updates=2",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=2",
    "policy.context=96",
    "policy.max_tokens=8",
    "collecting.slots=2",
    "collecting.group_size=2",
    "learning.imitation_passes=1",
    "planning.enabled=false",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
    "evaluation.every=1",
]


def xp(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "actors", *words],
        cwd=at,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(at / "state")},
    )


def ran(done: subprocess.CompletedProcess[str]) -> bool:
    """To its end: with so few steps in such a grid it may have had nothing to learn from, and then
    says so."""
    return done.returncode == 0 or "error: nothing was learned" in done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("made")
    done = xp("run", *WORDS, at=at)
    assert ran(done), done.stderr
    return at


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of one run, on the machine that made it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return next((tmp_path / "runs").glob("run-*"))


def edited(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new, 1))


def test_a_run_whose_configuration_was_edited_says_what_was_and_what_is(run: Path) -> None:
    edited(run, "  updates: 2\n", "  updates: 3\n")
    edited(run, "  learning_rate: 0.0003\n", "  learning_rate: 0.001\n")
    done = xp("resume", str(run), at=run.parent.parent)
    assert ran(done), done.stderr
    for said in ("budget.updates: was 2, is 3", "learning.learning_rate: was 0.0003, is 0.001"):
        assert said in done.stderr and said in json.loads((run / "run.json").read_text())["changed"]
    assert json.loads((run / "run.json").read_text())["version"] == 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("group_size: 2", "group_size: 4", "collecting.group_size: was 2, is 4"),
        ("width: 32", "width: 64", "policy.width: was 32, is 64"),
        ("seed: 0", "seed: 1", "seed: was 0, is 1"),
        (
            "arguments: {}",
            "arguments: {stages: 2}",
            "worlds[envs:KeyDoor-v0].arguments: was {}, is {'stages': 2}",
        ),
        (
            "id: envs:KeyDoor-v0",
            "id: envs:Text-v0",
            "worlds[envs:KeyDoor-v0]: was 'listed', is 'not set'",
        ),
    ],
)
def test_what_would_make_the_rows_wrong_is_refused_and_changes_nothing(
    old: str, new: str, says: str, run: Path
) -> None:
    before = (run / "run.json").read_bytes()
    edited(run, old, new)
    done = xp("resume", str(run), "--i-trust-this-code", at=run.parent.parent)
    assert done.returncode == 2 and says in done.stderr
    assert (
        f"put the old values back, or begin another run: ./xp run -c {run}/config.yaml"
        in done.stderr
    )
    assert "Traceback" not in done.stderr and (run / "run.json").read_bytes() == before


def test_an_old_key_in_a_runs_configuration_names_the_file_and_both_sources(run: Path) -> None:
    edited(run, "seed: 0", "seed: 0\nnum_workers: 3")
    done = xp("resume", str(run), at=run.parent.parent)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{run}/config.yaml:" in done.stderr and "num_workers: unknown key" in done.stderr
    assert "is of a run that source" in done.stderr and "take out or rename" in done.stderr


@pytest.mark.parametrize("gone", ["SHA256SUMS", "policy.safetensors", "learner.json", "*"])
def test_a_checkpoint_that_is_not_whole_is_named_with_the_one_before_it(
    gone: str, run: Path
) -> None:
    newest, before = (
        sorted((run / "checkpoints").glob("step-*"))[-1],
        sorted((run / "checkpoints").glob("step-*"))[-2],
    )
    for file in newest.glob(gone):
        file.unlink()
    with pytest.raises(ShardError, match=f"checkpoint {newest.name}: ") as raised:
        RunDirectory(run).checkpoints.newest()
    assert f"remove it to go on from {before.name}" in str(raised.value)
    done = xp("resume", str(run), at=run.parent.parent)
    assert done.returncode == 4 and newest.name in done.stderr and "Traceback" not in done.stderr
    shutil.rmtree(newest)
    assert ran(xp("resume", str(run), at=run.parent.parent))


def test_a_checkpoint_of_another_learner_says_what_it_lacks(run: Path) -> None:
    saved: Any = RunDirectory(run).checkpoints.newest()
    with pytest.raises(
        ShardError, match=r"step-\d+ has no value.safetensors: it is of another learner"
    ):
        saved["value.safetensors"]


def test_the_newest_checkpoint_is_that_of_the_highest_version(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for version in (999_999, 1_000_000):
        run.checkpoints.save(version, {"learner.json": str(version).encode()})
    (run.checkpoints.folder / "step-notes").mkdir()
    assert (run.checkpoints.newest() or {})["learner.json"] == b"1000000"


def test_changes_are_told_by_key_and_those_of_worlds_by_id() -> None:
    before = {
        "name": "a",
        "worlds": [{"id": "x", "groups": 1}, {"id": "y", "groups": 1}],
        "policy": {"width": 8},
    }
    now = {
        "name": "b",
        "worlds": [{"id": "y", "groups": 2}, {"id": "x", "groups": 1}],
        "policy": {"width": 8, "epsilon": 0.2},
    }
    assert list(map(str, changes(before, now))) == [
        "worlds[y].groups: was 1, is 2",
        "policy.epsilon: was 'not set', is 0.2",
    ]
    assert not any(change.why_not for change in changes(before, now))
