"""Exchange: what goes out reads back in the real libraries, and what is ours comes back exactly."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from actors.reading.query import connect
from experience.errors import ShardError
from experience.options.option import option_id
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend, reward_again
from experience.shards.catalog import Catalog
from experience.shards.exchange import (
    EXPORTERS,
    as_plain,
    export,
    formats,
    from_plain,
    import_from,
    ragged,
)
from experience.shards.exchange.formats.hugging_face import without_nulls
from experience.shards.exchange.rows.tables import flat
from experience.shards.journal import Journal
from experience.shards.storage.blobs import BlobReader
from experience.shards.verify import verify
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step
from tests.conftest import CATALOGUE, make_step

READERS = "uv pip install -r tests/readers.txt"
STREAMS = (b"a" * 16, b"b" * 16)


def a_store(store: Path) -> list[Step]:
    """Two streams of three episodes: whole ones, a failed one, one cut off."""
    journal, steps = Journal(store / "w", CATALOGUE), []
    for stream in STREAMS:
        t = 0
        for episode in range(4):
            failed, cut = episode == 2, episode == 3
            for turn in range(4):
                last = turn == 2
                ending = (
                    "none"
                    if not last
                    else "env_error"
                    if failed
                    else ("terminated", "truncated")[episode % 2]
                )
                step = make_step(
                    t,
                    stream,
                    closing=turn == 3,
                    step_in_episode=turn,
                    episode=episode,
                    env_id=("envs:Guess-v0"),
                    task_id=f"task {episode % 2}",
                    split="heldout" if episode == 1 else "train",
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
                    t_start_ns=t,
                    t_end_ns=t + 1,
                )
                ending = (
                    ("env_error" if failed else ("terminated", "truncated")[episode % 2])
                    if turn == 3
                    else ending
                )
                step = replace(step, ending=ending, reward=None if failed and last else step.reward)  # type: ignore[arg-type]
                if cut and turn == 2:
                    break
                if (
                    episode == 1 and step.decision
                ):  # acted by something without tokens, one signal unknown
                    step = replace(
                        step,
                        decision=Decision("said", 0, behaviour_id="random"),
                        signals=(Signal("cost", None, "count", "env_state"),),
                    )
                steps.append(step)
                journal.append(step)
                t += 1
    journal.close()
    return steps


def read(store: Path) -> list[dict[str, Any]]:
    found = [as_plain(s) for block in Catalog(store).follow() for s in block]
    return sorted(found, key=lambda s: (s["stream_id"], s["t"]))


def test_a_step_is_the_same_after_json() -> None:
    step = make_step(
        3,
        source="imagined",
        parent=(b"p" * 16, 7),
        model_version=2,
        uncertainty=0.25,
        info={"a": [1]},
        action_struct=b"\x00\xff",
    )
    assert as_plain(from_plain(json.loads(json.dumps(as_plain(step))))) == as_plain(step)


def test_jsonl_comes_back_exactly(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    done = export(tmp_path / "store", "jsonl", tmp_path / "out")
    assert done.rows == len(read(tmp_path / "store"))
    import_from(tmp_path / "out", "jsonl", tmp_path / "again")
    assert read(tmp_path / "again") == read(tmp_path / "store")
    assert not verify(tmp_path / "again", deep=True).problems


def test_atif_comes_back_exactly_as_far_as_episodes_are_whole(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    done = export(tmp_path / "store", "atif", tmp_path / "out")
    assert (done.episodes, done.left_out) == (4, 4)
    import_from(tmp_path / "out", "atif", tmp_path / "again")
    assert read(tmp_path / "again") == [s for s in read(tmp_path / "store") if s["episode"] < 2]


def test_a_strangers_atif_is_read_with_its_tokens(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(
        json.dumps(
            {
                "schema_version": "ATIF-v1.6",
                "session_id": "s",
                "agent": {"name": "them", "version": "2"},
                "steps": [
                    {"step_id": 1, "source": "system", "message": "be brief"},
                    {"step_id": 2, "source": "user", "message": "ls"},
                    {
                        "step_id": 3,
                        "source": "agent",
                        "message": "",
                        "tool_calls": [
                            {
                                "tool_call_id": "1",
                                "function_name": "bash",
                                "arguments": {"cmd": "ls"},
                            }
                        ],
                        "observation": {"results": [{"source_call_id": "1", "content": "a.txt"}]},
                        "metrics": {
                            "prompt_token_ids": [1, 2],
                            "completion_token_ids": [3, 4],
                            "logprobs": [-0.5, -1.0],
                        },
                    },
                    {
                        "step_id": 4,
                        "source": "agent",
                        "message": [{"type": "text", "text": "a.txt"}],
                    },
                ],
            }
        )
    )
    done = import_from(tmp_path / "one.json", "atif", tmp_path / "store")
    assert (done.rows, done.episodes) == (3, 1)
    first, second, closing = (s for block in Catalog(tmp_path / "store").follow() for s in block)
    assert (
        first.obs_text == "be brief\nls"
        and first.decision is not None
        and first.decision.token_exact
    )
    assert first.decision.text == 'bash {"cmd": "ls"}' and first.decision.action_ids.tolist() == [
        3,
        4,
    ]
    assert (
        second.obs_text == "a.txt"
        and second.decision is not None
        and not second.decision.token_exact
    )
    assert closing.is_closing and second.ending == "truncated" and second.reward is None


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("steps.jsonl", '{"stream_id": "zz"}\n', "steps.jsonl:1"),
        ("steps.jsonl", "not json\n", "steps.jsonl:1"),
        ("one.json", '{"steps": []}', "one.json"),
        (
            "one.json",
            '{"agent": {"name": "x"}, "steps": [{"source": "user"}]}',
            "KeyError: 'message'",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_nothing_stays(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ShardError, match=why):
        import_from(tmp_path / name, "jsonl" if name.endswith("l") else "atif", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_strangers_atif_keeps_reasoning_calls_ids_times_and_costs(tmp_path: Path) -> None:
    """In the words of ATIF's own example; what has no column stands in `info`."""
    call = {"tool_call_id": "call_7", "function_name": "bash", "arguments": {"cmd": "ls"}}
    (tmp_path / "one.json").write_text(
        json.dumps(
            {
                "schema_version": "ATIF-v1.7",
                "session_id": "s-1",
                "agent": {"name": "them", "version": "2", "model_name": "m"},
                "final_metrics": {"total_cost_usd": 0.5},
                "notes": "a note",
                "steps": [
                    {
                        "step_id": 1,
                        "timestamp": "2025-10-11T10:30:00Z",
                        "source": "user",
                        "message": "ls",
                        "extra": {"who": "me"},
                    },
                    {
                        "step_id": 2,
                        "timestamp": "2025-10-11T10:30:02.123456Z",
                        "source": "agent",
                        "message": "looking",
                        "reasoning_content": "they want a list",
                        "reasoning_effort": "high",
                        "tool_calls": [call],
                        "observation": {
                            "results": [
                                {
                                    "source_call_id": "call_7",
                                    "content": "a.txt",
                                    "extra": {"exit": 0},
                                }
                            ]
                        },
                        "metrics": {
                            "prompt_tokens": 520,
                            "cached_tokens": 200,
                            "cost_usd": 0.45,
                            "completion_token_ids": [3, 4],
                            "logprobs": [-0.5, -1.0],
                            "prompt_token_ids": [1],
                        },
                    },
                    {
                        "step_id": 3,
                        "timestamp": "2025-10-11T12:30:05+02:00",
                        "source": "agent",
                        "message": "a.txt",
                        "metrics": {"completion_tokens": 3, "completion_token_ids": [5, 6, 7]},
                    },
                ],
            }
        )
    )
    import_from(tmp_path / "one.json", "atif", tmp_path / "store")
    first, second, closing = (s for block in Catalog(tmp_path / "store").follow() for s in block)
    turn = first.info["atif"]["turn"]
    assert (turn["step_id"], turn["reasoning_content"], turn["reasoning_effort"]) == (
        2,
        "they want a list",
        "high",
    )
    assert turn["tool_calls"] == [call]
    assert turn["metrics"] == {"prompt_tokens": 520, "cached_tokens": 200, "cost_usd": 0.45}
    assert turn["observation"]["results"] == [{"source_call_id": "call_7", "extra": {"exit": 0}}]
    assert first.info["atif"]["seen"] == [
        {
            "step_id": 1,
            "timestamp": "2025-10-11T10:30:00Z",
            "source": "user",
            "extra": {"who": "me"},
        }
    ]
    assert first.t_start_ns == 1760178600 * 10**9 and first.t_end_ns == 1760178602_123456_000
    assert second.t_end_ns == 1760178605 * 10**9 and second.t_start_ns == first.t_end_ns
    assert second.info["atif"]["turn"]["metrics"]["completion_token_ids"] == [5, 6, 7], (
        "no log-probabilities: not exact"
    )
    assert closing.info["atif"]["trajectory"]["final_metrics"] == {"total_cost_usd": 0.5}
    assert closing.info["atif"]["trajectory"]["session_id"] == "s-1"


def test_episodes_that_no_trajectory_tells_of_leave_a_marked_gap_not_a_failure(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    for t in range(6):
        journal.append(
            make_step(
                t,
                closing=t % 2 == 1,
                ending=("terminated", "env_error", "truncated")[t // 2],
                reward=None,
                boundary=Boundary.RESET if t % 2 == 0 else Boundary.NONE,
            )
        )
    journal.close()
    assert export(tmp_path / "store", "atif", tmp_path / "out").left_out == 1
    import_from(tmp_path / "out", "atif", tmp_path / "again")
    again = [s for block in Catalog(tmp_path / "again").follow() for s in block]
    assert [(s.t, s.ending, bool(s.boundary & Boundary.GAP)) for s in again] == [
        (0, "terminated", False),
        (1, "terminated", False),
        (2, "truncated", True),
        (3, "truncated", False),
    ]


def test_parquet_needs_no_knowledge_of_ours(tmp_path: Path) -> None:
    steps = a_store(tmp_path / "store")
    assert export(tmp_path / "store", "parquet", tmp_path / "out").files == [
        "heldout.parquet",
        "train.parquet",
    ]
    found = pl.concat(
        [pl.read_parquet(tmp_path / "out" / f"{s}.parquet") for s in ("train", "heldout")]
    )
    assert len(found) == len(steps)
    by_key = {(s.stream_id.hex(), s.t): s for s in steps}
    for row in found.iter_rows(named=True):
        step = by_key[row["stream_id"], row["t"]]
        assert row["prompt_ids"] == (step.decision.prompt_ids.tolist() if step.decision else []), (
            "whole prompts"
        )
        assert row["signal.done"] == next((g.value for g in step.signals if g.name == "done"), None)
        assert row["reward"] == step.reward


def test_hugging_face_datasets_reads_what_was_exported(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason=READERS)
    steps = a_store(tmp_path / "store")
    export(tmp_path / "store", "hf", tmp_path / "out")
    found = datasets.load_from_disk(str(tmp_path / "out" / "train"))
    assert len(found) == sum(s.split == "train" for s in steps)
    assert found[0]["action_ids"] == steps[0].decision.action_ids.tolist()  # type: ignore[union-attr]
    assert found[0]["action_logprobs"] == pytest.approx(steps[0].decision.logprobs.tolist())  # type: ignore[union-attr]


def test_minari_reads_what_was_exported_and_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason=READERS)
    steps = a_store(tmp_path / "store")
    done = export(tmp_path / "store", "minari", tmp_path / "out")
    assert (done.files, done.episodes, done.left_out) == (["xp/Guess-v0"], 4, 4)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    found = list(minari.load_dataset("xp/Guess-v0").iterate_episodes())
    assert [list(e.observations) for e in found[:1]] == [[s.obs_text for s in steps[:4]]]
    assert (
        found[0].rewards.tolist() == [s.reward for s in steps[:3]]
        and found[0].terminations.tolist()[-1]
    )
    assert found[1].truncations.tolist() == [False, False, True]
    import_from(tmp_path / "out" / "xp" / "Guess-v0", "minari", tmp_path / "again")
    again = [s for block in Catalog(tmp_path / "again").follow() for s in block]
    assert len(again) == 16 and {s.source for s in again} == {"demonstration"}
    assert sorted(s.obs_text for s in again) == sorted(s.obs_text for s in steps if s.episode < 2)
    assert sum(g.value or 0 for s in again for g in s.signals if g.name == "done") == 0.5 * 6


def test_minari_arrays_come_in_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason=READERS)
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "theirs"))
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
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
    import_from(tmp_path / "theirs" / "them" / "cart-v0", "minari", tmp_path / "store")
    steps = [s for block in Catalog(tmp_path / "store").follow() for s in block]
    assert [s.obs_text for s in steps] == ["[0.5, 0.0]", "[0.5, 1.0]", "[0.5, 2.0]"]
    assert [s.decision.text if s.decision else None for s in steps] == ["1", "0", None]
    assert [s.reward for s in steps] == [1.0, -1.0, None]


def exported(
    to: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[int, tuple[float | None, dict[str, Any]]]:
    """By t of each acted step: its reward and its signals, as the format has them; LeRobot has no
    signals."""

    def row(reward: Any, signals: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
        known = {
            name: value for name, value in signals.items() if value is not None and value == value
        }
        return None if reward is None or reward != reward else float(reward), known

    if to == "jsonl":
        steps = [json.loads(line) for line in open(out / "steps.jsonl")]
    elif to == "atif":
        files = sorted(out.glob("*.json"), key=lambda path: int(path.stem.partition("-")[2]))
        steps = [
            turn["extra"]["xp"] for f in files for turn in json.loads(f.read_text())["steps"][1:]
        ]
    elif to == "minari":
        minari = pytest.importorskip("minari", reason=READERS)
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
        return {
            int(e.infos["t"][i]): row(
                e.rewards[i],
                {
                    name.removeprefix("signal_"): e.infos[name][i + 1]
                    for name in e.infos
                    if name.startswith("signal_")
                },
            )
            for e in minari.load_dataset("xp/Test-v0").iterate_episodes()
            for i in range(len(e.rewards))
        }
    elif to == "lerobot":
        data = pl.read_parquet(out / "Test" / "data/chunk-000/file-000.parquet")
        return {
            int(seen.split()[1]): row(reward, {})
            for seen, reward in data.select("observation.text", "next.reward").iter_rows()
        }
    else:
        if to == "hf":
            rows = (
                pytest.importorskip("datasets", reason=READERS)
                .load_from_disk(str(out / "train"))
                .to_list()
            )
        else:
            rows = list(pl.read_parquet(out / "train.parquet").iter_rows(named=True))
        return {
            r["t"]: row(
                r["reward"], {n.removeprefix("signal."): r[n] for n in r if n.startswith("signal.")}
            )
            for r in rows
            if r["action_text"]
        }
    return {
        s["t"]: row(s["reward"], {g["name"]: g["value"] for g in s["signals"]})
        for s in steps
        if s["decision"]
    }


@pytest.mark.parametrize("to", sorted(EXPORTERS))
def test_what_goes_out_is_what_queries_show_amended_unless_asked_as_written(
    tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal amended, one added, and rewards given anew twice, of which the last is in force."""
    if to in ("hf", "minari"):
        pytest.importorskip({"hf": "datasets"}.get(to, to), reason=READERS)
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    for t in range(3):
        journal.append(
            make_step(
                t, closing=t == 2, ending=("none", "terminated", "terminated")[t], split="train"
            )
        )
    journal.close()
    amend(
        tmp_path / "store",
        [Amendment(b"s" * 16, 0, "done", 0.75), Amendment(b"s" * 16, 1, "liked", 4.0)],
        new={"liked": SignalKind("stars", "human")},
    )
    for weight in (3.0, 2.0):
        reward_again(tmp_path / "store", RewardModel({"envs:Test-v0": {"done": weight}}))
    export(tmp_path / "store", to, tmp_path / "out")
    export(tmp_path / "store", to, tmp_path / "written", as_written=True)
    now, then = (
        exported(to, tmp_path / "out", monkeypatch),
        exported(to, tmp_path / "written", monkeypatch),
    )
    assert {t: reward for t, (reward, _) in now.items()} == {0: 1.5, 1: 1.0}
    assert {t: reward for t, (reward, _) in then.items()} == {0: 0.0, 1: 0.25}
    if to != "lerobot":
        assert {t: signals for t, (_, signals) in now.items()} == {
            0: {"done": 0.75},
            1: {"done": 0.5, "liked": 4.0},
        }
        assert {t: signals for t, (_, signals) in then.items()} == {
            0: {"done": 0.5},
            1: {"done": 0.5},
        }
    shown = connect({"steps": tmp_path / "store"}).sql(
        "select t, reward from steps where action_text is not null"
    )
    assert dict(shown.fetchall()) == {t: reward for t, (reward, _) in now.items()}


def a_store_with_pictures(store: Path) -> dict[str, bytes]:
    """Two episodes of two turns that show three pictures; by hash, their bytes."""
    from PIL import Image

    shown = []
    for colour in ("red", "green", "blue"):
        sink = io.BytesIO()
        Image.new("RGB", (4, 3), colour).save(sink, "PNG")
        shown.append(sink.getvalue())
    journal = Journal(store / "w", CATALOGUE)
    for t in range(6):
        blobs = tuple(
            journal.blobs.put(shown[(t + i) % 3], "image/png", 4, 3, role="screenshot")
            for i in range(t % 3)
        )
        journal.append(
            make_step(
                t,
                closing=t % 3 == 2,
                step_in_episode=t % 3,
                env_id="envs:Guess-v0",
                obs_blobs=blobs,
                boundary=Boundary.RESET if t % 3 == 0 else Boundary.NONE,
                ending="terminated" if t % 3 else "none",
            )
        )
    journal.close()
    return {hashlib.sha256(data).hexdigest(): data for data in shown}


@pytest.mark.parametrize(
    ("to", "folder"),
    [("jsonl", ""), ("atif", ""), ("parquet", ""), ("minari", "xp/Guess-v0"), ("lerobot", "Guess")],
)
def test_pictures_go_out_once_each_under_the_path_that_the_rows_name(
    tmp_path: Path, to: str, folder: str
) -> None:
    if to == "minari":
        pytest.importorskip("minari", reason=READERS)
    shown = a_store_with_pictures(tmp_path / "store")
    export(tmp_path / "store", to, tmp_path / "out")
    found = {p.stem: p.read_bytes() for p in (tmp_path / "out" / folder / "images").iterdir()}
    if (
        to == "lerobot"
    ):  # whose rows are the acted ones: the two closing rows' pictures have no place in it
        shown = {digest: data for digest, data in shown.items() if digest in found}
        assert len(shown) == 1
    assert found == shown and {
        p.suffix for p in (tmp_path / "out" / folder / "images").iterdir()
    } == {".png"}
    if to == "parquet":
        named = pl.read_parquet(tmp_path / "out" / "train.parquet")["images"].to_list()
        assert [len(row) for row in named] == [0, 1, 2, 0, 1, 2]
        assert all((tmp_path / "out" / path).exists() for row in named for path in row)
    if to == "lerobot":
        named = pl.read_parquet(tmp_path / "out" / "Guess" / "data/chunk-000/file-000.parquet")[
            "observation.pictures"
        ]
        assert [len(json.loads(row)) for row in named] == [0, 1, 0, 1]


@pytest.mark.parametrize("to", ["jsonl", "atif"])
def test_pictures_come_back_with_the_steps_that_show_them(tmp_path: Path, to: str) -> None:
    shown = a_store_with_pictures(tmp_path / "store")
    export(tmp_path / "store", to, tmp_path / "out")
    import_from(tmp_path / "out", to, tmp_path / "again")
    assert read(tmp_path / "again") == read(tmp_path / "store")
    assert (
        verify(tmp_path / "again", deep=True).blobs == 3 and not verify(tmp_path / "again").problems
    )
    reader = BlobReader(tmp_path / "again")
    assert all(reader.read(bytes.fromhex(digest)) == data for digest, data in shown.items())
    picture = next((tmp_path / "out" / "images").iterdir())
    picture.write_bytes(b"another")
    with pytest.raises(ShardError, match="is not the picture"):
        import_from(tmp_path / "out", to, tmp_path / "forged")


def test_a_picture_that_is_missing_stops_an_export_which_leaves_nothing(tmp_path: Path) -> None:
    a_store_with_pictures(tmp_path / "store")
    for pack in (tmp_path / "store" / "w").glob("*.blobs"):
        pack.unlink()
    with pytest.raises(ShardError, match="missing"):
        export(tmp_path / "store", "jsonl", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_hugging_face_row_holds_no_null_and_no_unknown_as_0_and_the_ids_of_options_to_the_last_digit() -> (
    None
):
    skill = replace(make_step(0), option_id=option_id("skill"), option_step=1)
    assert skill.decision is not None
    told = replace(skill, t=1, decision=replace(skill.decision, prompt_cut=3, action_cut=True))
    old = replace(
        skill,
        t=2,
        option_id=None,
        decision=replace(skill.decision, prompt_cut=None, action_cut=None),
    )
    steps = [skill, told, old, make_step(3, closing=True)]
    rows = without_nulls(flat(steps, CATALOGUE, pa.array([[]] * 4, pa.list_(pa.string()))))
    assert not any(column.null_count for column in rows.columns)
    unknown = [
        [np.isnan(v) for v in rows.column(name).to_pylist()]
        for name in ("prompt_cut", "action_cut", "sampled")
    ]
    assert [flags[1:] for flags in unknown] == [
        [False, True, True],
        [False, True, True],
        [False, False, True],
    ]
    assert rows.column("option_id").to_pylist() == [str(option_id("skill"))] * 2 + ["", ""]


def test_a_hugging_face_export_goes_through_a_torch_data_loader(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason=READERS)
    from torch.utils.data import DataLoader

    steps = a_store(tmp_path / "store")
    export(tmp_path / "store", "hf", tmp_path / "out")
    rows = datasets.load_from_disk(str(tmp_path / "out" / "train"))
    kept = [s for s in steps if s.split == "train"]
    for loaded in (rows, rows.with_format("torch"), rows.with_format("numpy")):
        batches = list(DataLoader(loaded, batch_size=4, collate_fn=ragged))
        assert sum(len(b["t"]) for b in batches) == len(kept)
        assert [len(ids) for b in batches for ids in b["action_ids"]] == [
            len(s.decision.action_ids) if s.decision else 0 for s in kept
        ]
        rewards = np.concatenate([b["reward"] for b in batches])
        assert np.array_equal(
            rewards, [np.nan if s.reward is None else s.reward for s in kept], equal_nan=True
        )
    assert len(list(DataLoader(rows.with_format("torch"), batch_size=1))) == len(kept), (
        "torch's own collate, too"
    )
    few = rows.select_columns(
        ["obs_text", "action_text", "reward", "policy_version", "signal.done"]
    )
    assert sum(len(b["reward"]) for b in DataLoader(few.with_format("torch"), batch_size=8)) == len(
        kept
    )


def test_a_hugging_face_export_holds_the_pictures_themselves(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason=READERS)
    shown = a_store_with_pictures(tmp_path / "store")
    export(tmp_path / "store", "hf", tmp_path / "out")
    rows = datasets.load_from_disk(str(tmp_path / "out" / "train"))
    assert [[image.getpixel((0, 0)) for image in row] for row in rows["images"]][:3] == [
        [],
        [(0, 128, 0)],
        [(0, 0, 255), (255, 0, 0)],
    ]
    assert len(shown) == 3


def test_minari_takes_a_relative_folder_and_texts_with_nul(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason=READERS)
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    journal.append(make_step(0, obs_text="a\0b", ending="terminated", decision=Decision("x\0", 0)))
    journal.append(make_step(1, obs_text="", closing=True, ending="terminated"))
    journal.close()
    monkeypatch.chdir(tmp_path)
    done = export(Path("store"), "minari", Path("out"))
    assert "2 texts hold a NUL" in done.notes[0]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    (episode,) = minari.load_dataset("xp/Test-v0").iterate_episodes()
    assert list(episode.observations) == ["a␀b", ""] and list(episode.actions) == ["x␀"]
    assert import_from(Path("out") / "xp" / "Test-v0", "minari", Path("again")).rows == 2


def test_two_worlds_of_one_short_name_do_not_share_a_dataset(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    for i, world in enumerate(("envs:Guess-v0", "other:Guess-v0", "envs:Guess-v1")):
        stream = bytes([i]) * 16
        journal.append(make_step(0, stream, env_id=world, ending="terminated"))
        journal.append(make_step(1, stream, env_id=world, closing=True, ending="terminated"))
    journal.close()
    done = export(tmp_path / "store", "lerobot", tmp_path / "out")
    assert (
        len(set(done.files))
        == 3
        == sum((tmp_path / "out" / name / "meta/info.json").exists() for name in done.files)
    )


_EXPORT = """
import resource, sys
from pathlib import Path
from experience.shards.exchange import export
export(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
@pytest.mark.parametrize("to", ["lerobot", "parquet", "jsonl"])
def test_the_memory_of_an_export_does_not_grow_with_the_rows(tmp_path: Path, to: str) -> None:
    peaks = {}
    for rows in (10_000, 100_000):
        journal = Journal(
            tmp_path / f"{rows}" / "w",
            CATALOGUE,
            durability="os",
            batch_rows=512,
            seal_bytes=32 << 20,
        )
        for t in range(rows):
            journal.append(
                make_step(
                    t,
                    closing=t % 10 == 9,
                    obs_text=f"{t} " * 100,
                    ending="terminated" if t % 10 > 7 else "none",
                    boundary=Boundary.RESET if t % 10 == 0 else Boundary.NONE,
                )
            )
        journal.close()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                _EXPORT,
                str(tmp_path / f"{rows}"),
                to,
                str(tmp_path / f"out-{rows}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[rows] = int(done.stdout) / 1024
    print(to, peaks)
    assert peaks[100_000] < peaks[10_000] + 60, f"MiB: {peaks}"


def test_lerobots_statistics_are_those_of_all_rows_at_once(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    export(tmp_path / "store", "lerobot", tmp_path / "out")
    said = json.loads((tmp_path / "out/Guess/meta/stats.json").read_text())
    data = pl.read_parquet(tmp_path / "out/Guess/data/chunk-000/file-000.parquet")
    for name, of in said.items():
        values = data[name].to_numpy().astype(np.float64)
        assert (
            of["count"] == [12]
            and of["min"] == [np.nanmin(values)]
            and of["max"] == [np.nanmax(values)]
        )
        assert of["mean"][0] == pytest.approx(np.nanmean(values)) and of["std"][0] == pytest.approx(
            np.nanstd(values)
        )


def test_harbors_own_models_accept_our_atif(tmp_path: Path) -> None:
    trajectories = pytest.importorskip("harbor.models.trajectories", reason=READERS)
    a_store(tmp_path / "store")
    export(tmp_path / "store", "atif", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        read = trajectories.Trajectory.model_validate_json(path.read_text())
        assert len(read.steps) == 4
        assert read.to_json_dict()["steps"][1]["message"] in ("press 1", "said")


def test_lerobots_own_loader_accepts_our_dataset(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason=READERS)
    loader = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason=READERS)
    steps = a_store(tmp_path / "store")
    export(tmp_path / "store", "lerobot", tmp_path / "out")
    found = loader.LeRobotDataset("xp/Guess", root=tmp_path / "out" / "Guess")
    assert (found.num_episodes, found.num_frames) == (4, 12)
    assert found[0]["observation.text"] == steps[0].obs_text and found[0]["action"] == "press 1"
    assert float(found[2]["next.reward"]) == steps[2].reward and bool(found[2]["next.done"])
    assert found[3]["task"] == "task 1"


def test_an_unknown_format_and_a_folder_that_exists_are_refused(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    with pytest.raises(ShardError, match="atif, hf, jsonl, lerobot, minari, parquet"):
        export(tmp_path / "store", "csv", tmp_path / "out")
    with pytest.raises(ShardError, match="exists"):
        export(tmp_path / "store", "jsonl", tmp_path / "store")


def test_a_split_of_a_strangers_choice_is_no_path(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    journal.append(make_step(0, split="../../evil"))
    journal.close()
    assert export(tmp_path / "store", "parquet", tmp_path / "out").files == ["------evil.parquet"]


def xp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "actors", *words], capture_output=True, text=True)


def test_an_import_that_failed_can_be_tried_again_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    runs = tmp_path / "runs"
    words = ("--from", "jsonl", "--name", "theirs", "--runs-dir", str(runs))
    failed = xp("import", str(tmp_path / "bad.jsonl"), *words)
    assert failed.returncode == 4 and "bad.jsonl:1" in failed.stderr and not list(runs.iterdir())
    (tmp_path / "bad.jsonl").write_text(json.dumps(as_plain(make_step(0))) + "\n")
    assert xp("import", str(tmp_path / "bad.jsonl"), *words).returncode == 0
    assert [p.name for p in runs.iterdir()] == ["theirs"]
    for name in ("../x", "/tmp/x", ".", "..", "", ".hidden", "a/b"):
        assert (
            xp(
                "import",
                str(tmp_path / "bad.jsonl"),
                "--from",
                "jsonl",
                "--name",
                name,
                "--runs-dir",
                str(runs),
            ).returncode
            == 2
        ), name


def test_a_format_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lengths.py").write_text(
        "from experience.shards.exchange.rows.episodes import Exchanged\n"
        'NAME = "lengths"\n'
        "def export(rows, out):\n"
        "    lengths = [str(len(e.steps)) for e in rows.episodes()]\n"
        '    (out / "lengths.txt").write_text(" ".join(lengths))\n'
        "    return Exchanged(episodes=len(lengths))\n"
    )
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{formats.__name__}.lengths", raising=False)
    found = {module.NAME: module for module in formats.modules()}
    assert isinstance(found["lengths"], formats.Exporter)
    assert not isinstance(found["lengths"], formats.Importer)
    monkeypatch.setitem(formats.EXPORTERS, "lengths", found["lengths"])
    journal = Journal(tmp_path / "store" / "w", CATALOGUE)
    for t in range(10):
        journal.append(make_step(t, closing=t % 5 == 4))
    journal.close()
    export(tmp_path / "store", "lengths", tmp_path / "out")
    assert (tmp_path / "out" / "lengths.txt").read_text() == "4 4"


def test_each_format_goes_out_or_comes_in_by_its_name() -> None:
    assert sorted(formats.EXPORTERS) == ["atif", "hf", "jsonl", "lerobot", "minari", "parquet"]
    assert sorted(formats.IMPORTERS) == ["atif", "jsonl", "minari"]
