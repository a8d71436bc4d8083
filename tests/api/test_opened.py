"""The Python API: a run that was opened answers from its store, and nothing is given twice."""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as fs
import pytest
import torch

import experience as xp
from experience.errors import MissingPartError
from experience.shards.amend import follow_amended, reward_again
from experience.shards.cold.compaction import compact
from experience.shards.storage.remote import RemoteDisk, mirror
from tests.lived_runs import WrittenRun
from tests.test_house import ROOT

LENGTHS = (3, 1, 5, 2, 4, 7)
TWICE = xp.RewardModel({"envs:Test-v0": {"done": 2.0}})


def write(runs: Path, name: str = "small-1", episodes: int = 12, **how: Any) -> WrittenRun:
    """Episodes of several lengths, in two streams, training and held out, of versions 0 and 1."""
    run = WrittenRun(runs, name)
    for number in range(episodes):
        run.live(
            [float(number)] * LENGTHS[number % len(LENGTHS)],
            stream=number % 2,
            version=number % 2,
            split="heldout" if number % 3 == 0 else "train",
            **how,
        )
    return run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs")).close()


def keys_of(batches: Any) -> list[tuple[bytes, int]]:
    return [
        (stream, t)
        for batch in batches
        for stream, t in zip(batch["stream_id"], batch["t"].tolist(), strict=True)
    ]


def all_keys(path: Path) -> list[tuple[bytes, int]]:
    rows = xp.open(path).steps(["stream_id", "t"]).arrow().to_pylist()
    return sorted((row["stream_id"], row["t"]) for row in rows)


def test_import_experience_takes_little_and_opening_needs_neither_torch_nor_ray(path: Path) -> None:
    code = (
        "import sys, experience as xp\n"
        "print(sorted({'numpy', 'pyarrow', 'duckdb', 'torch', 'ray'} & set(sys.modules)))\n"
        f"run = xp.open({str(path)!r}); run.episodes(); run.steps(['t']).arrow()\n"
        "print(sorted({'torch', 'ray', 'gymnasium', 'actors', 'envs'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_episodes_are_chosen_ordered_and_paged_by_sql(path: Path) -> None:
    run = xp.open(path)
    every = run.episodes()
    assert len(every) == 12 and every.column_names[:2] == ["key", "run"]
    assert every["total_reward"].to_pylist() == [n * LENGTHS[n % len(LENGTHS)] for n in range(12)]
    best = run.episodes("split = 'train'", order="total_reward desc", limit=2)
    assert best["total_reward"].to_pylist() == [77.0, 40.0]
    pages = [run.episodes(limit=5, offset=at)["key"].to_pylist() for at in (0, 5, 10, 15)]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert list(chain.from_iterable(pages)) == every["key"].to_pylist()


def test_an_episode_is_found_by_its_key_and_another_key_is_refused(path: Path) -> None:
    run = xp.open(path)
    for row in run.episodes().to_pylist():
        episode = run.episode(row["key"])
        assert len(episode.steps) == row["steps"] and episode.total_reward == row["total_reward"]
        assert episode.first.t == row["first_t"] and episode.first.stream_id == row["stream_id"]
    stream = run.episodes()["key"][0].as_py().partition(":")[0]
    for key in (f"{stream}:1", f"{'00' * 16}:0", "7", "../../etc/passwd"):
        with pytest.raises(xp.ConfigError, match="no episode has the key"):
            run.episode(key)


def test_steps_are_the_same_rows_in_every_library(path: Path) -> None:
    steps = xp.open(path).steps(["t", "reward", "signal.done"], "reward is not null")
    table = steps.arrow()
    assert len(steps) == len(table) == sum(LENGTHS) * 2
    assert steps.columns == ["t", "reward", "signal.done"]
    assert steps.polars().rows() == [tuple(row.values()) for row in table.to_pylist()]
    [(count, total)] = steps.relation().query("s", "select count(*), sum(reward) from s").fetchall()
    assert (count, total) == (len(table), sum(table["reward"].to_pylist()))
    sizes = [batch.num_rows for batch in steps.batches(7)]
    assert sum(sizes) == len(table) and max(sizes) <= 7


def test_steps_are_the_same_rows_in_pandas(path: Path) -> None:
    pytest.importorskip("pandas")
    steps = xp.open(path).steps(["t", "reward"], "reward is not null")
    assert steps.pandas()["reward"].tolist() == steps.arrow()["reward"].to_pylist()


def test_a_library_that_is_not_installed_is_named_with_the_line_to_type(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingPartError, match=r"(?s)polars is not installed.*pip install polars"):
        xp.open(path).steps(["t"]).polars()


@pytest.mark.parametrize(
    ("columns", "where", "said"),
    [
        (["rewrad"], "", "did you mean 'reward'"),
        ([], "no_such = 1", "where: Binder Error"),
        ([], "1 = 1); drop view steps; --", "where: Parser Error"),
        ([], "t in (select t from read_csv('/etc/passwd'))", "where: .*Permission Error"),
    ],
)
def test_a_wrong_column_or_condition_is_refused_with_the_columns(
    columns: list[str], where: str, said: str, path: Path
) -> None:
    with pytest.raises(xp.ConfigError, match=said) as refused:
        xp.open(path).steps(columns, where)
    assert "policy_version" in str(refused.value)


def test_several_runs_are_one_with_their_names_beside_the_rows(tmp_path: Path) -> None:
    first = write(tmp_path, "first", 3).close()
    second = write(tmp_path, "second", 2, reward_version="other").close()
    run = xp.open(first, second)
    assert run.episodes()["run"].to_pylist() == ["first"] * 3 + ["second"] * 2
    [(name, rows), *_] = (
        run.steps(["run"])
        .relation()
        .query("s", "select run, count(*) from s group by all order by all")
        .fetchall()
    )
    assert (name, rows) == ("first", sum(LENGTHS[:3]) + 3)
    with pytest.raises(xp.ConfigError, match="2 runs are open"):
        next(run.windows(2))


def test_a_run_that_goes_on_shows_the_rows_committed_since(tmp_path: Path) -> None:
    written = write(tmp_path, episodes=2)
    run = xp.open(written.path)
    written.journal.commit()
    before = len(run.episodes()), len(run.steps())
    written.live([1.0, 2.0])
    written.journal.commit()
    assert (len(run.episodes()), len(run.steps())) == (before[0] + 1, before[1] + 3)
    written.close()


def test_windows_hold_successive_rows_with_signals_and_texts(path: Path) -> None:
    reader = xp.open(path).windows(2, 64, ("t", "reward", "signal.done", "obs_text"), split="")
    windows = next(reader)
    t, done = windows.numbers["t"], windows.numbers["signal.done"]
    assert t.shape == done.shape == (64, 2) and (t[:, 1] == t[:, 0] + 1).all()
    assert np.isnan(done[np.isnan(windows.numbers["reward"])]).all() and 0.5 in done
    assert windows.ragged["obs_text"].row(0).tobytes().startswith(b"page ")


@pytest.mark.parametrize(("workers", "seed"), [(0, None), (0, 3), (2, None), (2, 3)])
def test_a_pass_gives_every_row_once_whatever_the_workers(
    workers: int, seed: int | None, path: Path
) -> None:
    dataset = xp.open(path).torch(("stream_id", "t"), batch=4, seed=seed)
    batches = list(dataset.loader(workers))
    assert len(batches) == len(dataset)
    found = keys_of(batches)
    assert sorted(found) == all_keys(path)
    if seed is not None and not workers:
        dataset.epoch = 1
        assert keys_of(dataset) != found and sorted(keys_of(dataset)) == sorted(found)


def test_processes_share_a_pass_without_a_row_twice(path: Path) -> None:
    run = xp.open(path)
    shares = [run.torch(("stream_id", "t"), batch=4, seed=1, share=(rank, 3)) for rank in range(3)]
    found = [keys_of(s.loader(1)) for s in shares]
    assert all(found) and sorted(chain.from_iterable(found)) == all_keys(path)


def test_a_worker_that_is_started_anew_reads_what_was_chosen_from_a_changed_store(
    tmp_path: Path,
) -> None:
    written = write(tmp_path, episodes=8)
    path = written.path
    written.journal.commit()
    dataset = xp.open(path).torch(("stream_id", "t"), batch=4, seed=2)
    chosen = all_keys(path)
    written.live([9.0] * 6)
    written.close()
    compact(path / "shards")
    started_anew = pickle.loads(pickle.dumps(dataset))  # as torch sends it to such a worker
    assert sorted(keys_of(started_anew)) == chosen


def test_windows_of_a_dataset_end_with_their_episode_and_say_so(path: Path) -> None:
    columns = ("t", "reward", "obs_text", "action_ids", "signal.done")
    batches = list(xp.open(path).torch(columns, "split = 'train'", k=4, batch=3))
    mask = torch.cat([batch["mask"] for batch in batches])
    rows = sum(LENGTHS[n % 6] + 1 for n in range(12) if n % 3)
    assert int(mask.sum()) == rows and mask.shape[1] == 4
    for batch in batches:
        assert (batch["t"][~batch["mask"]] == 0).all()
        for texts, ids, of in zip(
            batch["obs_text"], batch["action_ids"], batch["mask"], strict=True
        ):
            assert len(texts) == len(ids) == int(of.sum())
            assert all(text.startswith("page ") for text in texts)
            assert all(one.dtype == torch.int32 for one in ids)


def test_nothing_chosen_is_an_error_and_no_empty_dataset(path: Path) -> None:
    with pytest.raises(xp.ConfigError, match="no episode is chosen"):
        xp.open(path).torch(where="split = 'nowhere'")


def test_another_reward_changes_every_view_and_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path).close()
    before = sorted(p for p in path.rglob("*") if p.suffix == ".amendments")
    run, again = xp.open(path), xp.open(path).with_reward(TWICE)
    acted = "action_text is not null"
    assert set(again.steps(["reward"], acted).arrow()["reward"].to_pylist()) == {1.0}
    assert set(again.steps(["reward_version"], acted).arrow()["reward_version"].to_pylist()) == {
        TWICE.version
    }
    lengths = [LENGTHS[n % 6] for n in range(12)]
    assert again.episodes()["total_reward"].to_pylist() == [float(n) for n in lengths]
    assert again.episode(again.episodes()["key"][2].as_py()).total_reward == 5.0
    drawn = next(again.windows(1, 99, ("reward",))).numbers["reward"]
    assert set(drawn[~np.isnan(drawn)].tolist()) == {1.0}
    loaded = torch.cat([batch["reward"] for batch in again.torch(("reward",))])
    assert float(loaded.nansum()) == sum(lengths)
    assert run.episodes()["total_reward"].to_pylist()[2] == 10.0
    assert before == sorted(p for p in path.rglob("*") if p.suffix == ".amendments")
    with pytest.raises(xp.ConfigError, match="did you mean 'done'"):
        run.with_reward(xp.RewardModel({"envs:Test-v0": {"doen": 1.0}}))


def test_a_reward_that_is_computed_when_read_is_the_one_that_reward_again_writes(
    tmp_path: Path,
) -> None:
    run = write(tmp_path, episodes=3)
    run.live([1.0], signals=(xp.Signal("done", None, "fraction", "env_state"),))
    run.live([None], signals=(), error="broke")
    path = run.close()
    table = xp.open(path).with_reward(TWICE).steps(["stream_id", "t", "reward"]).arrow()
    computed = {(row["stream_id"], row["t"]): row["reward"] for row in table.to_pylist()}
    reward_again(path / "shards", TWICE)
    written = {
        (step.stream_id, step.t): step.reward
        for block in follow_amended(path / "shards", TWICE.version)
        for step in block
    }
    assert computed == written and None in written.values() and 1.0 in written.values()


def test_an_amendment_is_seen_by_every_view_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, episodes=2).close()
    run = xp.open(path)
    first = run.episode(run.episodes()["key"][0].as_py()).steps[0]
    run.amend(
        [
            xp.Amendment(first.stream_id, first.t, "liked", 1.0),
            xp.Amendment(first.stream_id, first.t, "reward", 50.0, reward_version="by-hand"),
        ],
        new={"liked": xp.SignalKind("1", "human")},
    )
    assert run.steps(["reward"], '"signal.liked" = 1').arrow()["reward"].to_pylist() == [50.0]
    assert 50.0 in torch.cat([b["reward"] for b in run.torch(("reward",))])
    assert run.episodes(order="total_reward desc", limit=1)["total_reward"].to_pylist() == [50.0]
    with pytest.raises(xp.RecordError, match="no such step"):
        run.amend([xp.Amendment(b"x" * 16, 0, "done", 1.0)])


def test_the_pictures_of_a_turn_are_the_bytes_that_the_world_gave(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    blob = run.journal.blobs.put(b"\x89PNG not really", "image/png", 4, 3, role="screenshot")
    run.live([1.0], obs_blobs=(blob,))
    opened = xp.open(run.close())
    step = opened.episode(opened.episodes()["key"][0].as_py()).steps[0]
    [picture] = opened.pictures(step)
    assert (picture.data, picture.media, picture.role) == (
        b"\x89PNG not really",
        "image/png",
        "screenshot",
    )
    assert picture._repr_mimebundle_()["image/png"] == picture.data


def test_a_run_in_an_object_store_is_read_there_by_its_address(tmp_path: Path) -> None:
    path = write(tmp_path, episodes=4).close()
    (tmp_path / "bucket").mkdir()
    mirror(
        path / "shards",
        RemoteDisk(fs.LocalFileSystem(), str(tmp_path / "bucket")),
        Path("x/shards"),
    )
    there, here = xp.open((tmp_path / "bucket" / "x").as_uri()), xp.open(path)
    columns = ["stream_id", "t", "reward"]
    assert there.steps(columns).arrow().to_pylist() == here.steps(columns).arrow().to_pylist()
    assert there.episodes()["key"].to_pylist() == here.episodes()["key"].to_pylist()
    assert next(there.windows(1, 3, ("t",))).numbers["t"].shape == (3, 1)
    with pytest.raises(xp.ShardError, match="holds no shards"):
        xp.open((tmp_path / "bucket" / "nothing").as_uri())
    with pytest.raises(xp.ShardError, match="not-a-scheme"):
        xp.open("not-a-scheme://x/y")


def test_what_is_no_run_is_refused_with_what_to_name_instead(path: Path, tmp_path: Path) -> None:
    with pytest.raises(xp.ShardError, match="small-1"):
        xp.open(path.parent / "smal-1")
    with pytest.raises(xp.ShardError, match="holds no experience"):
        xp.open(tmp_path)


def test_a_hugging_face_dataset_has_a_row_a_step(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="tests/readers.txt")
    run = xp.open(path)
    rows = run.hf("train")
    assert len(rows) == len(run.steps(["t"], "split = 'train'"))
    assert set(rows["signal.done"]) >= {0.5}
    with pytest.raises(xp.ConfigError, match="no split 'test'"):
        run.hf("test", tmp_path / "out")
