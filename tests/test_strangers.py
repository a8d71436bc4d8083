"""Environments of others, as PyPI has them, through envs:Text-v0 (./xp setup peers)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.worlds.strangers import (
    PAGE,
    PYTHON,
    STRANGERS,
    played,
    row_of,
    written_into,
)

QUICK = ("minigrid",)
FAULTY = ("gym-sokoban, by shimmy", "gymnasium-robotics, maze", "vizdoom")
"""Faults of their own that the check reports: Sokoban ignores its seed, the others leave a file."""


def there() -> None:
    if not PYTHON.exists():
        pytest.skip("no strangers here: ./xp setup peers")


@pytest.mark.parametrize("package", QUICK)
def test_a_strangers_world_shows_what_lies_in_its_spaces(package: str) -> None:
    there()
    given = ["--set", f"world={STRANGERS[package][0]}", "--set", "max_turns=9"]
    only = ("--only", "startup", "--only", "observation_schema", "--only", "gymnasium_checker")
    words = ["-m", "envs", "check", "envs:Text-v0", *given, "--episodes", "1", *only, "--json"]
    done = played(words, 120)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["outcome"] for result in results] == ["PASS"] * 3, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("package", STRANGERS)
def test_a_stranger_from_pypi_passes_every_check_unmodified_and_is_lived_in(package: str) -> None:
    there()
    row = row_of(package)
    assert "missing" not in row, row
    assert (row["check"].get("FAIL", 0) > 0) == (package in FAULTY), row
    assert row["check"]["PASS"] >= 11, row
    assert row["steps_per_second"] > 1


@pytest.mark.long
def test_a_run_lives_in_a_strangers_world_and_keeps_its_pixels_as_pictures(tmp_path: Path) -> None:
    there()
    inside = "{world: CarRacing-v3, max_turns: 3}"
    world = f'{{id: "envs:Text-v0", arguments: {inside}, groups: 1, demonstrations: 0}}'
    tiny = "policy={engine: small, layers: 1, width: 16, heads: 2, context: 128, max_tokens: 8}"
    settings = [f"worlds=[{world}]", f"runs_dir={tmp_path}", "workers=0", "budget.updates=1", tiny]
    ran = played(["-m", "actors", "run", *settings, "--limit", "6"], 300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    (run,) = tmp_path.glob("run-*")
    picture = "select distinct obs_blobs[1].role as role, obs_blobs[1].w as w from steps"
    asked = played(["-m", "actors", "query", str(run), picture, "--json"], 100)
    assert json.loads(asked.stdout) == {"role": "observation", "w": 96}, asked


def test_the_page_has_a_row_for_every_stranger() -> None:
    page = PAGE.read_text()
    assert [package for package in STRANGERS if f"\n| {package} |" not in page] == []


def test_rows_that_were_not_measured_again_stay_on_the_page() -> None:
    old = "| x |\n| minigrid | old |\n| nle | old |"
    page = f"before <!-- strangers -->\n{old}\n<!-- /strangers --> after"
    lines = written_into(page, {"nle": "| nle | new |"}).split("\n")
    assert lines[0] == "before <!-- strangers -->" and lines[-1] == "<!-- /strangers --> after"
    assert lines[3:-1] == ["| minigrid | old |", "| nle | new |"]
