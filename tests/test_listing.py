"""`ls` and `show`: what a run was, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from actors.reading.listing import seconds_of, show_run, status_of, summary
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError
from tests.lived_runs import WrittenRun
from tests.test_house import ROOT

NO_LEARNER = (
    "policy: {engine: openai, model: m, base_url: 'http://127.0.0.1:9/v1', learns: false}\n"
)


def strict(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def shown(path: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> str:
    show_run(RunDirectory(path), as_json)
    return capsys.readouterr().out


def test_a_run_whose_process_is_gone_is_interrupted_and_one_that_lives_is_running(
    tmp_path: Path,
) -> None:
    path = WrittenRun(tmp_path, status="running").close()
    code = (
        "import sys; from pathlib import Path; from actors.runs.directory import RunDirectory\n"
        f"RunDirectory(Path({str(path)!r})).hold(); print('held', flush=True); sys.stdin.read()"
    )
    living = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert living.stdout and living.stdout.readline() == b"held\n"
    directory = RunDirectory(path)
    assert status_of(directory, directory.record) == "running"
    with pytest.raises(ConfigError, match="is running in another process"):
        directory.begin_again()
    living.kill()
    living.wait()
    assert status_of(directory, directory.record) == "interrupted"
    directory.begin_again(seconds=3.0)
    assert (directory.record["attempts"], directory.record["status"]) == (2, "running")


def test_a_killed_run_has_the_steps_version_and_seconds_that_it_reached(tmp_path: Path) -> None:
    began = time.time() - 100
    run = WrittenRun(tmp_path, status="running", started=began, seconds=0, version=0, steps={})
    run.live([0.5, 0.5], version=3)
    run.live([0.0], source="demonstration", version=0)
    run.log(
        {"t": began + 20, "seconds": 20.0, "version": 2},
        {"t": began + 30, "seconds": 30.0, "version": 3},
    )
    path = run.close()
    for file in path.rglob("*"):
        os.utime(file, (began + 40, began + 40))
    row = summary(RunDirectory(path))
    assert (row["status"], row["version"], row["steps"]) == (
        "interrupted",
        3,
        {"real": 2, "demonstration": 1},
    )
    assert row["seconds"] == pytest.approx(40, abs=1)


def test_the_seconds_of_all_attempts_count_and_a_resumed_run_says_from_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = WrittenRun(
        tmp_path,
        status="running",
        started=time.time() - 1000,
        seconds=70.0,
        resumed=[{"at": time.time() - 50, "version": 4}],
        attempts=2,
    ).close()
    assert seconds_of(RunDirectory(path)) == pytest.approx(120, abs=5)
    said = shown(path, capsys)
    assert "2 attempts" in said and "from version 4" in said and "interrupted" in said
    assert summary(RunDirectory(path))["version"] == 4, (
        "what it said before it was resumed does not hold any more"
    )


def test_an_ambiguous_name_lists_its_matches(tmp_path: Path) -> None:
    for name in ("demo-a1", "demo-a2", "demo-b1", "other-1"):
        WrittenRun(tmp_path, name).close()
    with pytest.raises(ConfigError, match=r"begins 2 runs(?s:.)*demo-a1, demo-a2$"):
        RunDirectory.find("demo-a", str(tmp_path))


def test_a_policy_that_does_not_learn_has_no_imitation_and_no_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = WrittenRun(tmp_path, config=NO_LEARNER, version=2, steps={"real": 8})
    for seed in range(5):
        run.live([0.25], split="heldout", seed=seed, behaviour="random")
        for version in (0, 2):  # rounds of one and the same policy, on the same tasks
            run.live([0.5 + 0.25 * (version > 0)], split="heldout", seed=seed, version=version)
    path = run.close()
    said = shown(path, capsys)
    assert "random 0.25 ± 0.00, n = 5" in said and "policy 0.62 ± 0.00, n = 5" in said, said
    told = said.replace(str(tmp_path), "")
    assert not [word for word in ("imitation", "(v", "version", "gain") if word in told]
    assert strict(shown(path, capsys, as_json=True))["held_out"]["envs:Test-v0"].keys() == {
        "random",
        "policy",
    }


def test_returns_are_read_from_the_rows_with_n_and_the_gain_is_taken_task_by_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = WrittenRun(tmp_path, status="interrupted")
    for seed in range(6):
        run.live([seed / 8], split="heldout", seed=seed)
        run.live([seed / 8 + 0.25], split="heldout", seed=seed, version=7)
    run.live([None], split="heldout", seed=9, version=7)
    run.live(
        [], split="heldout", seed=8, ending="env_error", error="ConnectionError: no\nwhere: here"
    )
    run.live([None], split="heldout", seed=7, ending="env_error", error="ConnectionError: still no")
    path = run.close()
    said = shown(path, capsys)
    assert "imitation (v0) 0.31 ± 0.25, n = 6" in said and "last (v7) 0.56 ± 0.25, n = 6" in said, (
        said
    )
    assert "gain, task by task 0.25 ± 0.00, n = 6" in said
    assert (
        "2 × envs:Test-v0, first: ConnectionError: no" in said
        and "Traceback of ConnectionError: no" in said
    )
    assert "still" not in said, "only the first is told"
    told = strict(shown(path, capsys, as_json=True))
    assert told["held_out"]["envs:Test-v0"]["versions"]["7"]["n"] == 6
    assert (
        told["failures"][0]["count"] == 2
        and told["held_out"]["envs:Test-v0"]["random"]["mean"] is None
    )


def test_a_run_that_was_killed_is_resumed_and_says_so(tmp_path: Path) -> None:
    words = [
        "run",
        "worlds=[{id: 'envs:KeyDoor-v0', groups: 1, demonstrations: 2}]",
        "budget.updates=4000",
        "name=k",
        "workers=0",
        "policy.layers=1",
        "policy.width=32",
        "policy.heads=2",
        "policy.context=128",
        "policy.max_tokens=8",
        "planning.enabled=false",
        "evaluation.episodes=2",
        "evaluation.final_episodes=2",
        "evaluation.every=1",
        "collecting.slots=4",
        "collecting.group_size=2",
        "learning.imitation_passes=1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def xp(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "actors", *words],
            cwd=tmp_path,
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def until_update(more: int) -> None:
        metrics = tmp_path / "runs/latest/metrics/metrics.jsonl"
        before = metrics.read_text().count("\n") if metrics.exists() else 0
        until = time.monotonic() + 300
        while not (metrics.exists() and metrics.read_text().count("\n") >= before + more):
            assert time.monotonic() < until, "no update"
            time.sleep(0.1)

    def listed() -> Any:
        said, _ = xp("ls", "--json").communicate(timeout=120)
        return strict(said)

    run = xp(*words)
    until_update(2)
    assert listed()["status"] == "running"
    run.kill()
    run.wait()
    dead = listed()
    assert (
        dead["status"] == "interrupted"
        and dead["version"] >= 2
        and dead["steps"]["real"] > 0 < dead["seconds"]
    )
    again = xp("resume")
    until_update(1)
    again.send_signal(signal.SIGINT)
    again.wait(timeout=120)
    after = listed()
    assert (after["status"], after["attempts"]) == ("interrupted", 2)
    assert after["version"] >= dead["version"] - 1 and after["seconds"] > dead["seconds"]
    record = json.loads((tmp_path / "runs/latest/run.json").read_text())
    assert dead["version"] - 1 <= record["resumed"][0]["version"] <= dead["version"]
