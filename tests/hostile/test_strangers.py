"""What strangers hand over (configurations, names, run directories) is refused with a word, and
harms nothing."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from actors.config.reader import is_secret
from actors.config.schema import load
from actors.reading.query import connect, literal, run_query
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, ShardError
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.exchange import export
from experience.shards.journal import Journal
from experience.shards.storage import unpacked
from experience.shards.verify import Problem, verify
from experience.signal import Signal, SignalKind
from tests.conftest import CATALOGUE, make_step

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "hush-Hush_9x"


def xp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def a_run(folder: Path) -> Path:
    run = folder / "runs" / "theirs-1"
    journal = Journal(run / "shards" / "w", CATALOGUE)
    for t in range(4):
        journal.append(make_step(t, closing=t == 3, obs_text=f"\x1b[2J\x1b]0;owned\x07 page {t}"))
    journal.close()
    (run / "imagined").mkdir()
    (run / "run.json").write_text(json.dumps({"status": "succeeded \x1b[31m", "seconds": 1}))
    return run


@pytest.mark.parametrize(
    "override",
    [
        f"worlds.0.arguments.api_key={SECRET}",
        f"worlds=[{{id: x, arguments: {{api_key: {SECRET}}}}}]",
        f"worlds=[{{id: x, arguments: {{authToken: {SECRET}}}}}]",
        f"worlds=[{{id: x, arguments: {{PASSWORD: '{SECRET}'}}}}]",
        f"policy.password={SECRET}",
        f"a.b.client_secret={SECRET}",
        f"policy={{x: [{{y: {{credentials: {SECRET}}}}}]}}",
        f"workers=[{{api-key: {SECRET}}}]",
        f"api_key: {SECRET}",
        f"api_key=[{SECRET}",
        f"policy.api_key_env=sk-{SECRET}-{SECRET}",
        f"worlds=[{{id: x, arguments: {{url: 'http://me:{SECRET}@host/'}}}}]",
        *(
            f"worlds=[{{id: x, arguments: {{text: '{text}'}}}}]"
            for text in (
                f"http://host/?a=1&api_key={SECRET}",
                f"http://host/#access_token={SECRET}",
                f"serve --api-key {SECRET}",
                f"serve --token={SECRET}",
                f"OPENAI_API_KEY={SECRET} serve",
                f"host=h;password={SECRET}",
            )
        ),
        *(
            f"worlds=[{{id: x, arguments: {{{key}: {SECRET}}}}}]"
            for key in (
                "openai_key",
                "api_key_2",
                "OPENAI_API_KEY_1",
                "pass",
                "db_pass",
                "passcode",
                "auth",
                "jwt",
                "github_pat",
                "cookie",
                "session_id",
                "ssh_key",
                "signing_key",
                "subscription-key",
                "creds",
                "api.key",
                "'api key'",
                "connection_string",
                "dsn",
            )
        ),
    ],
)
def test_a_secret_in_a_configuration_is_refused_and_not_said(override: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load([], [override])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://host/v1?key={SECRET}",
        f"http://host/v1?code={SECRET}",
        f"http://host/v1?sig={SECRET}",
        f"http://host/v1?{SECRET}",
        f"http://host/v1#api_key={SECRET}",
        f"http://host/v1;api_key={SECRET}",
        f"http://host/v1?a=1;key={SECRET}",
        f"//me:{SECRET}@host/v1",
        f"me:{SECRET}@host/v1",
        f"http:/me:{SECRET}@host/v1",
        f"http://host/me:{SECRET}@other/v1",
        f"ftp://me:{SECRET}@host/v1",
        "http:\\\\me:" + SECRET + "@host",
    ],
)
def test_an_address_with_a_secret_elsewhere_than_before_its_host_is_refused_and_not_said(
    url: str,
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(
            [],
            [
                "policy.engine=openai",
                "policy.model=m",
                "policy.learns=false",
                f"policy.base_url='{url}'",
            ],
        )
    assert SECRET not in str(raised.value)


def test_an_address_may_tell_its_version() -> None:
    words = ["policy.engine=openai", "policy.model=m", "policy.learns=false"]
    load([], [*words, "policy.base_url=http://127.0.0.1:8000/v1"])
    load([], [*words, "policy.base_url=https://host/openai?api-version=2024-10-21"])


def test_a_secrets_name_is_told_from_a_setting_of_the_model() -> None:
    assert all(
        map(
            is_secret,
            (
                "api_key",
                "apiKey",
                "hf_token",
                "db-password",
                "AWS_SECRET_ACCESS_KEY",
                "credentials",
            ),
        )
    )
    assert not any(
        map(
            is_secret,
            (
                "max_tokens",
                "api_key_env",
                "eos_token",
                "sort_key",
                "keyboard",
                "tokenizer",
                "passes",
                "author",
                "compass",
                "path",
                "key",
                "primary_key",
                "state_key",
                "saskatoon",
            ),
        )
    )


def test_a_urls_password_moves_to_the_environment_and_copies_hold_stars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["policy.engine=openai", "policy.model=m", "policy.learns=false"]
    monkeypatch.delenv("XP_URL_PASSWORD", raising=False)
    monkeypatch.setenv("XP_SECRET_NAMES", "")
    with pytest.raises(ConfigError, match="XP_URL_PASSWORD"):
        load([], [*words, "policy.base_url=http://me:***@host/v1"])
    config, origins = load([], [*words, f"policy.base_url=http://me:{SECRET}@host/v1"])
    assert (
        config.policy.base_url == "http://me:***@host/v1"
        and os.environ["XP_URL_PASSWORD"] == SECRET
    )
    assert SECRET not in repr(config) + repr(origins)
    load([], [*words, "policy.base_url=http://me:***@host/v1"])


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        "a: &a [*a, *a]",
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 5_000,
        "- ? [a, b]\n  : c",
        "? [a, b]\n: c",
        "seed: !!python/object/apply:os.system ['true']",
        "seed: !!int '3'",
        "seed: !mine 3",
        "worlds: !!set {a, b}",
        "seed: " + "9" * 100_000,
        "seed: 2001-99-99",
        "name: \x00",
        "seed: 1\nseed: 2",
        'name: "\\U00110000"',
        "seed: " + ":".join(["59"] * 5000),
        "seed: 0x" + "F" * 100_000,
        "seed: 0b" + "1" * 100_000,
        f"seed: {2**63}",
        "budget: {steps: " + "9" * 4000 + "}",
        'runs_dir: "a\\0b"',
        "worlds: [{id: x, arguments: {n: 0x" + "F" * 99 + "}}]",
        "a: *b",
        "- 1",
    ],
)
def test_a_bomb_or_tag_in_yaml_is_an_error_with_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load([tmp_path / "config.yaml"])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        RunDirectory.find(str(tmp_path)).config()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < limit + 200_000, "KiB"


def test_a_file_with_thousands_of_problems_says_the_first_ones_soon(tmp_path: Path) -> None:
    """15,000 unknown keys took 14 s to compare with the known ones, and 2.8 MB to say."""
    (tmp_path / "config.yaml").write_text("".join(f"k{i}: 1\n" for i in range(15_000)))
    with pytest.raises(ConfigError) as raised:
        load([tmp_path / "config.yaml"])
    assert len(str(raised.value)) < 100_000 and "100 problems" in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        ("import", "x", "--from", "jsonl", "--name", "../../x"),
        ("env", "new", "../x"),
        ("show", "/nowhere"),
        ("show", "[a"),
        ("show", "../*"),
    ],
)
def test_a_name_that_would_be_a_path_is_refused(words: tuple[str, ...]) -> None:
    done = xp(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_a_signal_of_any_name_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["it's", 'a"b', "x') from steps; --", "\\", "done"]
    journal = Journal(tmp_path / "w", {name: SignalKind("1", "env_state") for name in names})
    journal.append(
        make_step(
            0, signals=tuple(Signal(n, float(i), "1", "env_state") for i, n in enumerate(names))
        )
    )
    journal.close()
    for i, name in enumerate(names):
        run_query(
            {"steps": tmp_path, "imagined": tmp_path},
            f"select signal(signals, {literal(name)}) v from steps",
            True,
        )
        assert json.loads(capsys.readouterr().out) == {"v": float(i)}


@pytest.mark.parametrize(
    "sql",
    [
        "set enable_external_access = true",
        "set lock_configuration = false",
        "install httpfs",
        "select * from read_text('/etc/passwd')",
        "copy steps to 'stolen.csv'",
        "attach 'other.db'",
        "select * from tables",
        "select * from '/etc/passwd'",
    ],
)
def test_a_query_reads_what_the_run_holds_and_nothing_else(tmp_path: Path, sql: str) -> None:
    Journal(tmp_path / "w", CATALOGUE).close()
    with pytest.raises(ConfigError, match="the query failed"):
        run_query({"steps": tmp_path, "imagined": tmp_path}, sql, True)


def test_links_that_lead_out_and_pipes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = a_run(tmp_path)
    for name in ("metrics.jsonl", "shards/x.arrow", "report.html"):
        (run / name).symlink_to(outside)
        with pytest.raises(ShardError, match="leads out"):
            RunDirectory.find(str(run))
        (run / name).unlink()
    os.mkfifo(run / "shards" / "seg.arrow")
    with pytest.raises(ShardError, match="neither a file nor a folder"):
        RunDirectory.find(str(run))


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"a": ', "\xff", "null"])
def test_a_record_that_is_none_is_said_and_hides_no_other_run(tmp_path: Path, text: str) -> None:
    (a_run(tmp_path) / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(ShardError):
        _ = RunDirectory.find(str(tmp_path / "runs" / "theirs-1")).record


def test_a_checkpoint_names_files_beside_it_only(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    step = run / "checkpoints" / "step-000001"
    step.mkdir(parents=True)
    for name in ("../../run.json", "/etc/passwd", "", "missing"):
        (step / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
        with pytest.raises(ShardError, match=r"SHA256SUMS is damaged|is missing|not in SHA256SUMS"):
            RunDirectory(run).checkpoints.newest()


def test_a_strangers_texts_do_not_steer_the_terminal(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    for words in (
        ("show", str(run)),
        ("env", "replay", str(run)),
        ("ls", "--runs-dir", str(run.parent)),
    ):
        done = xp(*words)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout


def test_a_run_from_elsewhere_is_not_resumed_unasked(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (run / "config.yaml").write_text(
        "worlds: [{id: 'tests.slow_world:Coin-v0', groups: 1, demonstrations: 0}]\n"
    )
    done = xp("resume", str(run))
    assert done.returncode == 5 and "was not written by you" in done.stderr, done.stderr


def put_in_place_of_its_part(store: Path, table: pa.Table) -> None:
    """As a stranger would: another Parquet file, and a snapshot that names its size and SHA-256."""
    (snapshot,) = (store / "snapshots").glob("*.json")
    content = json.loads(snapshot.read_bytes().rpartition(b"\n")[0])
    (part,) = content["parts"]
    path = store / "cold" / part["file"]
    parquet.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=True,
        dictionary_pagesize_limit=1 << 30,
        store_schema=False,
    )  # so that the words are read as words
    data = path.read_bytes()
    part |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": table.num_rows}
    body = json.dumps(content).encode()
    snapshot.write_bytes(body + b"\n" + hashlib.sha256(body).hexdigest().encode())


READERS = {
    "follow": lambda store: list(Catalog(store).follow()),
    "table": lambda store: Catalog(store).table(["t"]),
    "dataset": lambda store: Catalog(store).dataset().count_rows(),
    "query": lambda store: connect({"steps": store}),
    "export": lambda store: export(store, "jsonl", store.parent / "out"),
    "verify": lambda store: [raise_(p) for p in verify(store, deep=True).problems],
}


def raise_(problem: Problem) -> None:
    raise ShardError(str(problem), "")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["word", "signals", "group"])
def test_a_cold_file_that_unpacks_to_more_than_memory_is_refused_by_every_reader(
    tmp_path: Path, kind: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word of 1 MiB that stands in 8,000 rows, as a column or within each signal: 8 GiB from some
    kilobytes. And a group of rows that is larger than is allowed, by its metadata."""
    store = tmp_path / "shards"
    journal = Journal(store / "w", CATALOGUE)
    for t in range(8_000 if kind != "group" else 200):
        journal.append(
            make_step(
                0,
                stream=t.to_bytes(16),
                decision=None,
                closing=True,
                signals=(Signal("done", 0.5, "fraction", "env_state", "e"),),
            )
        )
    journal.close()
    compact(store)
    (path,) = (store / "cold").iterdir()
    table = parquet.read_table(path)
    word = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(table), np.int32)), pa.array(["x" * (1 << 20)])
    )
    if kind == "word":
        table = table.set_column(table.schema.get_field_index("task_id"), "task_id", word)
    elif kind == "signals":
        signal = pa.StructArray.from_arrays(
            [pa.array(np.zeros(len(table), np.int16)), pa.array(np.zeros(len(table))), word],
            ["code", "value", "evidence"],
        )
        table = table.set_column(
            table.schema.get_field_index("signals"),
            "signals",
            pa.ListArray.from_arrays(pa.array(np.arange(len(table) + 1, dtype=np.int32)), signal),
        )
    else:
        monkeypatch.setattr(unpacked, "MOST_BYTES", 4_000)
    put_in_place_of_its_part(store, table)
    assert path.stat().st_size < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ShardError, match="unpacks to more than"):
        READERS[reader](store)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000, "KiB"


def test_rows_that_are_large_go_cold_in_groups_that_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacked, "MOST_BYTES", 1 << 20)
    journal = Journal(tmp_path / "w", CATALOGUE)
    for t in range(100):
        journal.append(make_step(t, obs_text=f"{t} " + "long " * 4_000))
    journal.close()
    compact(tmp_path)
    assert sum(len(steps) for steps in Catalog(tmp_path).follow()) == 100
