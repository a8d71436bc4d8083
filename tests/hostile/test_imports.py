"""Strangers' files: whatever they hold, an import is refused with its place, within bounds, and
leaves nothing."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from experience.errors import ShardError
from experience.shards.catalog import Catalog
from experience.shards.exchange import import_from
from experience.shards.storage.amendment_files import amendments
from experience.shards.verify import verify

STREAM = "00" * 15 + "01"
READERS = ".venv/bin/uv pip install -p .venv -r tests/readers.txt"
DECISION = {
    "text": "go",
    "policy_version": 0,
    "prompt_ids": [1],
    "action_ids": [2, 3],
    "logprobs": [-1.0, -2.0],
    "version_spans": [{"version": 0, "tokens": 2}],
    "token_exact": True,
}


def a_row(t: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "stream_id": STREAM,
        "t": t,
        "env_id": "x",
        "obs_text": "seen",
        "source": "demonstration",
        "decision": DECISION,
    } | changes


def refused(tmp_path: Path, source: Path, of: str, why: str) -> str:
    """Imports `source`, which must fail for `why` and leave nothing; then another import takes the
    same place."""
    store = tmp_path / "runs" / "new" / "shards"
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match=why) as raised:
        import_from(source, of, store)
    assert set(tmp_path.rglob("*")) == before, "a failed import leaves nothing"
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps(a_row()) + "\n")
    assert import_from(good, "jsonl", store).rows == 1, "and can be tried again"
    return str(raised.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "negative t": (dict(t=-1), "t is -1"),
    "a text for t": (dict(t="1"), "t is str"),
    "a float for t": (dict(t=1.0), "float"),
    "true for t": (dict(t=True), "bool"),
    "a t beyond 64 bits": (dict(t=2**63), "t is 9223372036854775808"),
    "an id of 3 bytes": (dict(stream_id="abcdef"), "16 bytes"),
    "an id that is no text": (dict(stream_id=7), "stream_id is int"),
    "no hexadecimal": (dict(stream_id="zz" * 16), "hexadecimal"),
    "no field of ours": (dict(colour="red"), "colour"),
    "a number as observation": (dict(obs_text=5), "obs_text is int"),
    "a lone surrogate": (dict(obs_text="\ud800"), "surrogates"),
    "a lone surrogate as action": (dict(decision=DECISION | {"text": "\udfff"}), "surrogates"),
    "an unknown ending": (dict(ending="boredom"), "terminated"),
    "an unknown source": (dict(source="hearsay"), "imagined"),
    "a list for info": (dict(info=[1]), "info is list"),
    "a boundary of 300": (dict(boundary=300), "boundary is 300"),
    "NaN as reward": (dict(reward=float("nan")), "reward is nan"),
    "infinity as reward": (dict(reward=float("inf")), "inf"),
    "text as reward": (dict(reward="1"), "reward is str"),
    "a failure with a reward": (dict(ending="env_error", reward=1.0), "carries a reward"),
    "NaN as discount": (dict(discount=float("nan")), "discount is nan"),
    "an uncertainty beyond 32 bits": (dict(uncertainty=1e300), "uncertainty is 1e"),
    "a seed beyond 64 bits": (dict(seed=2**70), "seed is huge"),
    "a signal that is NaN": (
        dict(signals=[{"name": "a", "value": float("nan"), "unit": "1", "source": "human"}]),
        "'a' is nan",
    ),
    "a signal of an unknown source": (
        dict(signals=[{"name": "a", "value": 1, "unit": "1", "source": "rumour"}]),
        "rumour",
    ),
    "a signal without a name": (
        dict(signals=[{"value": 1, "unit": "1", "source": "human"}]),
        "name",
    ),
    "signals that are no list": (dict(signals={"a": 1}), "signals is dict"),
    "tokens that are no numbers": (
        dict(decision=DECISION | {"action_ids": ["a", "b"]}),
        "action_ids is str",
    ),
    "tokens below zero": (dict(decision=DECISION | {"prompt_ids": [-1]}), "prompt_ids is -1"),
    "tokens beyond 32 bits": (
        dict(decision=DECISION | {"prompt_ids": [2**31]}),
        "prompt_ids is 2147483648",
    ),
    "one log-probability too few": (
        dict(decision=DECISION | {"logprobs": [-1.0]}),
        "2 action tokens but 1",
    ),
    "a log-probability that is NaN": (
        dict(decision=DECISION | {"logprobs": [-1.0, float("nan")]}),
        "log-probability is nan",
    ),
    "spans of too few tokens": (
        dict(decision=DECISION | {"version_spans": [{"version": 0, "tokens": 1}]}),
        "spans",
    ),
    "spans of too many, though not exact": (
        dict(
            decision=DECISION
            | {"token_exact": False, "version_spans": [{"version": 0, "tokens": 5}]}
        ),
        "cover 5 tokens, the action has 2",
    ),
    "spans of −1 tokens": (
        dict(
            decision=DECISION
            | {"version_spans": [{"version": 0, "tokens": 3}, {"version": 1, "tokens": -1}]}
        ),
        "a span's tokens is -1",
    ),
    "exact as text": (dict(decision=DECISION | {"token_exact": "yes"}), "token_exact is str"),
    "an imagined step of no parent": (dict(source="imagined"), "names its parent"),
    "a parent of 3 bytes": (dict(parent=["abcdef", 0]), "parent holds 3 bytes"),
    "a picture that is not there": (
        dict(obs_blobs=[{"hash": "ab" * 32, "media": "image/png", "nbytes": 5}]),
        "picture images/abab",
    ),
    "a picture's hash that leads elsewhere": (
        dict(obs_blobs=[{"hash": "../../x", "media": "", "nbytes": 5}]),
        "hexadecimal",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_row_that_breaks_the_records_rules_is_refused_with_its_line(
    tmp_path: Path, wrong: str
) -> None:
    changes, why = WRONG[wrong]
    source = tmp_path / "theirs.jsonl"
    row = a_row(1)
    row |= changes
    source.write_text(json.dumps(a_row()) + "\n" + json.dumps(row) + "\n")
    assert "theirs.jsonl:2: " in refused(tmp_path, source, "jsonl", why)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([a_row(0), a_row(2)], "gives t = 2 where 1 is due"),
        ([a_row(0), a_row(0)], "gives t = 0 twice"),
        ([a_row(0), a_row(1), a_row(0)], "gives t = 0 twice"),
        (
            [
                a_row(0, signals=[{"name": "a", "value": 1, "unit": "kg", "source": "human"}]),
                a_row(1, signals=[{"name": "a", "value": 1, "unit": "g", "source": "human"}]),
            ],
            "'a' is SignalKind.*unit='g'",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_refused_with_the_line_of_the_later(
    tmp_path: Path, lines: list[dict[str, Any]], why: str
) -> None:
    source = tmp_path / "theirs.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert f"theirs.jsonl:{len(lines)}: " in refused(tmp_path, source, "jsonl", why)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "theirs.jsonl:1: RecursionError"),
        (json.dumps(a_row()).encode() + b"\n\xff\xfe\n", "theirs.jsonl:2: UnicodeDecodeError"),
        (json.dumps(a_row()).encode("utf-16"), "theirs.jsonl:1: "),
        (b"[1, 2]\n", "theirs.jsonl:1: TypeError: a step is list"),
        (b"null\n", "theirs.jsonl:1: "),
        (b"", "no step in it"),
        (b"\n\n", "no step in it"),
        (b'{"t": ' + b"9" * 10_000 + b"}\n", "theirs.jsonl:1: ValueError"),
        (b"PK\x03\x04 and so on\n", "theirs.jsonl:1: "),
    ],
)
def test_bytes_that_are_no_lines_of_json_are_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "theirs.jsonl").write_bytes(content)
    refused(tmp_path, tmp_path / "theirs.jsonl", "jsonl", why)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("steps.jsonl", b"0" * (64 << 20))
    for of in ("jsonl", "atif"):
        refused(tmp_path, tmp_path / "theirs.zip", of, r"theirs\.zip")
        (tmp_path / "runs" / "new").rename(tmp_path / f"done-{of}")
        (tmp_path / "runs").rmdir()
        (tmp_path / "good.jsonl").unlink()


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experience.shards.exchange.formats.json_lines.MOST_BYTES", 1_000)
    (tmp_path / "theirs.jsonl").write_text(
        json.dumps(a_row()) + "\n" + json.dumps(a_row(1, obs_text="x" * 2_000)) + "\n"
    )
    refused(tmp_path, tmp_path / "theirs.jsonl", "jsonl", "theirs.jsonl:2: longer than")


def test_what_is_deep_but_not_too_deep_reads_back_as_it_was(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    (tmp_path / "theirs.jsonl").write_text(json.dumps(a_row(info={"deep": deep})) + "\n")
    import_from(tmp_path / "theirs.jsonl", "jsonl", tmp_path / "store")
    (step,) = (s for block in Catalog(tmp_path / "store").follow() for s in block)
    assert step.info == {"deep": deep}
    assert not verify(tmp_path / "store", deep=True).problems


def a_trajectory(**turn: Any) -> dict[str, Any]:
    return {
        "schema_version": "ATIF-v1.6",
        "session_id": "s",
        "agent": {"name": "them"},
        "steps": [
            {"step_id": 1, "source": "user", "message": "ls"},
            {"step_id": 2, "source": "agent", "message": "ok"} | turn,
        ],
    }


@pytest.mark.parametrize(
    "turn",
    [
        dict(metrics={"completion_token_ids": [2**40], "logprobs": [-1.0]}),
        dict(metrics={"completion_token_ids": ["a"], "logprobs": [1]}),
        dict(metrics={"completion_token_ids": [1], "logprobs": [float("nan")]}),
        dict(metrics=[1]),
        dict(message=5),
        dict(message=[{"no": "type"}]),
        dict(timestamp="yesterday"),
        dict(timestamp=5),
        dict(tool_calls=[{}]),
        dict(observation={"results": [7]}),
        dict(message="\ud800"),
        dict(metrics={"completion_token_ids": 5, "logprobs": 5}),
    ],
)
def test_a_trajectory_that_is_not_one_is_refused_with_its_file(
    tmp_path: Path, turn: dict[str, Any]
) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(a_trajectory(**turn)))
    refused(tmp_path, tmp_path / "theirs.json", "atif", r"theirs\.json")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b"\xff\xfe",
        b"[]",
        b"5",
        b'{"steps": {}}',
        b'{"agent": {"name": "x"}, "steps": [5]}',
        b'{"extra": {"xp": {"closing": {}}}, "steps": []}',
        b'{"extra": {"xp": 5}, "steps": []}',
        b"",
    ],
)
def test_a_document_that_is_no_trajectory_is_refused_with_its_file(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "theirs.json").write_bytes(content)
    refused(tmp_path, tmp_path / "theirs.json", "atif", r"theirs\.json")


def test_a_document_larger_than_any_trajectory_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "theirs.json", "wb") as file:
        file.truncate(10 << 30)  # a hole: no disk is used
    refused(tmp_path, tmp_path / "theirs.json", "atif", "10737418240 bytes")


def a_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    minari = pytest.importorskip("minari", reason=READERS)
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    buffer = minari.data_collector.EpisodeBuffer(
        observations=[np.array([0.5, i], np.float32) for i in range(3)],
        actions=[np.int64(1), np.int64(0)],
        rewards=[1.0, -1.0],
        terminations=[False, False],
        truncations=[False, True],
        infos={},
    )
    minari.create_dataset_from_buffers(
        "them/cart-v0",
        [buffer],
        observation_space=gymnasium.spaces.Box(-9, 9, (2,), np.float32),
        action_space=gymnasium.spaces.Discrete(2),
    )
    return folder / "them" / "cart-v0"


def change_metadata(dataset: Path, **changes: Any) -> None:
    path = dataset / "data" / "metadata.json"
    kept = {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}
    path.write_text(json.dumps(kept))


def test_a_dataset_that_names_an_environment_does_not_have_it_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = a_dataset(tmp_path / "theirs", monkeypatch)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{__import__('os').environ.get('PYTHONPATH', '')}")
    change_metadata(
        dataset,
        observation_space=None,
        env_spec=json.dumps(
            {
                "id": "Evil-v0",
                "entry_point": "evil:World",
                "kwargs": {},
                "additional_wrappers": [],
                "vector_entry_point": None,
            }
        ),
    )
    refused(tmp_path, dataset, "minari", "no observation_space")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        dict(total_episodes=10**12),
        dict(total_episodes="many"),
        dict(data_format="exe"),
        dict(dataset_id=5),
        dict(observation_space='{"type": "Text"}'),
        dict(observation_space="no json"),
        dict(
            observation_space=json.dumps(
                {
                    "type": "Box",
                    "dtype": "float64",
                    "shape": [10**6, 10**6],
                    "low": 0.0,
                    "high": 1.0,
                }
            )
        ),
    ],
)
def test_metadata_that_is_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    dataset = a_dataset(tmp_path / "theirs", monkeypatch)
    change_metadata(dataset, **changes)
    refused(tmp_path, dataset, "minari", "cart-v0 cannot be read")


def test_a_file_of_kilobytes_that_claims_a_terabyte_is_refused_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = a_dataset(tmp_path / "theirs", monkeypatch)
    import h5py

    with h5py.File(dataset / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        file.create_dataset(
            "episode_0/observations",
            shape=(3, 1 << 36),
            dtype="f4",
            chunks=(1, 1 << 16),
            compression="gzip",
        )
    assert sum(p.stat().st_size for p in dataset.rglob("*") if p.is_file()) < 1 << 20
    refused(tmp_path, dataset, "minari", "MemoryError|allocate|cannot be read")


@pytest.mark.parametrize(
    "kind", ["external link", "soft link", "external data", "virtual data", "symbolic link"]
)
def test_a_file_that_leads_to_others_does_not_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dataset = a_dataset(tmp_path / "theirs", monkeypatch)
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(b"my secret diary " * 2)
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["diary"] = np.arange(6, dtype="f4").reshape(3, 2)
    main = dataset / "data" / "main_data.hdf5"
    with h5py.File(main, "a") as file:
        del file["episode_0/observations"]
        if kind == "external link":
            file["episode_0/observations"] = h5py.ExternalLink(
                str(tmp_path / "other.hdf5"), "diary"
            )
        elif kind == "soft link":
            file["episode_0/observations"] = h5py.SoftLink("/elsewhere")
        elif kind == "external data":
            file.create_dataset(
                "episode_0/observations", (3, 2), "f4", external=[(str(secret), 0, 24)]
            )
        elif kind == "virtual data":
            layout = h5py.VirtualLayout((3, 2), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "diary", (3, 2))
            file.create_virtual_dataset("episode_0/observations", layout)
    if kind == "symbolic link":
        main.unlink()
        main.symlink_to(tmp_path / "other.hdf5")
    refused(tmp_path, dataset, "minari", "link to elsewhere|lies in another file|neither a file")


def test_damaged_datasets_are_refused_or_read_and_never_end_the_importer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = a_dataset(tmp_path / "theirs", monkeypatch)
    main, rng = dataset / "data" / "main_data.hdf5", np.random.default_rng(0)
    whole, refusals = main.read_bytes(), 0
    for at in rng.integers(0, len(whole), 6):
        main.write_bytes(whole[:at] + rng.bytes(64) + whole[at + 64 :])
        try:
            import_from(dataset, "minari", tmp_path / f"store-{at}")
        except ShardError:
            refusals += 1
            assert not (tmp_path / f"store-{at}").exists()
    main.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, dataset, "minari", "cannot be read")


def test_a_strangers_amendments_that_unpack_to_more_than_memory_are_refused(tmp_path: Path) -> None:
    bring = tmp_path / "good.jsonl"
    bring.write_text(json.dumps(a_row()) + "\n")
    import_from(bring, "jsonl", tmp_path / "store")
    rows, word = 200_000, "x" * (1 << 16)
    evidence = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([word]))
    table = pa.table(
        {
            "stream_id": pa.array([bytes(16)] * rows, pa.binary(16)),
            "t": pa.array(np.zeros(rows, np.int64)),
            "name": pa.array(["a"] * rows),
            "value": pa.array(np.zeros(rows)),
            "unit": pa.array(["1"] * rows),
            "source": pa.array(["human"] * rows),
            "evidence": evidence,
            "reward_version": pa.array([""] * rows),
            "t_ns": pa.array(np.zeros(rows, np.int64)),
        }
    )
    (tmp_path / "store" / "amendments").mkdir()
    draft = tmp_path / "store" / "amendments" / "draft"
    parquet.write_table(table, draft, compression="zstd")
    assert draft.stat().st_size < 4 << 20
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    draft.rename(draft.with_name(f"000000-{digest}.amendments"))
    with pytest.raises(ShardError, match="unpacks to more than"):
        amendments(tmp_path / "store")
    assert verify(tmp_path / "store").problems
