"""Every family of verbs that reads or keeps a run, in this process, on one small real run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from actors.cli.main import app
from experience.command import output
from experience.errors import ConfigError, ShardError, XpError
from tests.commands import Commands
from tests.lived_runs import COIN_RUN

Xp = Callable[..., Result]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/, which holds one run of one update."""
    folder = tmp_path_factory.mktemp("verbs")
    with Commands() as command:
        done = command(folder, "run", "name=small", *COIN_RUN)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def xp(runs: Path) -> Iterator[Xp]:
    """The command, called in this process from the folder of the run."""
    before = os.getcwd()
    os.chdir(runs)

    def call(*words: str) -> Result:
        output.release_stdout()  # each call is a command of its own
        return CliRunner().invoke(app, list(words))

    yield call
    output.release_stdout()
    os.chdir(before)


def records(done: Result) -> list[dict[str, object]]:
    assert done.exit_code == 0, (done.stderr, done.exception)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ls_lists_the_run_as_text_and_as_data(xp: Xp, runs: Path) -> None:
    (row,) = records(xp("ls", "--json"))
    assert str(row["run"]).startswith("small-") and row["status"] == "succeeded"
    text = xp("ls")
    assert text.exit_code == 0 and str(row["run"]) in text.stdout and text.stderr == ""


def test_ls_of_a_folder_without_runs_prints_nothing_and_succeeds(xp: Xp, tmp_path: Path) -> None:
    done = xp("ls", "--runs-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (0, "")


def test_show_counts_the_rows_that_query_counts(xp: Xp) -> None:
    (shown,) = records(xp("show", "--json"))
    (counted,) = records(xp("query", "latest", "select count(*) as n from steps", "--json"))
    assert shown["acked_steps"] == counted["n"] and counted["n"] != 0


def test_query_prints_a_table_without_json(xp: Xp) -> None:
    done = xp("query", "latest", "select env_id, count(*) as n from steps group by all")
    assert done.exit_code == 0 and "tests.slow_world:Coin-v0" in done.stdout and "n" in done.stdout


def test_query_without_sums_says_so_beside_the_data(xp: Xp) -> None:
    done = xp("query", "latest", "select 1 as one", "--json", "--unchecked")
    assert records(done) == [{"one": 1}] and "unchecked" in done.stderr


def test_wrong_sql_is_a_mistake_of_use(xp: Xp) -> None:
    done = xp("query", "latest", "selekt 1")
    assert isinstance(done.exception, ConfigError) and done.exception.exit_code == 2


def test_verify_finds_nothing_wrong_and_counts_what_it_read(xp: Xp) -> None:
    (summary,) = records(xp("verify", "--deep", "--json"))
    (counted,) = records(xp("query", "latest", "select count(*) as n from steps", "--json"))
    assert summary["problems"] == 0 and summary["rows"] == counted["n"]
    assert "nothing is wrong" in xp("verify").stdout


def test_verify_ends_with_4_and_names_the_file_where_a_byte_was_changed(xp: Xp, runs: Path) -> None:
    shard = max((runs / "runs/latest/shards").rglob("*.arrow"), key=lambda p: p.stat().st_size)
    whole = shard.read_bytes()
    os.chmod(shard, 0o600)
    middle = len(whole) // 2
    shard.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        done = xp("verify", "--deep", "--json")
        *problems, summary = [json.loads(line) for line in done.stdout.splitlines()]
    finally:
        shard.write_bytes(whole)
    assert done.exit_code == 4 and summary["problems"] == len(problems) > 0
    assert shard.name in problems[0]["where"] and problems[0]["remedy"]
    assert xp("verify").exit_code == 0


def test_export_writes_every_row_once_and_refuses_a_folder_that_is_there(
    xp: Xp, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (done,) = records(xp("export", "latest", "--to", "jsonl", "--out", str(out), "--json"))
    lines = [line for file in out.rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert done["rows"] == len(lines) > 0
    again = xp("export", "latest", "--to", "jsonl", "--out", str(out))
    assert isinstance(again.exception, ShardError) and str(out) in str(again.exception)


def test_an_export_comes_in_again_as_a_run_of_that_name(xp: Xp, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (gone,) = records(xp("export", "latest", "--to", "jsonl", "--out", str(out), "--json"))
    words = ("import", str(out), "--from", "jsonl", "--runs-dir", str(tmp_path), "--name")
    (came,) = records(xp(*words, "back", "--json"))
    assert came["rows"] == gone["rows"] and (tmp_path / "back/run.json").exists()
    assert isinstance(xp(*words, "back").exception, ConfigError)
    for name in ("../back", "", "a/b"):
        assert isinstance(xp(*words, name).exception, ConfigError), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "out"]


def test_forget_without_yes_changes_nothing(xp: Xp, runs: Path) -> None:
    before = sorted(str(p) for p in (runs / "runs").rglob("*"))
    (report,) = records(xp("forget", "latest", "--json"))
    assert report["files"] and before == sorted(str(p) for p in (runs / "runs").rglob("*"))


@pytest.mark.parametrize("verb", [("show",), ("query", "select 1"), ("verify",), ("resume",)])
def test_a_run_that_is_not_there_is_named_with_those_that_are(
    verb: tuple[str, ...], xp: Xp
) -> None:
    done = xp(verb[0], "nope", *verb[1:])
    assert isinstance(done.exception, XpError) and done.exception.exit_code == 2
    assert "no run 'nope'" in str(done.exception) and "small-" in str(done.exception)
    assert done.stdout == ""


def test_a_configuration_is_shown_checked_and_explained(xp: Xp, tmp_path: Path) -> None:
    shown = xp("config", "show", "seed=3")
    assert shown.exit_code == 0 and "seed: 3\n" in shown.stdout
    (tmp_path / "a.yaml").write_text(shown.stdout)
    checked = xp("config", "check", str(tmp_path / "a.yaml"))
    assert (checked.exit_code, checked.stdout) == (0, "") and "ok" in checked.stderr
    assert "budget.updates = 7" in xp("config", "explain", "budget", "budget.updates=7").stdout
    (tmp_path / "a.yaml").write_text("sede: 3\n")
    wrong = xp("config", "check", str(tmp_path / "a.yaml"))
    assert isinstance(wrong.exception, ConfigError) and "did you mean 'seed'" in str(
        wrong.exception
    )
