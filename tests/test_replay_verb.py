"""`env replay`: episodes of a run picked, read, and lived again as they were lived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.reading.replayed import choose
from actors.reading.survey import survey
from experience.errors import XpError
from tests.lived_runs import WrittenRun
from tests.test_house import ROOT

LONG_WAY = "tests.argued_world:Argued-v0"


def xp(at: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors", *words],
        cwd=at,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in a world with arguments, its signals weighed as the world does not
    weigh them."""
    at = tmp_path_factory.mktemp("replayed")
    done = xp(
        at,
        "run",
        f"worlds=[{{id: '{LONG_WAY}', groups: 1, demonstrations: 2, arguments: {{pay: 3.5, "
        f"turns: 2}}, "
        "rewards: {paid: 2.0, spoken: -0.5}}]",
        "workers=0",
        "budget.updates=1",
        "policy.layers=1",
        "policy.width=32",
        "policy.heads=2",
        "policy.context=128",
        "policy.max_tokens=8",
        "policy.listed=true",
        "planning.enabled=false",
        "evaluation.episodes=1",
        "evaluation.final_episodes=3",
        "collecting.slots=2",
        "collecting.group_size=2",
        "learning.imitation_passes=1",
    )
    assert done.returncode == 0, done.stderr
    return at


def test_a_run_is_lived_again_with_its_arguments_and_rewards(lived: Path) -> None:
    done = xp(lived, "env", "replay", "latest", "--again", "--best", "2", "--worst", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the same rewards and observations") == 3
    assert "paid 3.5" in done.stdout and "reward 6.5" in done.stdout and "terminated" in done.stdout


def test_a_world_that_changed_since_is_noticed(lived: Path, tmp_path: Path) -> None:
    changed = tmp_path / "runs"
    changed.mkdir()
    subprocess.run(
        ["cp", "-r", str((lived / "runs/latest").resolve()), str(changed / "other")], check=True
    )
    config = changed / "other/config.yaml"
    config.write_text(config.read_text().replace("pay: 3.5", "pay: 4.5"))
    refused = xp(tmp_path, "env", "replay", "other", "--again", "--best", "1")
    assert refused.returncode == 5 and "--i-trust-this-code" in refused.stderr, (
        "its configuration is not what we wrote"
    )
    done = xp(tmp_path, "env", "replay", "other", "--again", "--best", "1", "--i-trust-this-code")
    assert done.returncode == 1 and "shows something else" in done.stderr, done.stderr
    config.write_text(
        config.read_text().replace("pay: 4.5", "pay: 3.5").replace("spoken: -0.5", "spoken: -1.5")
    )
    done = xp(tmp_path, "env", "replay", "other", "--again", "--best", "1", "--i-trust-this-code")
    assert done.returncode == 1 and "cannot be compared" in done.stderr, done.stderr


def test_turns_are_given_as_data_with_signals_and_rewards(lived: Path) -> None:
    done = xp(lived, "env", "replay", "latest", "--json", "--split", "heldout", "--best", "1")
    first, *_, closing = map(json.loads, done.stdout.splitlines())
    assert first["split"] == "heldout" and first["signals"].keys() == {"paid", "spoken"}
    assert first["reward"] == 2.0 * first["signals"]["paid"] - 0.5 * first["signals"]["spoken"]
    assert closing["action"] is None and closing["ending"] == "terminated"


def test_episodes_are_picked_by_world_split_version_and_return(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    for number in range(6):
        run.live(
            [number / 4],
            version=number // 2,
            split="heldout" if number % 2 else "train",
            stream=number % 2,
        )
    run.live([None])
    run.live([None], ending="env_error", error="x")
    found = survey(run.close() / "shards").episodes
    totals = [e.total for e in found]
    assert totals == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, None, None], (
        "in the order of their ends, whichever stream"
    )
    assert [e.total for e in choose(found, best=2, worst=1)] == [1.25, 1.0, 0.0]
    assert [e.total for e in choose(found, split="train", version=1)] == [0.5]
    assert [e.total for e in choose(found, split="heldout", best=99)] == [1.25, 0.75, 0.25]
    assert choose(found)[0].ending == "env_error" and choose(found, episode=0)[0].total == 0.0
    for wrong in (
        {"world": "nowhere:No-v0"},
        {"episode": 8},
        {"episode": -9},
        {"version": 7, "best": 1},
    ):
        with pytest.raises(XpError, match="closed episodes"):
            choose(found, **wrong)  # type: ignore[arg-type]
