"""The index of episodes: what EpisodeReader cuts, found again wherever the rows lie."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experience.episode import Episode, EpisodeReader
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.episodes.intake import Intake
from experience.shards.forget import forget
from experience.shards.journal import Journal
from experience.shards.storage.locate import EPISODES
from experience.step import Boundary, Step
from tests.conftest import CATALOGUE, make_step

SYSTEM = np.arange(300, 340, dtype=np.int32)
"""How every prompt begins, so that stored prompts lean on rows far back."""


def lived(seed: int, streams: int = 3, episodes: int = 8) -> Iterator[Step]:
    """Rows of several streams, interleaved, with episodes closed, cut off and still going on."""
    rng = np.random.default_rng(seed)
    ids = [uuid.UUID(int=seed * 1000 + n).bytes for n in range(streams)]
    t = dict.fromkeys(ids, 0)
    waiting = {stream: list[Step]() for stream in ids}
    for stream in ids:
        for number in range(episodes):
            turns, context = int(rng.integers(0, 6)), SYSTEM
            closes = rng.random() < 0.8 or not turns
            for turn in range(turns + closes):
                step = make_step(
                    t[stream],
                    stream,
                    rng=rng,
                    closing=turn == turns,
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
                    episode=number,
                    step_in_episode=turn,
                    group_id=f"g{number // 2}",
                    work_id=uuid.UUID(int=seed * 10**6 + number).bytes,
                    t_start_ns=10 * t[stream],
                    t_end_ns=10 * t[stream] + 5,
                    ending="terminated" if turn == turns else "none",
                )
                if step.decision is not None:
                    prompt = np.concatenate([context, step.decision.prompt_ids])
                    step = replace(step, decision=replace(step.decision, prompt_ids=prompt))
                    context = np.concatenate([prompt, step.decision.action_ids])
                waiting[stream].append(step)
                t[stream] += 1
    while any(waiting.values()):
        stream = ids[int(rng.integers(streams))]
        for _ in range(min(len(waiting[stream]), int(rng.integers(1, 4)))):
            yield waiting[stream].pop(0)


def write(store: Path, seed: int = 0, writers: int = 2, **how: Any) -> list[Journal]:
    """Stores what was lived, with a few segments a writer; the last one stays open."""
    journals = []
    for number in range(writers):
        journal = Journal(store / f"w{number}", CATALOGUE, batch_rows=7, **how)
        for place, step in enumerate(lived(10 * seed + number)):
            journal.append(step)
            if place % 40 == 39:
                journal.commit()
                journal.seal()
        journal.commit()
        journals.append(journal)
    return journals


def read_directly(store: Path) -> list[Episode]:
    """Every episode as EpisodeReader cuts it, by stream and t."""
    reader, found = EpisodeReader(), []
    for block in Catalog(store).follow():
        found += [episode for step in block for episode in reader.take(step)]
    return sorted([*found, *reader.rest()], key=lambda e: (e.rows[0].stream_id, e.rows[0].t))


def assert_is_index_of(index: EpisodeIndex, store: Path) -> None:
    """The index has the store's episodes, each with its rows, and what the table says of them."""
    expected = read_directly(store)
    table = index.table().to_pylist()
    order = sorted(range(len(index)), key=lambda n: (table[n]["stream_id"], table[n]["first_t"]))
    assert len(order) == len(expected)
    for number, direct in zip(order, expected, strict=True):
        assert_same(index.read(number), direct)
        said, rows, acted = table[number], direct.rows, direct.steps
        assert (said["stream_id"], said["first_t"]) == (rows[0].stream_id, rows[0].t)
        assert (said["last_t"], said["steps"]) == (rows[-1].t, len(acted))
        assert said["total_reward"] == direct.total_reward
        assert said["ending"] == direct.ending
        assert (said["started_ns"], said["ended_ns"]) == (rows[0].t_start_ns, rows[-1].t_end_ns)
        for name in ("env_id", "group_id", "work_id", "source", "split", "seed", "episode"):
            assert said[name] == getattr(rows[0], name)
        decision = acted[0].decision if acted else None
        assert said["first_version"] == (decision.policy_version if decision else None)


def assert_same(found: Episode, expected: Episode) -> None:
    assert [r.t for r in found.rows] == [r.t for r in expected.rows]
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert replace(one, decision=None) == replace(other, decision=None)
        if one.decision is None or other.decision is None:
            assert one.decision is other.decision
            continue
        for name in ("prompt_ids", "action_ids", "logprobs", "allowed_ids"):
            assert np.array_equal(getattr(one.decision, name), getattr(other.decision, name)), name


@pytest.mark.parametrize("seed", range(2))
def test_the_index_has_what_the_episode_reader_cuts_hot_sealed_and_cold(
    seed: int, tmp_path: Path
) -> None:
    journals = write(tmp_path, seed)
    index = EpisodeIndex.open(tmp_path)
    assert_is_index_of(index, tmp_path)
    compact(tmp_path)
    assert_is_index_of(index, tmp_path)
    assert_is_index_of(EpisodeIndex.open(tmp_path), tmp_path)
    for journal in journals:
        journal.close()
    assert_is_index_of(index, tmp_path)
    compact(tmp_path)
    assert index.refresh() == 0
    assert_is_index_of(index, tmp_path)
    assert_is_index_of(EpisodeIndex.open(tmp_path), tmp_path)


def test_a_saved_index_reads_only_what_was_committed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = write(tmp_path)
    EpisodeIndex.open(tmp_path).save()
    read = list[int]()
    take = Intake._take
    monkeypatch.setattr(Intake, "_take", lambda i, f: (read.append(f.rows.num_rows), take(i, f))[1])
    index = EpisodeIndex.open(tmp_path)
    assert index.said == "" and 0 < sum(read) < 80, "only the two open segments"
    assert_is_index_of(index, tmp_path)
    for journal in journals:
        journal.close()
    index.save()
    read.clear()
    compact(tmp_path)
    again = EpisodeIndex.open(tmp_path)
    assert again.said == "" and sum(read) == 0, "rows that went cold are the same rows"
    assert_is_index_of(again, tmp_path)


def test_episodes_that_went_on_when_the_index_was_saved_are_finished(tmp_path: Path) -> None:
    rows = list(lived(5, streams=2))
    for cut in range(5, len(rows), 29):
        store = tmp_path / str(cut)
        journal = Journal(store / "w", CATALOGUE, batch_rows=5)
        for place, step in enumerate(rows[:cut]):
            journal.append(step)
            if place % 11 == 10:
                journal.commit()
                journal.seal()
        journal.commit()
        first = EpisodeIndex.open(store)
        first.save()
        for step in rows[cut:]:
            journal.append(step)
        journal.close()
        assert first.refresh() > 0
        for index in (first, EpisodeIndex.open(store)):
            assert index.said == ""
            assert_is_index_of(index, store)
        closed = [i.records.rows["closed"] for i in (first, index)]
        assert np.array_equal(*closed), "episodes keep the order in which they ended"


@pytest.mark.parametrize("damage", ["a bit", "half of it", "another store's"])
def test_an_index_that_is_not_the_stores_own_is_made_anew_and_said(
    damage: str, tmp_path: Path
) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        for journal in write(tmp_path / name, seed):
            journal.close()
        EpisodeIndex.open(tmp_path / name).save()
    path = tmp_path / "one" / EPISODES
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 1
    elif damage == "half of it":
        data = data[: len(data) // 2]
    else:
        data = bytearray((tmp_path / "two" / EPISODES).read_bytes())
    path.write_bytes(data)
    index = EpisodeIndex.open(tmp_path / "one")
    assert ("another" if damage == "another store's" else "damaged") in index.said
    assert_is_index_of(index, tmp_path / "one")


def test_forgotten_rows_leave_the_index_at_once_on_disk_and_in_memory(tmp_path: Path) -> None:
    store = tmp_path / "shards"
    for journal in write(store):
        journal.close()
    index = EpisodeIndex.open(store)
    index.save()
    gone = index.table().column("stream_id")[0].as_py()
    forget(tmp_path, streams=[gone])
    assert not (store / EPISODES).exists()
    before = index.generation
    index.refresh()
    assert index.generation == before + 1
    assert gone not in index.table().column("stream_id").to_pylist()
    assert_is_index_of(index, store)


def test_following_gives_the_steps_of_the_catalog_and_indexes_them(tmp_path: Path) -> None:
    expected = list(lived(3))
    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=7)
    index, found = EpisodeIndex.open(tmp_path), list[Step]()
    for place, step in enumerate(expected):
        journal.append(step)
        if place % 9 == 8:
            journal.commit()
            # A refresh in between takes rows that are not followed: the rows after it still
            # have their prompts whole.
            if place % 27 == 26:
                index.refresh()
            else:
                found += [s for block in index.follow() for s in block]
    journal.close()
    found += [s for block in index.follow() for s in block]
    assert len(found) > 50
    for step in found:
        direct = expected[[(s.stream_id, s.t) for s in expected].index((step.stream_id, step.t))]
        assert_same(Episode((step,), None), Episode((direct,), None))
    assert_is_index_of(index, tmp_path)


def test_amendments_change_returns_and_rows_and_a_model_computes_them_anew(
    tmp_path: Path,
) -> None:
    for journal in write(tmp_path, writers=1):
        journal.close()
    index = EpisodeIndex.open(tmp_path)
    episode = next(e for e in map(index.read, range(len(index))) if len(e.steps) > 2)
    step = episode.steps[1]
    number = index.records.at(step.stream_id, step.t)
    assert index.read(number).steps[1].t == step.t
    model = RewardModel({step.env_id: {"done": 2.0, "cost": -1.0}})
    amend(
        tmp_path,
        [
            Amendment(step.stream_id, step.t, "cost", 0.25, source="env_state"),
            Amendment(step.stream_id, step.t, "reward", 7.0, reward_version="mine"),
        ],
    )
    index.refresh()
    assert index.read(number).total_reward == index.table()["total_reward"][number].as_py()
    assert index.read(number).steps[1].reward == 7.0
    index.save()
    modelled = EpisodeIndex.open(tmp_path, model)
    assert "rewards" in modelled.said
    assert modelled.read(number).steps[1].reward == pytest.approx(2 * 0.5 - 0.25)
    modelled.save()
    for found in (modelled, EpisodeIndex.open(tmp_path, model)):
        returns = found.table().column("total_reward").to_pylist()
        assert returns == [found.read(n).total_reward for n in range(len(found))]
        assert found.read(number).steps[0].reward == 2 * 0.5
        assert found.read(number).steps[0].reward_version == model.version
    assert modelled.amend((step.stream_id, step.t), replace(step.signals[0], value=0.0))
    assert modelled.table()["total_reward"][number].as_py() == modelled.read(number).total_reward
