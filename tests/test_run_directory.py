"""A run's directory: found by its name, held by one process, trusted no further than it should."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actors.config.schema import load
from actors.runs.checkpoint_store import CheckpointStore
from actors.runs.directory import RunDirectory
from actors.runs.files import RunFiles
from actors.runs.finding import find_run, is_run_name
from actors.runs.lock import is_locked, take_lock
from actors.runs.provenance import revision, signature
from actors.runs.trust import checked, read_bounded, read_json
from actors.runs.writing import draft_folder, replace_file, replace_link
from experience.errors import ConfigError, ShardError, XpError
from tests.lived_runs import WrittenRun
from tests.test_house import ROOT


def a_run(runs: Path, name: str) -> Path:
    path = runs / name
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    return path


# Finding


def test_a_run_is_found_by_path_name_beginning_and_latest(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    path = a_run(runs, "demo-1")
    a_run(runs, "other-1")
    (runs / "latest").symlink_to("demo-1")
    for name in (str(path), "demo-1", "demo", "d", "latest"):
        assert find_run(name, str(runs)).resolve() == path, name


def test_a_name_without_a_run_lists_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none yet; \./xp demo makes one"):
        find_run("demo", str(tmp_path))
    for number in range(7):
        a_run(tmp_path, f"demo-{number}")
    with pytest.raises(ConfigError, match=r"known: demo-2, demo-3, demo-4, demo-5, demo-6$"):
        find_run("nope", str(tmp_path))


def test_a_beginning_is_a_plain_word_and_no_pattern(tmp_path: Path) -> None:
    a_run(tmp_path, "demo-1")
    for name in ("*", "de?o", "[d]emo", "../demo", ""):
        with pytest.raises(ConfigError, match="no run"):
            find_run(name, str(tmp_path))


def test_latest_leads_to_a_run_beside_it_only(tmp_path: Path) -> None:
    elsewhere = a_run(tmp_path / "elsewhere", "theirs")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "latest").symlink_to(elsewhere)
    with pytest.raises(ShardError, match=r"(?s)outside .*name the run itself"):
        find_run("latest", str(runs))
    (runs / "named").symlink_to(elsewhere)
    assert find_run("named", str(runs)) == elsewhere, "another link was named on purpose"


@pytest.mark.parametrize("name", ["demo-1", "a", "A_b.c-d", "0"])
def test_a_word_of_letters_digits_and_signs_names_a_run(name: str) -> None:
    assert is_run_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "-a", "a b", "a\n", "a" * 102])
def test_what_leads_elsewhere_names_no_run(name: str) -> None:
    assert not is_run_name(name)


# The lock


def test_a_run_is_held_by_one_process_and_free_when_that_one_is_gone(tmp_path: Path) -> None:
    run = a_run(tmp_path, "held")
    assert is_locked(run) is False, "nobody has begun it here"
    code = (
        "import sys; from pathlib import Path; from actors.runs.lock import take_lock\n"
        f"take_lock(Path({str(run)!r})); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    assert is_locked(run) is True
    with pytest.raises(ConfigError, match="held is running in another process"):
        take_lock(run)
    holder.kill()
    holder.wait()
    assert is_locked(run) is False
    take_lock(run)
    assert is_locked(run) is True


# What a stranger's directory may hold


def test_a_link_within_a_run_is_followed_and_one_out_of_it_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, "theirs")
    (run / "again").symlink_to("run.json")
    assert checked(run) == run
    (run / "secrets").symlink_to("/etc/passwd")
    with pytest.raises(ShardError, match="secrets is a link that leads out of the run directory"):
        checked(run)


def test_a_pipe_in_a_run_is_refused_at_once_and_a_socket_is_let_pass(tmp_path: Path) -> None:
    run = a_run(tmp_path, "theirs")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run / "s"))
        assert checked(run) == run
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(ShardError, match=r"metrics\.jsonl is neither a file nor a folder"):
        checked(run)
    begun = time.monotonic()
    with pytest.raises(ShardError, match="is no file"):
        read_bounded(run / "metrics.jsonl")
    assert time.monotonic() - begun < 5, "it waited for somebody to write"


def test_a_file_that_is_missing_or_too_large_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot be read: No such file"):
        read_bounded(tmp_path / "run.json")
    with open(tmp_path / "large", "wb") as file:
        file.truncate((256 << 20) + 1)  # sparse: it takes no room
    with pytest.raises(ShardError, match="has more than 256 MiB"):
        read_bounded(tmp_path / "large")


def test_json_of_a_run_is_strict_but_for_numbers_that_are_not_finite() -> None:
    assert read_json(b'{"a": NaN, "b": -Infinity}', "x") == {"a": None, "b": None}
    for wrong in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(ShardError, match="x:3: not JSON"):
            read_json(wrong, "x:3")


# Writing


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    for data in (b"one", b"", b"three"):
        replace_file(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    for target in ("one", "two"):
        replace_link(tmp_path / "latest", target)
        assert os.readlink(tmp_path / "latest") == target
    assert os.listdir(tmp_path) == ["latest"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with draft_folder(tmp_path / "runs" / "a") as draft:
        (draft / "run.json").write_text("{}")
        assert not (tmp_path / "runs" / "a").exists()
    assert os.listdir(tmp_path / "runs" / "a") == ["run.json"]
    with pytest.raises(KeyError), draft_folder(tmp_path / "runs" / "b"):
        raise KeyError
    assert os.listdir(tmp_path / "runs") == ["a"]


# Checkpoints


def test_the_newest_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.newest() is None and store.newest_version() is None and store.newest_name == ""
    store.save(0, {"weights": b"zero"})
    store.save(12, {"weights": b"twelve"})
    assert store.newest() == {"weights": b"twelve"}
    assert (store.newest_version(), store.newest_name) == (12, "checkpoint step-000012")
    store.save(12, {"weights": b"again"})
    assert store.newest() == {"weights": b"twelve"}, "a published checkpoint never changes"


def test_an_imitation_is_replaced_by_what_comes_after_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(0, {"weights": b"10"}, imitated=10)
    store.save(0, {"weights": b"20"}, imitated=20)
    assert os.listdir(tmp_path) == ["imitation-00000020"]
    assert store.newest() == {"weights": b"20"} and store.newest_version() is None
    store.save(0, {"weights": b"done"})
    assert os.listdir(tmp_path) == ["step-000000"]


def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"weights": b"one"})
    (tmp_path / "step-000001" / "weights").write_bytes(b"onE")
    with pytest.raises(ShardError, match=r"(?s)step-000001: .*begin again from the rows"):
        store.newest()
    store.save(2, {"weights": b"two"})
    (tmp_path / "step-000002" / "weights").unlink()
    with pytest.raises(ShardError, match=r"(?s)step-000002: .*go on from step-000001"):
        store.newest()


def test_a_file_that_a_checkpoint_never_had_is_told_with_its_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"weights": b"one"})
    saved = store.newest()
    assert saved is not None
    with pytest.raises(ShardError, match=r"has no table\.npz: it is of another learner"):
        saved["table.npz"]


# Where a run comes from


def test_a_signature_is_of_this_user_and_of_these_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1\n")
    mine = signature(config)
    assert mine == signature(config) and len(mine) == 64
    assert (tmp_path / "mine" / "xp" / "key").stat().st_mode & 0o077 == 0
    config.write_text("seed: 2\n")
    assert signature(config) != mine
    config.write_text("seed: 1\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    assert signature(config) != mine


def test_a_key_that_was_cut_short_signs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "xp").mkdir()
    (tmp_path / "xp" / "key").write_bytes(b"short")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert signature(tmp_path / "config.yaml") == ""
    run = a_run(tmp_path, "run")
    (run / "config.yaml").write_text("seed: 1\n")
    (run / "run.json").write_text('{"signed": ""}')
    assert not RunDirectory(run).is_ours, "two signatures that could not be made are not equal"


def test_the_revision_is_a_short_commit_of_this_checkout() -> None:
    said = revision().removesuffix("+changes")
    assert 7 <= len(said) <= 12 and int(said, 16)


# The files of a run


def test_entries_of_a_record_are_set_one_by_one_and_the_others_stay(tmp_path: Path) -> None:
    run = RunFiles(a_run(tmp_path, "run"))
    run.write_record(status="running", seed=3)
    run.write_record(status="failed")
    assert run.record == {"status": "failed", "seed": 3}
    (run.path / "run.json").write_text("[]")
    with pytest.raises(ShardError, match="is no record of a run"):
        _ = run.record


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", "correct-horse-battery")
    run = RunFiles(a_run(tmp_path, "run"))
    (run.path / "metrics").mkdir()
    run.write_record(why="it said correct-horse-battery")
    run.log({"what": "correct-horse-battery"})
    run.write_failures([{"world": "w", "what": "KeyError: correct-horse-battery", "count": 1}])
    written = b"".join(p.read_bytes() for p in run.path.rglob("*") if p.is_file())
    assert b"horse" not in written and written.count(b"[redacted]") == 3
    assert run.failures()[0]["count"] == 1
    assert next(run.metrics())["what"] == "[redacted]"


def test_a_run_without_metrics_and_failures_has_none(tmp_path: Path) -> None:
    run = RunFiles(a_run(tmp_path, "run"))
    assert list(run.metrics()) == [] and run.failures() == []
    run.write_failures([])
    assert not (run.path / "failures.json").exists()
    (run.path / "failures.json").write_text('{"not": "a list"}')
    assert run.failures() == []


def test_a_broken_line_of_metrics_is_told_with_its_number(tmp_path: Path) -> None:
    run = RunFiles(a_run(tmp_path, "run"))
    (run.path / "metrics").mkdir()
    (run.path / "metrics" / "metrics.jsonl").write_text('{"a": 1}\n3\n{"b"\n')
    records = run.metrics()
    assert next(records) == {"a": 1}
    with pytest.raises(ShardError, match=r"metrics\.jsonl:3: not JSON"):
        next(records)


def test_a_refused_batch_is_kept_for_inspection(tmp_path: Path) -> None:
    run = RunFiles(a_run(tmp_path, "run"))
    path = run.keep_batch(7, {"loss": np.array([np.nan, 1.0])})
    assert path.name == "diverged-000007.npz"
    assert np.isnan(np.load(path)["loss"][0])


def test_rows_and_steps_are_counted_by_source(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.live([0.0, 1.0])
    run.live([1.0], source="demonstration")
    counted = RunDirectory(run.close()).count()
    assert counted == {
        "rows": 5,
        "imagined_rows": 0,
        "real": 2,
        "demonstration": 1,
        "imagined": 0,
    }


# Beginning and beginning again


def test_a_new_run_is_ours_until_its_configuration_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config, origins = load([], [f"runs_dir={tmp_path / 'runs'}", "name=mine", "seed=5"])
    run = RunDirectory.create(config, origins, ["run"])
    assert run.is_ours
    assert run.config().model_dump() == config.model_dump() and run.changes() == []
    assert run.record["status"] == "running" and run.record["seed"] == 5
    assert (tmp_path / "runs" / "latest").resolve() == run.path
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 5", "seed: 6"))
    assert not run.is_ours
    (change,) = run.changes()
    assert str(change) == "seed: was 5, is 6" and change.why_not


def test_each_attempt_is_recorded_with_the_version_that_it_goes_on_from(tmp_path: Path) -> None:
    config, origins = load([], [f"runs_dir={tmp_path}"])
    run = RunDirectory.create(config, origins, ["run"])
    run.checkpoints.save(4, {"weights": b""})
    run.write_record(status="failed", why="no power")
    run.begin_again(seconds=12.0)
    record = run.record
    assert (record["status"], record["attempts"], record["why"]) == ("running", 2, "")
    assert record["resumed"][0]["version"] == 4 and record["seconds"] == 12.0
    assert run.is_held


def test_a_folder_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config, origins = load([], [f"runs_dir={tmp_path / 'file'}"])
    with pytest.raises(XpError, match=r"(?s)cannot be made: .*set runs_dir to a folder"):
        RunDirectory.create(config, origins, [])
