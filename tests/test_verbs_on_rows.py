"""Each verb that reads or keeps a run, in this process, on runs whose rows a test wrote: the right
call, the wrong one, and the same as data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from actors.cli.main import app
from actors.commands.launch import Launch, check_origin
from actors.commands.selftest import run_all
from actors.commands.submit import submit_job
from actors.config.schema import dump, load
from actors.runs.directory import RunDirectory
from experience.command import output
from experience.errors import ConfigError, IsolationError, ShardError, XpError
from experience.shards.journal import Journal
from tests.conftest import CATALOGUE, free_port, make_step
from tests.lived_runs import WrittenRun
from tests.test_house import ROOT

Xp = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three episodes: two of training, a better and a worse one, and one held out."""
    written = WrittenRun(tmp_path / "runs", steps={"real": 4}, seconds=75.0, version=2)
    written.live([0.25], version=1)
    written.live([1.0, 1.0], version=2, subject="ada")
    written.live([0.5], version=2, split="heldout", stream=1)
    return written.close()


@pytest.fixture
def xp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Xp:
    """The command, called in this process from the folder that holds runs/."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        output.release_stdout()  # each call is a command of its own
        try:
            return CliRunner().invoke(app, list(words))
        finally:
            output.release_stdout()

    return call


def records(done: Result) -> list[dict[str, Any]]:
    assert done.exit_code == 0, (done.stderr, done.exception)
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(done: Result, code: int) -> str:
    assert isinstance(done.exception, XpError), (done.stdout, done.exception)
    assert done.exception.exit_code == code and done.stdout == ""
    return str(done.exception)


# ls, show, query


def test_ls_lists_every_run_newest_last_and_says_which_is_damaged(xp: Xp, run: Path) -> None:
    other = WrittenRun(run.parent, "other-1", attempts=3).close()
    os.utime(run / "run.json", (1, 1))
    (run.parent / "latest").symlink_to("other-1")
    assert [row["run"] for row in records(xp("ls", "--json"))] == ["small-1", "other-1"]
    text = xp("ls")
    assert "v2" in text.stdout and "4 steps" in text.stdout and "3 attempts" in text.stdout
    (other / "run.json").write_text("[")
    done = xp("ls")
    assert "small-1" in done.stdout and "other-1" not in done.stdout
    assert "error: other-1: " in done.stderr


def test_show_tells_a_run_as_text_and_as_data(xp: Xp, run: Path) -> None:
    text = xp("show", "small").stdout
    assert "small-1  succeeded  version 2  75 s" in text
    assert "on disk: 7 rows, 0 imagined_rows, 4 real" in text
    (row,) = records(xp("show", "small", "--json"))
    assert row["counted"]["rows"] == 7 and row["held_out"]["envs:Test-v0"]["versions"]["2"]["n"]
    assert "no run 'big'" in refused(xp("show", "big"), 2)


def test_show_of_a_damaged_store_ends_with_4(xp: Xp, run: Path) -> None:
    shard = next(run.glob("shards/*/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert shard.name in refused(xp("show", "small"), 4)


def test_query_reads_episodes_and_an_imagined_table_that_is_empty(xp: Xp, run: Path) -> None:
    sql = "select turns, total_reward, ending, whole from episodes order by total_reward"
    rows = records(xp("query", "small", sql, "--json"))
    assert [(r["turns"], r["total_reward"]) for r in rows] == [(1, 0.25), (1, 0.5), (2, 2.0)]
    shutil.rmtree(run / "imagined")
    (row,) = records(xp("query", "small", "select count(*) n from imagined", "--json"))
    assert row == {"n": 0}
    table = xp("query", "small", "from episodes select turns").stdout
    assert "turns" in table and table.count("1") >= 2 and "┌" in table


def test_query_gives_bytes_as_hexadecimal(xp: Xp, run: Path) -> None:
    rows = records(xp("query", "small", "select distinct stream_id s from steps", "--json"))
    assert sorted(row["s"] for row in rows) == ["01" * 16, "02" * 16]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from '/etc/passwd'",
        "copy steps to 'out.csv'",
        "attach 'other.db'",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_query_reaches_nothing_but_the_run(xp: Xp, run: Path, sql: str) -> None:
    assert "the query failed" in refused(xp("query", "small", sql), 2)


# verify, compact


def test_verify_counts_and_finds_what_is_missing(xp: Xp, run: Path) -> None:
    (row,) = records(xp("verify", "small", "--json"))
    assert (row["rows"], row["segments"], row["problems"]) == (7, 1, 0)
    next(run.glob("shards/*/*.arrow")).unlink()
    done = xp("verify", "small")
    assert done.exit_code == 4
    assert "the manifest names it, but it is not there\n  restore it from a copy" in done.stdout
    assert "small-1: 0 segments" in done.stdout


def test_verify_notices_a_damaged_checkpoint(xp: Xp, run: Path) -> None:
    checkpoints = RunDirectory(run).checkpoints
    checkpoints.save(1, {"weights": b"one"})
    assert records(xp("verify", "small", "--json"))[-1]["problems"] == 0
    (run / "checkpoints" / "step-000001" / "weights").write_bytes(b"onE")
    done = xp("verify", "small")
    assert done.exit_code == 4 and "does not match SHA256SUMS" in done.stdout


def test_compact_moves_shards_and_says_what_that_saved(xp: Xp, run: Path) -> None:
    done = xp("compact", "small")
    assert done.exit_code == 0
    assert "small-1: 1 shards, 7 rows" in done.stdout and "of parquet" in done.stdout
    (row,) = records(xp("compact", "small", "--json"))
    assert (row["shards"], row["rows_removed"], row["imagined_removed"]) == (0, 0, 0)
    assert records(xp("verify", "small", "--deep", "--json"))[-1]["rows"] == 7
    assert "no such format" in refused(xp("compact", "small", "--to", "csv"), 2)


def test_compact_removes_rows_past_their_days(xp: Xp, run: Path) -> None:
    (row,) = records(xp("compact", "small", "--keep-days", "1", "--json"))
    assert row["rows_removed"] == 7, "the rows of this run ended in 1970"
    (row,) = records(xp("query", "small", "select count(*) n from steps", "--json"))
    assert row == {"n": 0}


# forget


def test_forget_takes_a_subject_out_only_when_told_to(xp: Xp, run: Path) -> None:
    (run / "report.html").write_text("ada")
    words = ("forget", "small", "--subject", "ada")
    told = xp(*words)
    assert "nothing was changed; add --yes" in told.stderr and "shards" in told.stdout
    (row,) = records(xp(*words, "--json"))
    assert row["rows"]["shards"] == 3
    (row,) = records(xp(*words, "--yes", "--json"))
    assert row["rows"]["shards"] == 3 and row["stays"] == "nothing"
    assert not (run / "report.html").exists(), "the report quotes episodes"
    assert RunDirectory(run).record["forgotten"] == 3
    assert "holds no such row" in refused(xp(*words, "--yes"), 4)


def test_forget_takes_a_stream_and_says_what_stays(xp: Xp, run: Path) -> None:
    RunDirectory(run).checkpoints.save(1, {"weights": b""})
    (row,) = records(xp("forget", "small", "--stream", "02" * 16, "--yes", "--json"))
    assert row["streams"] == 1 and "checkpoints" in row["stays"]
    for wrong in ("02", "xyz", "02" * 17):
        told = refused(xp("forget", "small", "--stream", wrong), 2)
        assert "is no stream's id" in told and "32 hexadecimal digits" in told


def test_forget_without_rows_named_takes_the_whole_run(xp: Xp, run: Path) -> None:
    other = WrittenRun(run.parent, "other-1").close()
    (run.parent / "latest").symlink_to("small-1")
    (row,) = records(xp("forget", "small", "--json"))
    assert row["files"] > 3 and run.exists()
    records(xp("forget", "small", "--yes", "--json"))
    assert not run.exists() and (run.parent / "latest").resolve() == other
    records(xp("forget", "other", "--yes", "--json"))
    assert os.listdir(run.parent) == []


def test_a_run_that_is_going_on_is_not_forgotten_unless_it_was_killed(xp: Xp, run: Path) -> None:
    RunDirectory(run).write_record(status="running")
    assert "is running, or was killed" in refused(xp("forget", "small", "--yes"), 2)
    assert run.exists()
    records(xp("forget", "small", "--yes", "--seal", "--json"))
    assert not run.exists()


# export, import


@pytest.mark.parametrize(("form", "back"), [("jsonl", 7), ("atif", 7), ("parquet", 0)])
def test_what_goes_out_comes_in_again_where_the_format_can(
    xp: Xp, run: Path, tmp_path: Path, form: str, back: int
) -> None:
    (gone,) = records(xp("export", "small", "--to", form, "--out", "out", "--json"))
    assert gone["rows"] == 7 and gone["path"] == str(tmp_path / "out")
    words = ("import", "out", "--from", form, "--name", "theirs")
    if not back:
        assert "no format 'parquet' to read" in refused(xp(*words), 4)
        return
    done = xp(*words)
    assert done.exit_code == 0 and f"{tmp_path / 'runs/theirs'}: {back} rows" in done.stdout
    assert records(xp("ls", "--json"))[-1]["status"] == "imported"


def test_an_export_is_refused_over_something_else_and_in_an_unknown_format(
    xp: Xp, run: Path, tmp_path: Path
) -> None:
    assert "there are: atif, hf, jsonl" in refused(
        xp("export", "small", "--to", "x", "--out", "o"), 4
    )
    (tmp_path / "o").mkdir()
    told = refused(xp("export", "small", "--to", "jsonl", "--out", "o"), 4)
    assert "o exists already" in told


def test_an_import_of_nothing_leaves_nothing(xp: Xp, tmp_path: Path) -> None:
    assert "is not there" in refused(xp("import", "nowhere", "--from", "jsonl"), 4)
    (tmp_path / "steps.jsonl").write_text('{"t": 0}\n')
    assert "steps.jsonl:1" in refused(xp("import", "steps.jsonl", "--from", "jsonl"), 4)
    assert list((tmp_path / "runs").iterdir()) == []


# env replay


def test_replay_shows_the_best_the_worst_and_one_by_its_number(xp: Xp, run: Path) -> None:
    best = xp("env", "replay", "small", "--best", "1").stdout
    assert "return 2  terminated" in best and "> act 1" in best and "the episode's end" in best
    worst = records(xp("env", "replay", "small", "--worst", "1", "--json"))
    assert [row["reward"] for row in worst] == [0.25, None]
    (first, closing) = records(xp("env", "replay", "small", "--episode", "0", "--json"))
    assert (first["action"], first["version"], closing["ending"]) == ("act 0", 1, "terminated")


def test_replay_says_what_it_chose_among(xp: Xp, run: Path) -> None:
    told = refused(xp("env", "replay", "small", "--split", "heldout", "--version", "9"), 1)
    assert "none of the 0 closed episodes of split heldout, version 9" in told
    assert "none of the 3 closed episodes" in refused(
        xp("env", "replay", "small", "--episode", "7"), 1
    )


def test_replay_again_needs_a_configuration_that_is_trusted(xp: Xp, run: Path) -> None:
    done = xp("env", "replay", "small", "--again")
    assert isinstance(done.exception, XpError) and "config.yaml" in str(done.exception)
    config, _ = load([], ["worlds=[{id: 'strange_package:World-v0'}]"])
    (run / "config.yaml").write_text(dump(config))
    done = xp("env", "replay", "small", "--again")
    assert isinstance(done.exception, IsolationError)
    assert "was not written by you on this machine" in str(done.exception)


# config


def test_config_verbs_print_data_to_stdout_alone(xp: Xp, tmp_path: Path) -> None:
    schema = json.loads(xp("config", "schema").stdout)
    assert schema["properties"]["seed"]
    (tmp_path / "a.yaml").write_text("seed: 4\n")
    shown = xp("config", "show", "a.yaml", "workers=2")
    assert "seed: 4" in shown.stdout and "workers: 2" in shown.stdout and shown.stderr == ""
    told = xp("config", "explain", "seed", "a.yaml").stdout
    assert "seed = 4" in told and "a.yaml:1" in told
    assert "seed = 4" in xp("config", "explain", "a.yaml").stdout, "no key named: all of them"
    assert "unknown key" in refused(xp("config", "explain", "sede"), 2)
    assert "unknown key" in refused(xp("config", "show", "sede=1"), 2)
    assert "cannot be read" in refused(xp("config", "check", "nowhere.yaml"), 2)


def test_a_configuration_that_names_no_world_of_ours_is_found_by_check(
    xp: Xp, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("worlds: [{id: 'envs:Reacter-v0'}]\n")
    assert "Reactor-v0" in refused(xp("config", "check", "a.yaml"), 2)


# What starts a run, up to its start


def test_a_run_that_cannot_begin_is_refused_and_as_json_its_record_says_so(
    xp: Xp, tmp_path: Path
) -> None:
    done = xp("run", "--json", "sede=1")
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (record["kind"], record["exit"], record["status"]) == ("error", 2, "failed")
    assert "sede: unknown key" in record["why"]
    assert not (tmp_path / "runs").exists()
    done = xp("run", "sandbox.min_tier=none")
    assert isinstance(done.exception, IsolationError) and done.exception.exit_code == 5


def test_a_block_that_ends_well_or_before_a_run_began_writes_no_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.release_stdout()
    with Launch(as_json=True):
        pass
    with pytest.raises(SystemExit), Launch(as_json=True):
        raise SystemExit(2)
    assert capsys.readouterr().out == ""
    with pytest.raises(KeyboardInterrupt), Launch(as_json=True):
        raise KeyboardInterrupt
    record = json.loads(capsys.readouterr().out)
    assert (record["status"], record["exit"], record["why"]) == (
        "interrupted",
        130,
        "KeyboardInterrupt",
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("worlds=[{id: 'strange_package:World-v0'}]",),
        ("worlds=[{id: 'envs:KeyDoor-v0', arguments: {size: 3}}]",),
        (
            "policy.engine=openai",
            "policy.model=m",
            "policy.learns=false",
            "policy.base_url=http://h/v1",
        ),
        ("workers=1", "address='ray://elsewhere:10001'"),
        ("policy.engine=hugging_face", "policy.model=somebody/model"),
    ],
)
def test_a_run_of_others_that_names_code_or_servers_is_not_gone_on_with_unread(
    run: Path, overrides: tuple[str, ...]
) -> None:
    config, _ = load([], overrides)
    (run / "config.yaml").write_text(dump(config))
    with pytest.raises(IsolationError, match="was not written by you"):
        check_origin(config, RunDirectory(run), trusted=False)
    check_origin(config, RunDirectory(run), trusted=True)


def test_a_run_of_others_with_bundled_worlds_alone_is_gone_on_with(run: Path) -> None:
    config, _ = load([], ["worlds=[{id: 'envs:KeyDoor-v0'}]"])
    check_origin(config, RunDirectory(run), trusted=False)


def test_resume_refuses_a_run_whose_rows_hang_on_the_old_seed(
    xp: Xp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config, origins = load([], ["seed=1"])
    directory = RunDirectory.create(config, origins, [])
    file = directory.path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 1\n", "seed: 2\n"))
    done = xp("resume", directory.name)
    assert "seed: was 1, is 2: names the tasks" in refused(done, 2)
    assert "config.yaml differs from what the run was made with" in done.stderr
    assert directory.record["attempts"] == 1


# submit, bench, setup, test


def test_a_job_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="neither --address nor RAY_ADDRESS"):
        submit_job([], None, True)
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match="no dashboard answers there"):
        submit_job([], nobody, True)
    with pytest.raises(ConfigError, match="no dashboard answers there"):
        submit_job([], "http://host:port", True)
    monkeypatch.setenv("TEST_API_KEY", "correct-horse-battery")
    elsewhere = "anyscale://cluster"  # a provider's scheme: no socket is opened for it
    with pytest.raises(ConfigError, match="it holds a secret, which the cluster would keep") as no:
        submit_job(["policy.model=correct-horse-battery"], elsewhere, True)
    assert "horse" not in str(no.value)
    (tmp_path / "a.yaml").write_text("policy: {model: correct-horse-battery}\n")
    with pytest.raises(ConfigError, match="it holds a secret"):
        submit_job([str(tmp_path / "a.yaml")], elsewhere, True)
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"is not below .*which is what a job takes along"):
        submit_job([str(tmp_path / "a.yaml")], elsewhere, True)


def test_an_unknown_benchmark_and_a_set_up_from_python_say_what_to_type(
    xp: Xp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there are: store, collecting, viewer, worlds, browser, planning, methods" in refused(
        xp("bench", "nothing"), 2
    )
    assert f"{ROOT}/xp setup wiki" in refused(xp("setup", "wiki"), 2)


def test_words_for_the_tests_go_to_pytest_alone_and_its_code_comes_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    output.release_stdout()
    assert run_all(False, "", False, ["--version"]) == 0
    told = capfd.readouterr()
    assert told.err.startswith("$ python -m pytest --version") and "ruff" not in told.err
    assert run_all(True, "", False, ["--no-such-option"]) != 0
    assert "-m pytest --long --no-such-option" in capfd.readouterr().err


def test_verify_of_a_segment_that_is_still_written_reads_its_committed_rows(
    xp: Xp, run: Path
) -> None:
    journal = Journal(run / "shards" / "collector-0001", CATALOGUE)
    journal.append(make_step(0, b"n" * 16))
    journal.commit()
    assert records(xp("verify", "small", "--json"))[-1]["rows"] == 8
    with pytest.raises(ShardError, match="is still being written to"):
        raise xp("forget", "small", "--subject", "ada", "--yes").exception or AssertionError
    journal.close()
