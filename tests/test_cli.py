"""The command: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import envs
from experience.shards.journal import Journal
from tests.conftest import CATALOGUE, make_step
from tests.lived_runs import COIN_RUN

ROOT = Path(__file__).resolve().parent.parent


def xp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors", *words], cwd=ROOT, capture_output=True, text=True
    )


def test_help_names_the_verbs_that_work_and_no_others() -> None:
    out = xp("--help").stdout
    for verb in (
        "demo",
        "run",
        "collect",
        "eval",
        "resume",
        "submit",
        "ls",
        "show",
        "verify",
        "query",
        "compact",
        "export",
        "import",
        "bench",
        "test",
        "doctor",
        "config",
        "env",
    ):
        assert f"\n  {verb} " in out.replace("│", " ").replace("  ", " ").replace("\n ", "\n  "), (
            verb
        )
    assert "viewer" not in out


def test_doctor_finds_every_part_of_this_machine() -> None:
    done = xp("doctor", "--json")
    found = {line["part"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout
    assert found["sandbox"]["found"] == "tier namespaces"
    assert found["browser"]["ok"]


def test_worlds_are_listed_with_their_ids() -> None:
    listed = [json.loads(line) for line in xp("env", "list", "--json").stdout.splitlines()]
    assert [w["id"] for w in listed] == [f"envs:{name}" for name in envs.WORLDS]
    assert all(w["summary"] for w in listed), (
        "a world says in a line what it is, without its heavy parts"
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["show", "no-such-run"], 2, "no run 'no-such-run'"),
        (["config", "explain", "learning.maxlag"], 2, "learning.max_lag"),
        (["run", "worlds=[{id: 'nowhere:No-v0'}]"], 2, "nowhere"),
        (["frobnicate"], 2, "frobnicate"),
        (["submit", "configs/local.yaml"], 2, "RAY_ADDRESS"),
        (["run", "sandbox.min_tier=none"], 5, "--i-trust-this-code"),
    ],
)
def test_a_mistake_ends_with_its_code_and_a_next_step(
    words: list[str], code: int, says: str
) -> None:
    done = xp(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_key_is_explained_with_who_set_it() -> None:
    out = xp("config", "explain", "learning.max_lag", "learning.max_lag=7").stdout
    assert "learning.max_lag = 7" in out
    assert "override 'learning.max_lag=7'" in out


def test_a_dry_run_prints_the_configuration_and_starts_nothing(tmp_path: Path) -> None:
    done = xp("run", "-c", "configs/demo.yaml", "--dry-run", f"runs_dir={tmp_path}")
    assert done.returncode == 0
    assert "workers: 2" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_tells_its_launch_and_its_end_as_json_and_can_be_listed_and_shown(
    tmp_path: Path,
) -> None:
    done = xp(
        "run",
        "--json",
        f"runs_dir={tmp_path}",
        *COIN_RUN,
    )
    assert done.returncode == 0, done.stderr
    launch, *between, end = map(json.loads, done.stdout.splitlines())
    assert [launch["kind"], end["kind"]] == ["progress", "result"] and {
        r["kind"] for r in between
    } == {"progress"}
    assert (launch["event"], end["event"], end["status"], end["exit"]) == (
        "launch",
        "done",
        "succeeded",
        0,
    )
    listed = json.loads(xp("ls", "--json", "--runs-dir", str(tmp_path)).stdout)
    assert (listed["run"], listed["status"]) == (launch["run"], "succeeded")
    shown = json.loads(xp("show", launch["dir"], "--json").stdout)
    assert shown["counted"]["rows"] == end["acked_steps"]
    assert (Path(launch["dir"]) / "report.html").exists()


def a_run_on_disk(tmp_path: Path, steps: int = 20) -> Path:
    """A run directory with one writer's shards, as a run leaves it."""
    run = tmp_path / "runs" / "small-1"
    journal = Journal(run / "shards" / "collector-0000", CATALOGUE, batch_rows=5)
    for t in range(steps):
        journal.append(make_step(t, closing=t % 5 == 4))
    journal.close()
    (run / "imagined").mkdir()
    (run / "run.json").write_text(json.dumps({"status": "succeeded"}))
    return run


def test_verify_says_what_is_wrong_and_ends_with_4(tmp_path: Path) -> None:
    run = a_run_on_disk(tmp_path)
    good = xp("verify", str(run), "--deep", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["rows"] == 20
    shard = next((run / "shards").glob("*/*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    bad = xp("verify", str(run))
    assert bad.returncode == 4
    assert (
        "are damaged" in bad.stdout
        and "restore the file" in bad.stdout
        and shard.name in bad.stdout
    )


def test_query_answers_sql_over_a_runs_rows_and_refuses_files(tmp_path: Path) -> None:
    run = a_run_on_disk(tmp_path)
    answer = xp(
        "query",
        str(run),
        "select count(*) as n, sum(signal(signals, 'done')) as done from steps",
        "--json",
    )
    assert json.loads(answer.stdout) == {"n": 20, "done": 8.0}
    Journal(run / "shards" / "collector-0001", CATALOGUE, batch_rows=1).append(
        make_step(0, b"u" * 16)
    )
    assert "21" in xp("query", str(run), "select count(*) from steps").stdout, (
        "a segment still being written too"
    )
    wrong = xp("query", str(run), "select nonsense from steps")
    assert wrong.returncode == 2 and "nonsense" in wrong.stderr
    outside = xp("query", str(run), "select * from read_csv('/etc/passwd')")
    assert outside.returncode == 2 and "root" not in outside.stdout


def test_a_run_goes_cold_goes_out_and_comes_in_again_as_a_run(tmp_path: Path) -> None:
    run = a_run_on_disk(tmp_path)
    done = json.loads(xp("compact", str(run), "--json").stdout)
    assert (done["shards"], done["rows"]) == (1, 20) and done["bytes_after"] > 0
    out = json.loads(
        xp("export", str(run), "--to", "jsonl", "--out", str(tmp_path / "out"), "--json").stdout
    )
    assert (out["rows"], out["files"]) == (20, ["steps.jsonl"])
    words = (
        "import",
        str(tmp_path / "out"),
        "--from",
        "jsonl",
        "--name",
        "theirs",
        "--runs-dir",
        str(tmp_path / "runs"),
    )
    assert json.loads(xp(*words, "--json").stdout)["rows"] == 20
    theirs = str(tmp_path / "runs" / "theirs")
    assert xp("verify", theirs, "--deep").returncode == 0
    assert json.loads(xp("show", theirs, "--json").stdout)["counted"]["rows"] == 20
    assert json.loads(xp("query", theirs, "select count(*) n from steps", "--json").stdout) == {
        "n": 20
    }
    again = xp(*words)
    assert again.returncode == 2 and "--name" in again.stderr
    assert (
        "jsonl, lerobot"
        in xp("export", str(run), "--to", "csv", "--out", str(tmp_path / "x")).stderr
    )
