"""Amendments: what is learned about a step later joins it, and no shard changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from experience.errors import ShardError
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend, amendments, follow_amended, reward_again
from experience.shards.journal import Journal
from experience.shards.verify import verify
from experience.step import Step
from tests.conftest import CATALOGUE, make_step

STREAM = b"s" * 16


def a_store(directory: Path) -> None:
    journal = Journal(directory / "w", CATALOGUE)
    for t in range(10):
        journal.append(make_step(t, closing=t % 5 == 4))
    journal.append(make_step(10, ending="env_error", reward=None, signals=()))
    journal.close()


def rows(directory: Path, version: str = "") -> dict[int, Step]:
    return {s.t: s for steps in follow_amended(directory, version) for s in steps}


def test_a_later_signal_takes_the_place_of_an_earlier_one_and_no_shard_changes(tmp_path: Path) -> None:
    a_store(tmp_path)
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "w").iterdir()}
    amend(tmp_path, [Amendment(STREAM, 2, "done", 0.9, "fraction", "human", "looked again"),
                     Amendment(STREAM, 3, "liked", 1.0)])
    amend(tmp_path, [Amendment(STREAM, 2, "done", 0.1, "fraction")])
    found = rows(tmp_path)
    assert [(s.name, s.value) for s in found[2].signals] == [("done", 0.1)]
    assert [(s.name, s.value) for s in found[3].signals] == [("done", 0.5), ("liked", 1.0)]
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "w").iterdir()} == before
    assert not verify(tmp_path, deep=True).problems


def test_a_whole_store_is_rewarded_again_and_the_old_rewards_stay(tmp_path: Path) -> None:
    a_store(tmp_path)
    amend(tmp_path, [Amendment(STREAM, 2, "done", None)])
    model = RewardModel({"envs:Test-v0": {"done": 10.0}})
    assert reward_again(tmp_path, model) == 9
    found = rows(tmp_path, model.version)
    assert found[1].reward == 5.0 and found[1].reward_version == model.version
    assert found[2].reward is None, "an unknown signal makes the reward unknown, never zero"
    assert found[10].reward is None, "a failure stays unknown"
    assert rows(tmp_path)[1].reward == 0.25
    assert rows(tmp_path, "a version that was never given")[1].reward is None


def test_a_damaged_amendment_is_noticed(tmp_path: Path) -> None:
    path = amend(tmp_path, [Amendment(STREAM, t, "done", 0.5 + t, evidence=f"seen {t}") for t in range(200)])
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        with pytest.raises(ShardError, match="damaged"):
            amendments(tmp_path)
        assert verify(tmp_path).problems
