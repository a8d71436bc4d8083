"""Amendments: what is learned about a step later joins it, and no shard changes."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.commands.doctor import require
from actors.config.schema import load
from experience.errors import ConfigError, RecordError, ShardError
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend, amendments, follow_amended, reward_again
from experience.shards.cold.compaction import compact
from experience.shards.journal import Journal
from experience.shards.redaction.redact import MARK
from experience.shards.storage.disk import Disk
from experience.shards.verify import verify
from experience.signal import SignalKind
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


def test_a_later_signal_takes_the_place_of_an_earlier_one_and_no_shard_changes(
    tmp_path: Path,
) -> None:
    a_store(tmp_path)
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "w").iterdir()}
    amend(
        tmp_path,
        [
            Amendment(STREAM, 2, "done", 0.9, "fraction", "human", "looked again"),
            Amendment(STREAM, 3, "liked", 1.0),
        ],
        new={"liked": SignalKind("1", "human")},
    )
    amend(tmp_path, [Amendment(STREAM, 2, "done", 0.1, "fraction")])
    found = rows(tmp_path)
    assert [(s.name, s.value) for s in found[2].signals] == [("done", 0.1)]
    assert [(s.name, s.value) for s in found[3].signals] == [("done", 0.5), ("liked", 1.0)]
    assert {
        p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "w").iterdir()
    } == before
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
    a_store(tmp_path)
    path = amend(
        tmp_path,
        [Amendment(STREAM, t % 10, "done", 0.5 + t, evidence=f"seen {t}") for t in range(200)],
    )
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ShardError, match="damaged"):
            amendments(tmp_path)
        assert verify(tmp_path).problems


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(value=math.nan), "nan"),
        (dict(value=math.inf), "inf"),
        (dict(value=-math.inf), "-inf"),
        (dict(source="hearsay"), "env_state, verifier"),
        (dict(name="dome"), "did you mean 'done'"),
        (dict(unit="kg"), "its unit is 'kg', the store's is 'fraction'"),
        (dict(t=11), "no such step"),
        (dict(t=-1), "no such step"),
        (dict(stream_id=b"x" * 16), "no such step"),
        (dict(stream_id=b"x"), "no such step"),
        (dict(reward_version="v", name="done"), "'reward'"),
        (dict(reward_version="v", name="reward", value=math.nan), "nan"),
        (dict(reward_version="v", name="reward", t=99), "no such step"),
    ],
)
def test_an_amendment_that_cannot_be_true_is_refused_and_nothing_is_written(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    a_store(tmp_path)
    right = dict(stream_id=STREAM, t=2, name="done", value=0.5)
    with pytest.raises(RecordError, match=said):
        amend(tmp_path, [Amendment(**right), Amendment(**right | wrong)])  # type: ignore[arg-type]
    assert not list(tmp_path.glob("amendments/*"))


def test_a_new_signal_is_declared_once_and_known_from_then_on(tmp_path: Path) -> None:
    a_store(tmp_path)
    amend(
        tmp_path, [Amendment(STREAM, 3, "liked", 1.0)], new={"liked": SignalKind("stars", "human")}
    )
    amend(tmp_path, [Amendment(STREAM, 2, "liked", 5.0)])
    assert rows(tmp_path)[2].signals[-1].unit == "stars"


def test_amendments_are_not_among_the_files_that_a_glob_for_parquet_finds(tmp_path: Path) -> None:
    a_store(tmp_path)
    path = amend(tmp_path, [Amendment(STREAM, 3, "done", 1.0)])
    assert not list(tmp_path.glob("**/*.parquet"))
    path.rename(path.with_suffix(".parquet"))  # as older stores have it
    assert rows(tmp_path)[3].signals[0].value == 1.0


class Noted(Disk):
    """The real disk, and which shards, parts and amendments were read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[str] = set()

    def read(self, path: Path, start: int = 0, end: int | None = None) -> bytes:
        self._note(path)
        return super().read(path, start, end)

    def mapped(self, path: Path) -> Any:
        self._note(path)
        return super().mapped(path)

    def _note(self, path: Path) -> None:
        if path.suffix in (".arrow", ".parquet", ".amendments", ".open"):
            self.touched.add(path.name)


def test_an_amendment_reads_the_newest_shards_until_it_knows_its_step_and_no_others(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    for t in range(60):
        journal.append(make_step(t, STREAM) if t < 50 else make_step(t - 50, b"n" * 16))
        if t % 10 == 9 and t < 59:
            journal.commit()
            journal.seal()
    journal.close()
    shards = sorted(p.name for p in (tmp_path / "w").glob("*.arrow"))
    assert len(shards) == 6

    def read_by(*given: Amendment, new: dict[str, SignalKind] | None = None) -> set[str]:
        disk = Noted()
        amend(tmp_path, given, disk, new=new)
        return disk.touched

    assert read_by(Amendment(b"n" * 16, 3, "done", 1.0)) == {shards[5]}
    assert read_by(Amendment(STREAM, 45, "done", 1.0), Amendment(STREAM, 2, "done", 1.0)) == set(
        shards[4:]
    )
    liked = {"liked": SignalKind("stars", "human")}
    read_by(Amendment(STREAM, 2, "liked", 1.0), new=liked)
    assert len(read_by(Amendment(b"n" * 16, 2, "liked", 1.0))) == 2, (
        "the newest shard, and the file that declared it"
    )
    compact(tmp_path)
    journal = Journal(tmp_path / "w", CATALOGUE)
    journal.append(make_step(50, STREAM))
    journal.close()
    (newest,) = (p.name for p in (tmp_path / "w").glob("*.arrow"))
    assert read_by(Amendment(STREAM, 50, "done", 1.0), Amendment(STREAM, 7, "done", 1.0)) == {
        newest
    }
    assert rows(tmp_path)[7].signals[0].value == 1.0
    assert not verify(tmp_path, deep=True).problems


def test_a_step_that_was_removed_is_not_amended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    for t in range(10):
        journal.append(make_step(t, t_end_ns=t))
    journal.close()
    compact(tmp_path, expire_before_ns=5)
    amend(tmp_path, [Amendment(STREAM, 5, "done", 1.0)])
    with pytest.raises(RecordError, match="no such step"):
        amend(tmp_path, [Amendment(STREAM, 4, "done", 1.0)])


def test_verify_notices_an_amendment_whose_step_is_gone(tmp_path: Path) -> None:
    a_store(tmp_path)
    amend(tmp_path, [Amendment(STREAM, 3, "done", 1.0)])
    for path in (tmp_path / "w").iterdir():
        path.unlink()
    (problem,) = verify(tmp_path).problems
    assert "'done' amends step 3 of stream" in problem.what


def test_a_world_without_weights_is_unknown_when_rewarded_again_never_zero(tmp_path: Path) -> None:
    a_store(tmp_path)
    model = RewardModel({"envs:Other-v0": {"done": 1.0}})
    assert reward_again(tmp_path, model) == 9
    assert {s.reward for s in rows(tmp_path, model.version).values() if s.decision} == {None}


def test_weights_of_a_misspelt_signal_are_an_error_with_a_suggestion(tmp_path: Path) -> None:
    a_store(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'done'"):
        reward_again(tmp_path, RewardModel({"envs:Test-v0": {"dnoe": 1.0}}))
    with pytest.raises(ConfigError, match="finite"):
        reward_again(tmp_path, RewardModel({"envs:Test-v0": {"done": math.nan}}))
    assert not list(tmp_path.glob("amendments/*"))


def test_the_reward_of_an_amended_signal_holds_under_the_version_that_acted(tmp_path: Path) -> None:
    model = RewardModel({"envs:Test-v0": {"done": 1.0}})
    journal = Journal(tmp_path / "w", CATALOGUE)
    journal.append(make_step(0, reward=0.5, reward_version=model.version))
    journal.close()
    amend(tmp_path, [Amendment(STREAM, 0, "done", 0.75)])
    reward_again(tmp_path, model)
    assert rows(tmp_path, model.version)[0].reward == 0.75


def test_a_step_that_the_machinery_failed_stays_unknown_though_a_person_amends_it(
    tmp_path: Path,
) -> None:
    a_store(tmp_path)
    amend(tmp_path, [Amendment(STREAM, 10, "done", 1.0)])
    model = RewardModel({"envs:Test-v0": {"done": 1.0}})
    reward_again(tmp_path, model)
    assert rows(tmp_path, model.version)[10].reward is None


@pytest.mark.parametrize(
    ("world", "rewards", "said"),
    [
        ("envs:KeyDoor-v0", "{sovled: 1.0}", "did you mean 'solved'"),
        ("envs:KeyDoor-v0", "{solved: .nan}", "finite"),
        ("envs:Text-v0", "{reward: 1.0}", "did you mean 'env_reward'"),
    ],
)
def test_a_misspelt_signal_in_a_configuration_is_an_error(
    world: str, rewards: str, said: str
) -> None:
    arguments = "arguments: {world: CartPole-v1}, " if world == "envs:Text-v0" else ""
    with pytest.raises(ConfigError, match=said):
        require(load([], [f"worlds=[{{id: '{world}', {arguments}rewards: {rewards}}}]"])[0])


def test_a_dry_run_says_that_a_weight_is_misspelt(tmp_path: Path) -> None:
    words = [
        "worlds=[{id: 'envs:Text-v0', arguments: {world: CartPole-v1}, rewards: {reward: 1.0}}]",
        f"runs_dir={tmp_path / 'runs'}",
    ]
    said = "did you mean 'env_reward'"
    done = subprocess.run(
        [sys.executable, "-m", "actors", "run", *words, "--dry-run"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_secret_reaches_an_amendments_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store(tmp_path)
    secret = "pl4nted/Zq7-amend"
    monkeypatch.setenv("JUDGE_API_KEY", secret)
    amend(
        tmp_path,
        [
            Amendment(STREAM, 2, "done", 0.9, evidence=f"judged with {secret}"),
            Amendment(
                STREAM, 3, "reward", 0.5, evidence="said PL4NTED%2FZQ7-AMEND", reward_version="v2"
            ),
        ],
    )
    assert rows(tmp_path)[2].signals[0].evidence == f"judged with {MARK}"
    assert [row["evidence"] for row in amendments(tmp_path).to_pylist()] == [
        f"judged with {MARK}",
        f"said {MARK}",
    ]
    named = {secret: SignalKind("1", "human")}, {"liked": SignalKind(secret, "human")}
    for given, new in (
        (Amendment(STREAM, 2, secret, 1.0), named[0]),
        (Amendment(STREAM, 2, "liked", 1.0), named[1]),
        (Amendment(STREAM, 2, "reward", 1.0, reward_version=secret), {}),
        (Amendment(STREAM, 2, "reward", 1.0, unit=secret, reward_version="v2"), {}),
    ):
        with pytest.raises(RecordError, match="holds a secret") as refused:
            amend(tmp_path, [given], new=new)
        assert secret not in str(refused.value)
