"""xp.run, xp.collect and xp.evaluate: real commands, their progress, errors and interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import experience as xp
from experience.opened.calling import _words
from tests.lived_runs import COIN_RUN, WrittenRun
from tests.test_house import ROOT


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def here() -> Any:
    """The world of the tests is found from the checkout's root."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def lived(runs: Path) -> tuple[xp.Run, list[dict[str, Any]]]:
    seen: list[Any] = []
    return xp.run(*COIN_RUN, {"runs_dir": str(runs)}, show=seen.append), seen


def test_a_run_from_a_script_is_a_run_like_any_other(
    lived: tuple[xp.Run, list[dict[str, Any]]], runs: Path
) -> None:
    run, seen = lived
    record = json.loads((runs / "latest" / "run.json").read_text())
    assert record["status"] == "succeeded" and record["version"] == 1
    assert len(run.steps(["t"], "source = 'real'")) == record["acked_steps"]
    phases = [of.get("phase") for of in seen]
    assert phases[0] == "starting" and phases[-1] == "done"
    assert max(of.get("version", 0) for of in seen) == 1


def test_collecting_adds_to_a_store_and_evaluating_gives_means_with_intervals(
    lived: tuple[xp.Run, list[dict[str, Any]]], runs: Path
) -> None:
    settings = (*COIN_RUN, {"runs_dir": str(runs)})
    store = xp.collect(*settings, policy="random", episodes=4, to=runs / "more")
    assert store.episodes()["behaviour_id"].to_pylist() == ["random"] * 4
    score = xp.evaluate(str(runs / "latest"), episodes=6, k=(1,), success_at=0.5, to=runs / "exam")
    [of] = score["worlds"].values()
    assert of["tasks"] == 6 and of["return"]["n"] == 6 and of["return"]["half"] is not None
    assert of["pass_at"]["1"]["mean"] == pytest.approx(of["success"]["mean"])
    assert len(xp.open(score["dir"]).episodes()) == 6


def test_a_mistake_is_raised_with_its_reason_and_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(xp.ConfigError, match=r"did you mean 'budget.updates'"):
        xp.run({"budget": {"updatess": 3}, "runs_dir": str(tmp_path)})
    with pytest.raises(xp.ConfigError, match="--log tensors: no such tracker"):
        xp.run(*COIN_RUN, {"runs_dir": str(tmp_path)}, log=["tensors"])
    with pytest.raises(xp.ConfigError, match="'--help'"):  # a setting is never an option
        xp.run("--help")
    assert list(tmp_path.iterdir()) == []


def test_settings_become_the_words_of_the_command() -> None:
    world = {"id": "envs:Reactor-v0", "groups": 2}
    settings = (Path("a.yaml"), "workers=4", {"policy": {"layers": 2}, "worlds": [world]})
    assert _words(settings) == [
        "a.yaml",
        "workers=4",
        "policy.layers=2",
        'worlds=[{"id": "envs:Reactor-v0", "groups": 2}]',
    ]


@pytest.mark.long
def test_an_interrupted_script_seals_its_run(runs: Path) -> None:
    folder = runs / "interrupted"
    code = (
        "import experience as xp; from tests.lived_runs import COIN_RUN\n"
        f"xp.run(*COIN_RUN, {{'runs_dir': {str(folder)!r}, 'budget': {{'updates': 100000}}}})"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(folder.glob("run-*/shards/*/*.open")) and time.monotonic() < until:
        time.sleep(0.2)
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=150)
    assert script.returncode != 0 and "KeyboardInterrupt" in said
    record = json.loads((folder / "latest" / "run.json").read_text())
    assert record["status"] == "interrupted" and record["exit"] == 130
    assert not list(folder.glob("run-*/shards/*/*.open"))  # every journal is sealed
    assert len(xp.open(folder / "latest").steps()) > 0


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    page = (ROOT / "docs" / "python-api.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5 and "xp.run(" in examples[-1]
    written = WrittenRun(tmp_path / "runs", "latest")
    for number in range(9):
        written.live([1.0, 2.0], split="heldout" if number % 3 else "train")
    written.close()
    monkeypatch.chdir(tmp_path)
    code = "\n".join(examples[:-1]).replace("num_workers=2", "num_workers=0")
    known = code.replace("envs:Reactor-v0", "envs:Test-v0").replace("syngas_yield", "done")
    said: dict[str, Any] = {}
    exec(known, said)
    assert said["kinder"].episodes()["total_reward"].to_pylist() == [4.0] * 9
    assert len(said["run"].steps(where='"signal.liked" = 1')) == 1
