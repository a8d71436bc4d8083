"""What a command gives is what it says: JSON that any reader takes, on a stdout of its own, in the
folder that was named."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from actors.agents.planner import make_world_model
from actors.config.schema import Config
from actors.runs.directory import RunDirectory
from experience.shards.exchange import export
from experience.shards.journal import Journal
from experience.signal import Signal
from experience.step import Boundary
from experience.text.strict_json import dumps, exact
from tests.conftest import CATALOGUE, make_step

ROOT = Path(__file__).resolve().parent.parent
LOUD = "tests.loud_world:Loud-v0"
ARGUMENTS = "{command: [npx, -y, 1e-5], more: {deep: [{a: [NO, 12:30, null]}]}}"
TINY = [
    "budget.updates=2",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=2",
    "policy.context=256",
    "policy.max_tokens=8",
    "policy.listed=true",
    "collecting.slots=2",
    "collecting.group_size=2",
    "learning.imitation_passes=1",
    "planning.enabled=false",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
]


def xp(*words: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "actors", *words],
        cwd=at,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def strict(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON: {text[:200]}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in `out/`, of a world that prints and changes the directory."""
    at = tmp_path_factory.mktemp("lived")
    done = xp(
        "run",
        f"worlds=[{{id: '{LOUD}', groups: 1, demonstrations: 2, arguments: {ARGUMENTS}}}]",
        *TINY,
        "runs_dir=out",
        "--json",
        at=at,
    )
    assert done.returncode == 0, done.stderr
    (at / "said").write_text(done.stdout)
    (at / "talk").write_text(done.stderr)
    return at


def test_a_world_that_prints_in_every_way_does_not_reach_a_runs_stdout(lived: Path) -> None:
    events = [
        strict(line).get("event", "progress") for line in (lived / "said").read_text().splitlines()
    ]
    assert (events[0], events[-1]) == ("launch", "done")
    for way in (
        "print",
        "write",
        "stdout of the interpreter",
        "descriptor",
        "C library",
        "program",
    ):
        assert f"LOUD {way}" in (lived / "talk").read_text(), way


def test_a_relative_folder_stays_where_it_was_when_a_world_changes_directory(lived: Path) -> None:
    [run] = (lived / "out").glob("run-*")
    assert (
        (run / "report.html").exists()
        and list((run / "shards").glob("*/*"))
        and list((run / "checkpoints").iterdir())
    )
    assert strict((run / "run.json").read_text())["status"] == "succeeded"
    for line in (run / "metrics" / "metrics.jsonl").read_text().splitlines():
        strict(line)


@pytest.mark.parametrize(
    "words",
    [
        ["env", "check", LOUD, "--json", "--only", "seed_control", "--only", "resource_envelope"],
        ["env", "bench", LOUD, "--json", "--seconds", "0.1"],
        ["env", "replay", "RUN", "--again", "--json"],
        ["show", "RUN", "--json"],
        ["verify", "RUN", "--json"],
        [
            "query",
            "RUN",
            "select count(*) as n, 'nan'::float as a, {'b': 'inf'::float} as c, map([1], [2]) "
            "as d, map([date '2026-01-01'], [1]) as e from steps",
            "--json",
        ],
        ["ls", "--runs-dir", "out", "--json"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_verbs_json_is_json_line_for_line(words: list[str], lived: Path) -> None:
    [run] = (lived / "out").glob("run-*")
    done = xp(*[str(run) if w == "RUN" else w for w in words], at=lived)
    assert done.stdout.strip(), done.stderr
    for line in done.stdout.splitlines():
        assert isinstance(strict(line), dict)
    assert "Traceback" not in done.stderr


def test_a_worlds_arguments_reach_it_unchanged_in_every_episode_and_in_its_card(
    lived: Path,
) -> None:
    [run] = (lived / "out").glob("run-*")
    whole = "{'command': ['npx', '-y', 1e-05], 'more': {'deep': [{'a': ['NO', '12:30', None]}]}}"
    asked = xp(
        "query",
        str(run),
        "select distinct obs_text from steps where step_in_episode = 0",
        "--json",
        at=lived,
    )
    seen = [strict(line)["obs_text"].partition("; ")[2] for line in asked.stdout.splitlines()]
    assert set(seen) == {whole}
    card = xp("env", "card", LOUD, "--set", "command=[npx, -y, 1e-5]", "--episodes", "1", at=lived)
    assert "['npx', '-y', 1e-05]" in card.stdout
    assert "LOUD" not in card.stdout


def test_a_number_that_is_not_finite_is_null_however_deep_it_stands() -> None:
    assert strict(dumps({"a": [1.5, math.nan, {"b": (math.inf, -math.inf)}], 3: 1})) == {
        "a": [1.5, None, {"b": [None, None]}],
        "3": 1,
    }
    assert [float(exact(x)) for x in (0.1, math.inf, -math.inf)] == [0.1, math.inf, -math.inf]
    with pytest.raises(TypeError):
        dumps(object())


def test_a_runs_record_and_metrics_hold_no_bare_nan(tmp_path: Path) -> None:
    run = RunDirectory.create(Config(runs_dir=str(tmp_path)), {}, [])
    run.write_record(held_out={"w": math.nan})
    run.log({"loss": math.nan, "metrics": {"norm": math.inf}})
    assert strict((run.path / "run.json").read_text())["held_out"] == {"w": None}
    assert strict((run.path / "metrics" / "metrics.jsonl").read_text())["metrics"] == {"norm": None}


@pytest.mark.parametrize("room", ["actors", "experience", "benchmarks"])
def test_json_is_made_in_one_place_and_printed_by_one_function(room: str) -> None:
    """`json.dumps` writes NaN, and a `print` to stdout would go among what worlds print."""
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called, where = ast.unparse(node.func), f"{path.relative_to(ROOT)}:{node.lineno}"
            assert called not in ("json.dumps", "json.dump") or path.name == "strict_json.py", where
            to = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("file", "")
            assert called != "print" or to == "sys.stderr" or room != "actors", where


def test_without_a_home_that_can_be_written_to_a_run_is_as_it_is_with_one(tmp_path: Path) -> None:
    words = [f"worlds=[{{id: '{LOUD}', groups: 1, demonstrations: 1}}]", *TINY, "budget.updates=1"]
    done = xp("run", *words, "--json", at=tmp_path, HOME="/proc/nothing")
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout.splitlines()[-1])["status"] == "succeeded"
    code = "import os; from actors.pool.starting.ray_start import give_token; give_token(); print(len(os.environ.get('RAY_AUTH_TOKEN', '')))"
    for home, length in (("/proc/nothing", "64"), (str(tmp_path), "0")):
        given = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"} | {"HOME": home},
        )
        assert given.stdout.strip() == length


@pytest.mark.parametrize("folder", ["/proc/nothing", "a file/x", "~no-such-user/x"])
def test_a_folder_for_runs_that_cannot_be_written_to_is_an_error_in_words(
    folder: str, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("")
    done = xp("run", "worlds=[{id: 'envs:KeyDoor-v0'}]", f"runs_dir={folder}", at=tmp_path)
    assert done.returncode in (1, 2) and folder.partition("/")[0] in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_what_is_exported_is_json_though_a_world_said_nan(tmp_path: Path) -> None:
    rows = [
        make_step(
            t,
            env_id="envs:Test-v0",
            info={"x": math.nan, "deep": [{"y": math.inf}]},
            signals=(Signal("done", math.nan, "fraction", "env_state"),),
        )
        for t in range(3)
    ]
    rows.append(
        make_step(
            3,
            closing=True,
            env_id="envs:Test-v0",
            ending="terminated",
            boundary=Boundary.TERMINATED,
        )
    )
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    for step in rows:
        journal.append(step)
    journal.close()
    for to in ("jsonl", "atif", "lerobot"):
        export(tmp_path / "store", to, tmp_path / to)
        files = [p for p in (tmp_path / to).rglob("*") if p.suffix in (".json", ".jsonl")]
        assert files, to
        for path in files:
            for text in (
                path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            ):
                strict(text)


@pytest.mark.parametrize("accuracy", [0.0, 0.9])
def test_a_world_models_infinite_threshold_is_kept_in_json(accuracy: float) -> None:
    """Without a gate it is +inf, before the first measurement -inf."""
    planning = {"trusted_accuracy": accuracy, "layers": 1, "width": 16}
    model = make_world_model(Config.model_validate({"planning": {"model": planning}}))
    saved = dict(model.save())
    assert "Infinity" not in saved["world_model.json"].decode()
    strict(saved["world_model.json"].decode())
    other = make_world_model(
        Config.model_validate({"planning": {"model": planning | {"trusted_accuracy": 0.5}}})
    )
    other.restore(saved)
    assert other.threshold == model.threshold == (math.inf if accuracy == 0 else -math.inf)
