"""`./xp env check` notices planted faults, passes a sound world, and says what it looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs.check import check, checks
from envs.episode import actor_rng, answering, do_random, live
from experience.errors import EnvironmentFailure
from tests.planted_worlds import FAULTS, Sound

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("world", "claim"), FAULTS.items())
def test_a_planted_fault_is_noticed_by_the_check_named_for_it(world: str, claim: str) -> None:
    try:
        found = {r.id: r for r in check(f"tests.planted_worlds:{world}-v0", only=[claim])}
    finally:
        _remove_planted_files()
    assert found[claim].outcome == "FAIL", found[claim].detail


def _remove_planted_files() -> None:
    for left in [*Path("/var/tmp").glob(".planted-*"), *(Path.home() / ".planted").rglob("*")]:
        if left.is_file():
            left.unlink()


def test_a_sound_world_fails_no_check_and_each_says_what_it_looked_at() -> None:
    results = list(check("tests.planted_worlds:Sound-v0"))
    assert [r for r in results if r.outcome == "FAIL"] == []
    assert {r.id for r in results} == set(checks())
    assert all(r.detail for r in results)
    assert not [r for r in results if r.outcome == "PASS" and r.detail.startswith(("0 ", "none"))]


def test_a_random_actor_does_not_share_the_random_numbers_of_the_task() -> None:
    """An actor that drew from the task's own generator would say the secret number on its first
    turn."""
    hits = 0
    for seed in range(200):
        secret = int(np.random.default_rng(seed).integers(1, 100))
        hits += int(actor_rng(seed).integers(1, 100)) == secret
    assert hits <= 10


def test_free_texts_at_random_are_words_that_the_world_shows() -> None:
    said = [
        a
        for seed in range(30)
        for a in live(Sound(), seed, do_random).actions
        if a.startswith("say")
    ]
    assert {word for line in said for word in line.split()[1:]} & {
        "three",
        "drawers",
        "shut",
        "holds",
    }


def test_a_world_that_hangs_is_ended_by_its_deadline() -> None:
    import time

    with pytest.raises(EnvironmentFailure, match="did not answer"), answering("step", 0.2):
        time.sleep(60)


def test_what_a_world_prints_does_not_stand_among_the_results(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import gymnasium\nfrom tests.planted_worlds import Sound\n"
        "class Loud(Sound):\n    def observe(self):\n        print('debug'); return "
        "super().observe()\n"
        "gymnasium.register(id='Loud-v0', entry_point=Loud)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "actors",
            "env",
            "check",
            "loud:Loud-v0",
            "--json",
            "--only",
            "seed_control",
        ],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{tmp_path}", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and done.stdout.startswith('{"id": "seed_control"')
