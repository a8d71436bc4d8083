"""A run that could not do what it was started for says so: in its last line, its exit code, `show`
and its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.runs.directory import RunDirectory
from experience.shards.catalog import Catalog
from tests.test_house import ROOT

_SMALL = (
    "workers=0",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=2",
    "policy.context=128",
    "policy.max_tokens=8",
    "planning.enabled=false",
    "evaluation.episodes=2",
    "evaluation.final_episodes=2",
    "collecting.slots=4",
    "collecting.group_size=2",
)


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "actors", *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_run_in_which_every_reset_fails_is_no_success(tmp_path: Path) -> None:
    world = '[{id: "tests.broken_worlds:NeverStarts-v0", groups: 1, demonstrations: 0}]'
    run = started(
        tmp_path, "run", f"worlds={world}", "budget.updates=2", "budget.minutes=0.1", *_SMALL
    )
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1, told
    assert "nothing was learned" in told and "ConnectionError" in told
    record = json.loads((tmp_path / "runs/latest/run.json").read_text())
    assert record["status"] == "failed" and "nothing was learned" in record["why"]
    assert "This run was failed" in (tmp_path / "runs/latest/report.html").read_text()


def test_an_interrupted_run_leaves_its_report_and_says_what_it_did(tmp_path: Path) -> None:
    run = started(
        tmp_path,
        "run",
        "worlds=[{id: 'envs:KeyDoor-v0', groups: 2, demonstrations: 4}]",
        "budget.updates=5000",
        "budget.minutes=5",
        "learning.imitation_passes=1",
        *_SMALL,
    )
    record = tmp_path / "runs/latest/run.json"
    until = time.monotonic() + 300
    while time.monotonic() < until and run.poll() is None:
        lines = record.parent / "metrics/metrics.jsonl"
        if lines.exists() and lines.read_text().count("\n") > 3:
            break
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 130, told
    said = json.loads(record.read_text())
    assert (
        said["status"] == "interrupted" and said["version"] > 0 and sum(said["steps"].values()) > 0
    )
    page = (record.parent / "report.html").read_text()
    assert "This run was interrupted" in page and "n=2" in page and "budget:" in page


def test_a_run_in_which_no_group_differs_and_random_does_as_well_is_no_success(
    tmp_path: Path,
) -> None:
    world = '[{id: "tests.broken_worlds:AllTheSame-v0", groups: 2, demonstrations: 2}]'
    run = started(
        tmp_path, "run", f"worlds={world}", "budget.updates=4", "budget.minutes=1", *_SMALL
    )
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1 and "nothing was learned: in each of 8 groups" in told, told
    assert "show more demonstrations" in told
    assert (
        "groups that do not differ teach nothing"
        in (tmp_path / "runs/latest/report.html").read_text()
    )


def last(run: subprocess.Popen[str], seconds: float = 300) -> tuple[list[dict[str, object]], str]:
    """The records that a run printed, every line of it strict JSON, and what it said."""

    def no_constant(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    out, told = run.communicate(timeout=seconds)
    return [json.loads(record, parse_constant=no_constant) for record in out.splitlines()], told


def test_a_world_whose_experts_never_end_is_left_after_the_budget_of_its_phase(
    tmp_path: Path,
) -> None:
    world = '[{id: "tests.broken_worlds:Endless-v0", groups: 1, demonstrations: 2}]'
    run = started(
        tmp_path, "run", "--json", f"worlds={world}", "budget.phase_minutes=0.02", *_SMALL
    )
    records, told = last(run)
    assert (
        run.returncode == 1
        and "not one of 2 demonstrations could be had: 0 of 2 after 0.02 minutes" in told
    ), told
    assert records[-1]["kind"] == "error" and "budget.phase_minutes" in str(records[-1]["hint"])
    assert {r["kind"] for r in records[:-1]} == {"progress"}
    assert any(r.get("done") == {"demonstrations": [0, 2], "baseline": [0, 2]} for r in records), (
        "done of how much"
    )


def test_a_run_goes_on_with_what_a_phase_gave_and_says_what_was_cut(tmp_path: Path) -> None:
    """Here the baseline and every evaluation are endless, and the experts are not."""
    # inside: to start a process of its own would take up the phase's second on a busy machine
    world = '[{id: "tests.broken_worlds:Endless-v0", isolation: inside, groups: 0, demonstrations: 2, arguments: {expert_ends: true}}]'
    run = started(
        tmp_path,
        "run",
        f"worlds={world}",
        "budget.updates=0",
        "budget.phase_minutes=0.02",
        *_SMALL,
        "learning.imitation_passes=0",
    )
    out, told = run.communicate(timeout=300)
    assert run.returncode == 0, told
    assert (
        "baseline 0 of 2 after 0.02 minutes" in out
        and "final evaluation 0 of 2" in out
        and "not evaluated" in out
    )
    assert "demonstrations" not in out and "nan" not in out and "0.00" not in out
    assert "warning: final evaluation: 0 of 2" in told
    assert "baseline: 0 of 2" in (tmp_path / "runs/latest/report.html").read_text()
    kept = json.loads((tmp_path / "runs/latest/run.json").read_text())
    assert kept["cut_short"].keys() == {"baseline", "final evaluation"}
    assert "NaN" not in (tmp_path / "runs/latest/metrics/metrics.jsonl").read_text()


def test_imitation_ends_with_its_budget_and_the_run_goes_on(tmp_path: Path) -> None:
    run = started(
        tmp_path,
        "run",
        "--json",
        "worlds=[{id: 'tests.broken_worlds:Ten-v0', groups: 1, demonstrations: 4}]",
        "budget.updates=0",
        "budget.phase_minutes=0.05",
        *_SMALL,
        "learning.imitation_passes=10000",
        "collecting.slots=8",
    )
    records, told = last(run)
    assert run.returncode == 0, told
    assert "of 10000 after 0.05 minutes" in str(records[-1]["cut_short"])
    assert (
        any(r.get("done") == {"imitation pass": [1, 10000]} for r in records)
        and "imitation pass 1 of 10000" in told
    )


def test_an_expert_that_fails_is_a_failure_of_its_world_with_its_traceback(tmp_path: Path) -> None:
    world = '[{id: "tests.broken_worlds:LostExpert-v0", groups: 1, demonstrations: 3}]'
    run = started(tmp_path, "run", f"worlds={world}", "budget.updates=1", *_SMALL)
    _, told = run.communicate(timeout=300)
    assert (
        run.returncode == 1
        and "3 × tests.broken_worlds:LostExpert-v0: IndexError: no path found from here" in told
    )
    (kept,) = RunDirectory(tmp_path / "runs/latest").failures()
    assert (kept["world"], kept["count"]) == ("tests.broken_worlds:LostExpert-v0", 3)
    assert kept["what"] == "IndexError: no path found from here"
    assert "in expert_action" in kept["traceback"] and kept["traceback"].startswith("Traceback")


def test_failures_of_a_world_stand_in_the_last_line(tmp_path: Path) -> None:
    """Two worlds: what one is not able to do, the other does not hide."""
    worlds = (
        '[{id: "tests.broken_worlds:Ten-v0", groups: 1, demonstrations: 4}, '
        '{id: "tests.broken_worlds:NeverStarts-v0", groups: 1, demonstrations: 0}]'
    )
    run = started(
        tmp_path, "run", f"worlds={worlds}", "budget.updates=2", *_SMALL, "policy.listed=true"
    )
    out, told = run.communicate(timeout=300)
    assert run.returncode == 0, told
    assert "NeverStarts-v0: ConnectionError: the simulator is not up (failures.json)" in out
    assert "NeverStarts-v0 not evaluated" in out and "nan" not in out
    lived = json.loads((tmp_path / "runs/latest/run.json").read_text())["failures"]
    assert lived["tests.broken_worlds:NeverStarts-v0: ConnectionError"] >= 4


def test_a_version_is_not_made_of_nothing(tmp_path: Path) -> None:
    world = '[{id: "tests.broken_worlds:NeverStarts-v0", groups: 1, demonstrations: 0}]'
    run = started(tmp_path, "run", "--json", f"worlds={world}", "budget.updates=3", *_SMALL)
    records, told = last(run)
    assert run.returncode == 1 and "nothing was learned" in told
    assert (records[-1]["kind"], records[-1]["version"]) == ("error", 0)
    assert "the simulator is not up" in str(records[-1]["why"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_limit_of_steps_is_kept_to_the_step(tmp_path: Path, workers: int) -> None:
    run = started(
        tmp_path,
        "run",
        "--json",
        "worlds=[{id: 'tests.broken_worlds:Ten-v0', groups: 1, demonstrations: 4}]",
        "budget.updates=50",
        *_SMALL,
        f"workers={workers}",
        "--limit",
        "30",
    )
    records, told = last(run)
    assert run.returncode == 0, told
    rows = [s for block in Catalog(tmp_path / "runs/latest/shards").follow() for s in block]
    assert records[-1]["training_steps"] == sum(s.is_training for s in rows) == 30


def test_a_limit_before_the_first_update_is_kept_and_said(tmp_path: Path) -> None:
    run = started(
        tmp_path,
        "run",
        "--json",
        "worlds=[{id: 'tests.broken_worlds:Ten-v0', groups: 1, demonstrations: 4}]",
        *_SMALL,
        "--limit",
        "3",
    )
    records, told = last(run)
    assert run.returncode == 0 and records[-1]["training_steps"] == 3, told
    assert "no update: the limit of steps was reached" in told


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (
            "demonstrations",
            ["worlds=[{id: 'tests.broken_worlds:Endless-v0', groups: 1, demonstrations: 2}]"],
        ),
        (
            "imitation",
            [
                "worlds=[{id: 'tests.broken_worlds:Ten-v0', groups: 1, demonstrations: 4}]",
                "learning.imitation_passes=10000",
            ],
        ),
    ],
)
def test_ctrl_c_in_any_phase_says_what_is_kept_and_how_to_go_on(
    tmp_path: Path, phase: str, words: list[str]
) -> None:
    run = started(tmp_path, "run", "--json", *_SMALL, *words)
    assert run.stdout is not None
    for record in map(json.loads, run.stdout):
        if record["phase"] == phase:
            break
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    records, told = last(run)
    name = (tmp_path / "runs/latest").resolve().name
    assert (
        run.returncode == 130
        and f"interrupted while {phase}" in told
        and f"./xp resume {name}" in told
    ), told
    assert " rows" in told and told.count("interrupted") == 1
    assert (records[-1]["kind"], records[-1]["status"], records[-1]["exit"]) == (
        "error",
        "interrupted",
        130,
    )


def test_imitation_killed_goes_on_from_its_last_pass_and_lives_nothing_again(
    tmp_path: Path,
) -> None:
    words = (
        "worlds=[{id: 'tests.broken_worlds:Ten-v0', groups: 1, demonstrations: 4}]",
        "budget.updates=0",
        *_SMALL,
        "learning.imitation_passes=40",
        "learning.batch_turns=4",
    )
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = started(tmp_path / "whole", "run", *words)
    killed = started(tmp_path / "killed", "run", *words)
    checkpoints = tmp_path / "killed/runs/latest/checkpoints"
    until = time.monotonic() + 240
    while (
        not list(checkpoints.glob("imitation-*"))
        and killed.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert list(checkpoints.glob("imitation-*")) and not list(checkpoints.glob("step-*"))
    before = {
        (s.stream_id, s.t)
        for block in Catalog(checkpoints.parent / "shards").follow()
        for s in block
    }
    again = started(tmp_path / "killed", "resume")
    assert again.communicate(timeout=300) and again.returncode == 0 and whole.wait(300) == 0
    weights = [
        (tmp_path / f / "runs/latest/checkpoints/step-000000/policy.safetensors").read_bytes()
        for f in ("whole", "killed")
    ]
    assert weights[0] == weights[1]
    rows = [s for block in Catalog(checkpoints.parent / "shards").follow() for s in block]
    lived = [s.work_id for s in rows if s.is_closing]
    assert len(lived) == len(set(lived)) and before <= {(s.stream_id, s.t) for s in rows}
    assert [p.name for p in checkpoints.iterdir()] == ["step-000000"]


def test_seconds_go_on_while_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actors.reading import live
    from actors.running.progress import Progress

    monkeypatch.setattr(live, "_SECONDS_A_LINE", 0.9)
    with live.LiveTable("r") as table:
        table.update(
            Progress("r", seconds=100.0, phase="imitation", done={"imitation pass": (3, 22)})
        )
        until, told = time.monotonic() + 60, ""
        while told.count("imitation pass 3 of 22") < 4 and time.monotonic() < until:
            time.sleep(0.05)
            told += capsys.readouterr().err
    seconds = [
        int(line.split()[0]) for line in told.splitlines() if "imitation pass 3 of 22" in line
    ]
    assert len(seconds) >= 4 and seconds[0] == 100 and seconds[-1] > seconds[0]


def test_what_ray_says_goes_to_a_file_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "ray.log"
    code = (
        "import logging, pathlib\nfrom actors.pool.starting.ray_start import log_ray_to\n"
        f"log_ray_to(pathlib.Path({str(path)!r}))\nfrom ray._private import worker\n"
        "worker.print_to_stdstream({'lines': ['a worker died'], 'pid': 'raylet', 'is_err': "
        "True}, ignore_prefix=False)\n"
        "logging.getLogger('ray.data').warning('a warning')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode == 0
        and not done.stdout
        and "died" not in done.stderr
        and "a warning" not in done.stderr
    )
    assert "(raylet) a worker died" in path.read_text() and "a warning" in path.read_text()


@pytest.mark.parametrize("world", ["HangsClosing", "LeavesThreads"])
def test_a_world_that_never_lets_go_does_not_hold_the_end_up(tmp_path: Path, world: str) -> None:
    run = started(
        tmp_path,
        "run",
        f"worlds=[{{id: 'tests.broken_worlds:{world}-v0', groups: 1, demonstrations: 0}}]",
        "budget.updates=1",
        *_SMALL,
        "evaluation.final_episodes=1",
    )
    out, told = run.communicate(timeout=300)
    assert run.returncode == 0 and "rows acknowledged" in out, told
