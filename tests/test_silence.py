"""A run that could not do what it was started for says so: in its last line, its exit code, `show` and its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.test_house import ROOT

_SMALL = ("workers=0", "policy.layers=1", "policy.width=32", "policy.heads=2", "policy.context=128", "policy.max_tokens=8",
          "planning.enabled=false", "evaluation.episodes=2", "evaluation.final_episodes=2", "collecting.slots=4",
          "collecting.group_size=2")


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "actors", *words], cwd=folder, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_a_run_in_which_every_reset_fails_is_no_success(tmp_path: Path) -> None:
    world = '[{id: "tests.broken_worlds:NeverStarts-v0", groups: 1, demonstrations: 0}]'
    run = started(tmp_path, "run", f"worlds={world}", "budget.updates=2", "budget.minutes=0.1", *_SMALL)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1, told
    assert "nothing was learned" in told and "ConnectionError" in told
    record = json.loads((tmp_path / "runs/latest/run.json").read_text())
    assert record["status"] == "failed" and "nothing was learned" in record["why"]
    assert "This run was failed" in (tmp_path / "runs/latest/report.html").read_text()


def test_an_interrupted_run_leaves_its_report_and_says_what_it_did(tmp_path: Path) -> None:
    run = started(tmp_path, "run", "worlds=[{id: 'envs:KeyDoor-v0', groups: 2, demonstrations: 4}]", "budget.updates=5000",
                  "budget.minutes=5", "learning.imitation_passes=1", *_SMALL)
    record = tmp_path / "runs/latest/run.json"
    until = time.monotonic() + 300
    while time.monotonic() < until and run.poll() is None:
        lines = (record.parent / "metrics/metrics.jsonl")
        if lines.exists() and lines.read_text().count("\n") > 3:
            break
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 130, told
    said = json.loads(record.read_text())
    assert said["status"] == "interrupted" and said["version"] > 0 and sum(said["steps"].values()) > 0
    page = (record.parent / "report.html").read_text()
    assert "This run was interrupted" in page and "n=2" in page and "budget:" in page


def test_a_run_whose_episodes_all_earn_the_same_warns(tmp_path: Path) -> None:
    world = '[{id: "tests.broken_worlds:AllTheSame-v0", groups: 2, demonstrations: 2}]'
    run = started(tmp_path, "run", f"worlds={world}", "budget.updates=4", "budget.minutes=1", *_SMALL)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 0 and "do not differ teach nothing" in told, told
    assert "groups that do not differ teach nothing" in (tmp_path / "runs/latest/report.html").read_text()
