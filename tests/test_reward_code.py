"""A reward that is a function in a world's code: versioned by source and weights, computed again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from actors.collecting.hosts.described import describe_worlds
from actors.collecting.work import Work
from actors.config.schema import load
from actors.making import reward_function
from actors.reading.query import connect
from actors.reading.replayed import relive
from envs.check.runner import results
from envs.check.subject import Subject
from experience.episode import EpisodeReader
from experience.errors import ConfigError, RecordError
from experience.replay.late import LateSignals
from experience.reward import RewardFunction, RewardModel
from experience.shards.amend import follow_amended, reward_again
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from experience.step import Step
from tests.alone import SMALLEST_POLICY, Alone
from tests.priced_world import Priced

WORLD = "tests.priced_world:Priced-v0"
FUNCTION = RewardFunction.of(Priced)
assert FUNCTION is not None
MODEL = RewardModel({WORLD: Priced.reward_weights}, {WORLD: FUNCTION})


def configured(world: str = WORLD, more: str = "") -> Any:
    told = f"worlds=[{{id: '{world}', groups: 1, demonstrations: 0{more}}}]"
    return load([], [told, *SMALLEST_POLICY, "collecting.slots=1"])[0]


def lived(folder: Path, more: str = "") -> list[Step]:
    one = Alone(configured(more=more), folder)
    one.order(
        [Work.named(f"{n}", env_id=WORLD, lane="random", seed=n, split="heldout") for n in range(3)]
    )
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    return [step for block in Catalog(folder).follow() for step in block]


def expected(step: Step, wealth: float, weight: float = 2.0) -> float:
    assert step.decision is not None
    share = int(step.decision.text.split()[1]) / 10
    bonus = 0.5 if step.step_in_episode == 1 else 0.0
    return weight * math.log(1 + wealth) - max(share, 0.2) + bonus


def test_the_worlds_function_is_the_reward_in_the_world_and_in_the_shard(tmp_path: Path) -> None:
    steps = lived(tmp_path)
    acted = [s for s in steps if s.decision]
    for step in acted:
        wealth = next(s.value for s in step.signals if s.name == "wealth")
        assert step.reward == pytest.approx(expected(step, wealth or 0.0))
    assert {s.reward_version for s in acted} == {MODEL.version} and MODEL.version[:5] == "code-"
    reader = EpisodeReader()
    episode = next(e for s in steps for e in reader.take(s))
    assert relive(episode.rows, Priced(), MODEL) == "", "lived again, the world pays the same"


def test_the_version_is_that_of_source_and_weights() -> None:
    other = RewardModel({WORLD: {"wealth": 3.0, "drawdown": 1.0}}, MODEL.functions)
    assert other.version != MODEL.version

    class Changed(Priced):
        @staticmethod
        def reward_function(signals: Any, weights: Any, context: Any) -> float:
            return 1.0

    class Commented(Priced):
        @staticmethod
        def reward_function(signals: Any, weights: Any, context: Any) -> float:
            # the same, said in another way
            return 1.0

    changed, commented = RewardFunction.of(Changed), RewardFunction.of(Commented)
    assert changed and commented and changed.source == commented.source
    assert RewardModel(MODEL.weights, {WORLD: changed}).version != MODEL.version
    assert RewardModel(MODEL.weights).version.startswith("linear-"), "as it was"


def test_history_is_rewarded_again_by_another_version(tmp_path: Path) -> None:
    lived(tmp_path)
    heavier = RewardModel({WORLD: {"wealth": 10.0, "drawdown": 1.0}}, MODEL.functions)
    assert reward_again(tmp_path, heavier) == 6
    for steps in follow_amended(tmp_path, heavier.version):
        for step in steps:
            if step.decision:
                wealth = next(s.value for s in step.signals if s.name == "wealth")
                assert step.reward == pytest.approx(expected(step, wealth or 0.0, 10.0))
    versions = connect({"steps": tmp_path}).sql("select distinct reward_version from steps")
    assert (heavier.version,) in versions.fetchall()


def test_a_late_signal_is_rewarded_by_the_function(tmp_path: Path) -> None:
    rows = lived(tmp_path, ", arguments: {late: true}")
    assert [s.reward for s in rows if s.decision] == [None] * 6
    index = EpisodeIndex.open(tmp_path, MODEL)
    LateSignals(index, Priced.signal_catalogue).take(rows)
    first, second = [s for s in map(index.rewards.of_step, rows) if s.decision][:2]
    assert first.reward == pytest.approx(expected(first, 3.0)) and second.reward is None


def test_every_process_finds_the_function_by_the_worlds_id() -> None:
    described = describe_worlds(configured())
    assert described.rewards.version == MODEL.version
    assert describe_worlds(
        configured(more=", rewards: {wealth: 1.0, drawdown: 0.0}")
    ).rewards.of_values(WORLD, {"wealth": math.e - 1, "drawdown": None}) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="its registered entry point has none"):
        describe_worlds(configured("tests.priced_world:PricedByFunction-v0"))
    with pytest.raises(ConfigError, match="is not the one that was read before"):
        reward_function(WORLD, "another source")
    with pytest.raises(ConfigError, match="no module 'gone_world' is found"):
        reward_function("gone_world:Priced-v0", "another source")


LIMIT = 3.0


def test_a_function_that_reads_more_than_its_arguments_is_refused() -> None:
    class Reads(Priced):
        @staticmethod
        def reward_function(signals: Any, weights: Any, context: Any) -> float:
            return LIMIT

    class Imports(Priced):
        @staticmethod
        def reward_function(signals: Any, weights: Any, context: Any) -> float:
            import random

            return random.random()

    class Opens(Priced):
        @staticmethod
        def reward_function(signals: Any, weights: Any, context: Any) -> float:
            return float(open("/reward").read())

    class Takes(Priced):
        @staticmethod
        def reward_function(signals: Any) -> float:  # type: ignore[override]
            return 1.0

    for world, says in (
        (Reads, "reads 'LIMIT'"),
        (Imports, "reads 'random'"),
        (Opens, "reads 'open'"),
        (Takes, r"takes \(signals: "),
    ):
        with pytest.raises(ConfigError, match=says):
            RewardFunction.of(world)

    class Strange(gymnasium.Env[str, str]):
        def reward_function(self, observation: Any) -> float:
            return 1.0

    assert RewardFunction.of(Strange) is None, "a stranger's method of that name is not ours"


def test_a_function_that_raises_or_gives_no_number_names_what_it_was_given() -> None:
    def model(code: Any) -> RewardModel:
        return RewardModel(MODEL.weights, {WORLD: replace(FUNCTION, code=code)})  # type: ignore[type-var]

    def broken(signals: Mapping[str, float], weights: Any, context: Any) -> float:
        return signals["won"]

    with pytest.raises(RecordError, match=r"raised KeyError: 'won', for the signals \{'wealth'"):
        model(broken).of_values(WORLD, {"wealth": 1.0})
    with pytest.raises(RecordError, match="gave 'much'"):
        model(lambda *_: "much").of_values(WORLD, {})
    assert model(lambda *_: None).of_values(WORLD, {}) is None


def test_the_checks_take_a_function_for_what_it_is() -> None:
    subject = Subject(WORLD, episodes=3)
    wanted = ("reward_well_formed", "verifier_portability", "oracle_max", "reward_attribution")
    found = {r.id: (r.outcome, r.detail) for r in results(subject, wanted)}
    subject.close()
    assert {outcome for outcome, _ in found.values()} == {"PASS"}, found
