"""Exchange: what goes out reads back in the real libraries, and what is ours comes back exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from experience.errors import ShardError
from experience.policy import Decision
from experience.shards.catalog import Catalog
from experience.shards.exchange import as_plain, bring_in, export, from_plain
from experience.shards.journal import Journal
from experience.shards.verify import verify
from experience.signal import Signal
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
                ending = "none" if not last else "env_error" if failed else ("terminated", "truncated")[episode % 2]
                step = make_step(t, stream, closing=turn == 3, step_in_episode=turn, episode=episode, env_id=(
                    "envs:Guess-v0"), task_id=f"task {episode % 2}", split="heldout" if episode == 1 else "train",
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE, t_start_ns=t, t_end_ns=t + 1)
                ending = ("env_error" if failed else ("terminated", "truncated")[episode % 2]) if turn == 3 else ending
                step = replace(step, ending=ending, reward=None if failed and last else step.reward)  # type: ignore[arg-type]
                if cut and turn == 2:
                    break
                if episode == 1 and step.decision:  # acted by something without tokens, one signal unknown
                    step = replace(step, decision=Decision("said", 0, behaviour_id="random"),
                                   signals=(Signal("cost", None, "count", "env_state"),))
                steps.append(step)
                journal.append(step)
                t += 1
    journal.close()
    return steps


def read(store: Path) -> list[dict[str, Any]]:
    found = [as_plain(s) for block in Catalog(store).follow() for s in block]
    return sorted(found, key=lambda s: (s["stream_id"], s["t"]))


def test_a_step_is_the_same_after_json() -> None:
    step = make_step(3, source="imagined", parent=(b"p" * 16, 7), model_version=2, uncertainty=0.25, info={"a": [1]},
                     action_struct=b"\x00\xff")
    assert as_plain(from_plain(json.loads(json.dumps(as_plain(step))))) == as_plain(step)


def test_jsonl_comes_back_exactly(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    done = export(tmp_path / "store", "jsonl", tmp_path / "out")
    assert done.rows == len(read(tmp_path / "store"))
    bring_in(tmp_path / "out", "jsonl", tmp_path / "again")
    assert read(tmp_path / "again") == read(tmp_path / "store")
    assert not verify(tmp_path / "again", deep=True).problems


def test_atif_comes_back_exactly_as_far_as_episodes_are_whole(tmp_path: Path) -> None:
    a_store(tmp_path / "store")
    done = export(tmp_path / "store", "atif", tmp_path / "out")
    assert (done.episodes, done.left_out) == (4, 4)
    bring_in(tmp_path / "out", "atif", tmp_path / "again")
    assert read(tmp_path / "again") == [s for s in read(tmp_path / "store") if s["episode"] < 2]


def test_a_strangers_atif_is_read_with_its_tokens(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({
        "schema_version": "ATIF-v1.6", "session_id": "s", "agent": {"name": "them", "version": "2"}, "steps": [
            {"step_id": 1, "source": "system", "message": "be brief"}, {"step_id": 2, "source": "user", "message": "ls"},
            {"step_id": 3, "source": "agent", "message": "", "tool_calls": [
                {"tool_call_id": "1", "function_name": "bash", "arguments": {"cmd": "ls"}}],
             "observation": {"results": [{"source_call_id": "1", "content": "a.txt"}]},
             "metrics": {"prompt_token_ids": [1, 2], "completion_token_ids": [3, 4], "logprobs": [-0.5, -1.0]}},
            {"step_id": 4, "source": "agent", "message": [{"type": "text", "text": "a.txt"}]}]}))
    done = bring_in(tmp_path / "one.json", "atif", tmp_path / "store")
    assert (done.rows, done.episodes) == (3, 1)
    first, second, closing = (s for block in Catalog(tmp_path / "store").follow() for s in block)
    assert first.obs_text == "be brief\nls" and first.decision is not None and first.decision.token_exact
    assert first.decision.text == 'bash {"cmd": "ls"}' and first.decision.action_ids.tolist() == [3, 4]
    assert second.obs_text == "a.txt" and second.decision is not None and not second.decision.token_exact
    assert closing.is_closing and second.ending == "truncated" and second.reward is None


@pytest.mark.parametrize(("name", "text", "why"), [
    ("steps.jsonl", '{"stream_id": "zz"}\n', "steps.jsonl:1"), ("steps.jsonl", "not json\n", "steps.jsonl:1"),
    ("one.json", '{"steps": []}', "one.json"), ("one.json", '{"agent": {"name": "x"}, "steps": [{"source": "user"}]}',
                                                "KeyError: 'message'")])
def test_what_cannot_be_read_is_named_with_its_place_and_nothing_stays(
        tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ShardError, match=why):
        bring_in(tmp_path / name, "jsonl" if name.endswith("l") else "atif", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_parquet_needs_no_knowledge_of_ours(tmp_path: Path) -> None:
    steps = a_store(tmp_path / "store")
    assert export(tmp_path / "store", "parquet", tmp_path / "out").files == ["heldout.parquet", "train.parquet"]
    found = pl.concat([pl.read_parquet(tmp_path / "out" / f"{s}.parquet") for s in ("train", "heldout")])
    assert len(found) == len(steps)
    by_key = {(s.stream_id.hex(), s.t): s for s in steps}
    for row in found.iter_rows(named=True):
        step = by_key[row["stream_id"], row["t"]]
        assert row["prompt_ids"] == (step.decision.prompt_ids.tolist() if step.decision else []), "whole prompts"
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


def test_minari_reads_what_was_exported_and_it_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason=READERS)
    steps = a_store(tmp_path / "store")
    done = export(tmp_path / "store", "minari", tmp_path / "out")
    assert (done.files, done.episodes, done.left_out) == (["xp/Guess-v0"], 4, 4)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    found = list(minari.load_dataset("xp/Guess-v0").iterate_episodes())
    assert [list(e.observations) for e in found[:1]] == [[s.obs_text for s in steps[:4]]]
    assert found[0].rewards.tolist() == [s.reward for s in steps[:3]] and found[0].terminations.tolist()[-1]
    assert found[1].truncations.tolist() == [False, False, True]
    bring_in(tmp_path / "out" / "xp" / "Guess-v0", "minari", tmp_path / "again")
    again = [s for block in Catalog(tmp_path / "again").follow() for s in block]
    assert len(again) == 16 and {s.source for s in again} == {"demonstration"}
    assert sorted(s.obs_text for s in again) == sorted(s.obs_text for s in steps if s.episode < 2)
    assert sum(g.value or 0 for s in again for g in s.signals if g.name == "done") == 0.5 * 6


def test_minari_arrays_come_in_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason=READERS)
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "theirs"))
    buffer = minari.data_collector.EpisodeBuffer(
        id=0, observations=[np.array([0.5, i], np.float32) for i in range(3)], actions=[np.int64(1), np.int64(0)],
        rewards=[1.0, -1.0], terminations=[False, False], truncations=[False, True], infos={})
    minari.create_dataset_from_buffers(
        "them/cart-v0", [buffer], observation_space=gymnasium.spaces.Box(-9, 9, (2,), np.float32),
        action_space=gymnasium.spaces.Discrete(2))
    bring_in(tmp_path / "theirs" / "them" / "cart-v0", "minari", tmp_path / "store")
    steps = [s for block in Catalog(tmp_path / "store").follow() for s in block]
    assert [s.obs_text for s in steps] == ["[0.5, 0.0]", "[0.5, 1.0]", "[0.5, 2.0]"]
    assert [s.decision.text if s.decision else None for s in steps] == ["1", "0", None]
    assert [s.reward for s in steps] == [1.0, -1.0, None]


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
    with pytest.raises(ShardError, match="jsonl, atif, parquet"):
        export(tmp_path / "store", "csv", tmp_path / "out")
    with pytest.raises(ShardError, match="exists"):
        export(tmp_path / "store", "jsonl", tmp_path / "store")
