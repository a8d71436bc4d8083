"""Tables: counted models, Dyna's updates by hand, and a table as the policy of a whole run."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.config.schema import load
from actors.engines.engine import Situation
from actors.engines.table_engine import TableEngine
from actors.run import run
from actors.runs.directory import RunDirectory
from benchmarks.planning.dyna import BOOK, live
from experience.episode import Episode, Group
from experience.errors import ConfigError, EngineError, WeightsError
from experience.models.table import Table
from experience.models.weights import Weights, pack
from experience.planning.lookahead import Search
from experience.planning.reach import Reach
from experience.planning.search import TreeSearch
from experience.planning.tabular import Dyna, DynaSettings, TabularLearner, TabularModel
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.ensemble import EnsembleModel
from experience.planning.world_models.language import LanguageWorldModel
from experience.planning.world_models.world_model import outcome_of
from experience.policy import Decision
from experience.reward import RewardModel
from experience.signal import Signal
from experience.step import Step
from tests.conftest import make_step

REWARDS = RewardModel({"envs:Test-v0": {"done": 1.0}})


def step(seen: str, action: str, done: float = 0.0, *, ended: bool = False) -> Step:
    return make_step(
        0,
        obs_text=seen,
        decision=Decision(action, 0),
        reward=done,
        signals=(Signal("done", done, "1", "env_state"),),
        ending="terminated" if ended else "none",
    )


def after(seen: str) -> Step:
    return make_step(1, closing=True, obs_text=seen)


def test_a_counting_model_predicts_the_likeliest_answer_and_knows_what_it_never_saw() -> None:
    model = TabularModel()
    model.add([(step("a", "go"), after("b"))] * 3 + [(step("a", "go"), after("c"))])
    seen, unseen = model.predict(["a", "a"], ["go", "stay"])
    assert seen.answer is not None and seen.answer.observation == "b"
    assert seen.uncertainty == pytest.approx(0.5 + 0.25)
    assert (unseen.answer, unseen.uncertainty) == (None, float("inf"))
    assert sorted(model.answers("a", "go").values()) == [0.25, 0.75]


def test_direct_learning_moves_the_value_by_the_step_size_times_the_error() -> None:
    dyna = Dyna(("go", "stay"), REWARDS, DynaSettings(step_size=0.5, discount=0.9, updates=0))
    dyna.learn(step("b", "go", 1.0, ended=True), after("end"))
    dyna.learn(step("a", "go"), after("b"))
    assert dyna.values["b"] == [0.5, 0.0]
    assert dyna.values["a"] == [pytest.approx(0.5 * 0.9 * 0.5), 0.0]


def test_planning_carries_a_reward_back_without_another_real_step() -> None:
    dyna = Dyna(("go",), REWARDS, DynaSettings(step_size=1.0, discount=0.9, updates=200))
    for seen, ahead, done in (("a", "b", 0.0), ("b", "c", 0.0), ("c", "end", 1.0)):
        dyna.learn(step(seen, "go", done, ended=done > 0), after(ahead))
    assert [round(dyna.values[s][0], 3) for s in "abc"] == [0.81, 0.9, 1.0]


def test_sweeping_does_it_with_as_few_updates_as_there_are_states() -> None:
    dyna = Dyna(
        ("go",), REWARDS, DynaSettings(step_size=1.0, discount=0.9, updates=200, sweep=1e-6)
    )
    for seen, ahead, done in (("a", "b", 0.0), ("b", "c", 0.0), ("c", "end", 1.0)):
        dyna.learn(step(seen, "go", done, ended=done > 0), after(ahead))
    assert [round(dyna.values[s][0], 3) for s in "abc"] == [0.81, 0.9, 1.0]
    assert dyna.planned <= 3


def test_curiosity_promises_more_of_what_was_not_tried_for_long() -> None:
    dyna = Dyna(("go", "stay"), REWARDS, replace(BOOK, updates=20, curiosity=0.01))
    for _ in range(50):
        dyna.learn(step("a", "go"), after("a"))
    assert dyna.values["a"][1] > dyna.values["a"][0] > 0


def test_a_step_without_a_known_reward_teaches_nothing() -> None:
    dyna = Dyna(("go",), REWARDS, replace(BOOK, updates=5))
    dyna.learn(make_step(0, obs_text="a", decision=Decision("go", 0), reward=None), after("b"))
    dyna.learn(step("a", "fly", 1.0), after("b"))
    assert dyna.values == {}


def test_a_table_travels_and_answers_for_any_list_of_actions() -> None:
    table = Table.read(Table.weights(("up", "down"), {"a": [1.0, 2.0]}, 3))
    assert table("a", ("up", "down")).tolist() == [1.0, 2.0]
    assert table("a", ("down", "use skill")).tolist() == [2.0, 0.0]
    assert table("never seen", ("up", "down")).tolist() == [0.0, 0.0]
    with pytest.raises(WeightsError, match="are not a table"):
        Table.read(Weights.read(0, pack({})))


def test_a_table_acts_greedily_but_for_epsilon_and_says_how_likely_it_was() -> None:
    engine = TableEngine(epsilon=0.2, seed=0)
    engine.load(Table.weights(("up", "down", "left", "right"), {"a": [0.0, 1.0, 0.0, 0.0]}, 1))
    situation = Situation("a", actions=("up", "down", "left", "right"))
    acted = engine.act([situation] * 4000, temperature=1.0)
    assert np.mean([d.text == "down" for d in acted]) == pytest.approx(0.85, abs=0.02)
    assert {round(float(np.exp(d.logprobs[0])), 3) for d in acted} == {0.85, 0.05}
    assert {d.text for d in engine.act([situation] * 50, temperature=0.0)} == {"down"}
    with pytest.raises(EngineError, match="lists its actions"):
        engine.act([Situation("a")], 1.0)


def test_a_learner_of_tables_learns_again_what_it_had_learned() -> None:
    steps = tuple(
        make_step(
            t,
            b"l" * 16,
            obs_text="ab"[t],
            decision=Decision("go", 0),
            reward=float(t),
            signals=(Signal("done", float(t), "1", "env_state"),),
            ending="terminated" if t else "none",
        )
        for t in range(2)
    )
    group = Group("g", (Episode(steps, make_step(2, b"l" * 16, closing=True, obs_text="end")),))
    first, again = (TabularLearner(("go",), REWARDS, replace(BOOK, updates=7)) for _ in range(2))
    first.improve([group])
    first.publish()
    again.restore(first.save(), [], [group])
    assert (again.version, again.dyna.values) == (1, first.dyna.values)
    assert again.policy().weights.data == first.policy().weights.data


def test_more_planning_needs_fewer_real_steps_through_collector_and_shards() -> None:
    taken = {
        n: np.mean(
            [
                sum(life.lengths[1:3])
                for life in live(
                    "dyna", 3, replace(BOOK, updates=n), lambda life: len(life.lengths) >= 3
                )
            ]
        )
        for n in (0, 20)
    }
    assert taken[20] < 0.5 * taken[0]


def test_a_whole_run_learns_a_table(tmp_path: Path) -> None:
    config, origins = load(
        [],
        [
            "worlds=[{id: 'envs:KeyDoor-v0', arguments: {size: 2}, groups: 2, demonstrations: 0}]",
            "policy.engine=table",
            "planning.table.updates=20",
            "collecting.discount=0.9",
            "collecting.slots=8",
            "collecting.group_size=4",
            "budget.updates=25",
            "learning.step_size=0.5",
            "evaluation.episodes=8",
            "evaluation.final_episodes=16",
            "evaluation.every=100",
            f"runs_dir={tmp_path}",
        ],
    )
    progress = run(config, RunDirectory.create(config, origins, ["test"]))
    returns = progress.returns["envs:KeyDoor-v0"]
    assert progress.version == 25
    assert progress.metrics["planned"] > progress.training_steps
    assert returns[25].n == 16


def test_a_table_for_worlds_without_a_list_of_actions_is_refused(tmp_path: Path) -> None:
    config, origins = load([], ["policy.engine=table", f"runs_dir={tmp_path}"])
    with pytest.raises(ConfigError, match="actions"):
        run(config, RunDirectory.create(config, origins, ["test"]))


def test_answers_that_are_equal_are_counted_as_one() -> None:
    assert hash(outcome_of(step("a", "go"), after("b"))) == hash(
        outcome_of(step("a", "go"), after("b"))
    )
    assert outcome_of(step("a", "go"), after("b")) == Outcome("b", {"done": 0.0}, False)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ((DynaSettings, "step_size"), "learning.step_size"),
        ((DynaSettings, "discount"), "collecting.discount"),
        ((DynaSettings, "updates"), "planning.table.updates"),
        ((DynaSettings, "curiosity"), "planning.table.curiosity"),
        ((DynaSettings, "seed"), "seed"),
        ((Search, "horizon"), "planning.lookahead.horizon"),
        ((Search, "rollouts"), "planning.lookahead.rollouts"),
        ((Search, "discount"), "collecting.discount"),
        ((Reach, "states"), "planning.sweeps.states"),
        ((Reach, "states"), "planning.lookahead.states"),
        ((Reach, "discount"), "collecting.discount"),
        ((TreeSearch, "simulations"), "planning.lookahead.states"),
        ((TreeSearch, "discount"), "collecting.discount"),
        ((EnsembleModel, "trusted_accuracy"), "planning.model.trusted_accuracy"),
        ((LanguageWorldModel, "retrieve"), "planning.model.retrieve"),
    ],
)
def test_a_setting_has_the_same_default_in_code_and_in_the_configuration(
    setting: tuple[type, str], key: str
) -> None:
    owner, name = setting
    default = inspect.signature(owner).parameters[name].default
    config: object = load([])[0]
    for part in key.split("."):
        config = getattr(config, part)
    assert default == config
