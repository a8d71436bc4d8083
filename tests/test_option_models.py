"""Option models, values over options, and the discovery of skills: each number by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from experience.episode import Episode
from experience.options.option import Condition, Learned, Library, Program, option_id
from experience.planning.discovery import (
    common_start,
    induce_skills,
    record_uses,
    retire,
    reward_respecting,
    shortest_path,
    skill_name,
)
from experience.planning.smdp import (
    FiniteWorld,
    Model,
    OptionLearner,
    OptionSettings,
    backup,
    interrupted,
    learned_models,
    value_iteration,
)
from experience.planning.tabular import TabularModel
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.step import Boundary, Ending, Step
from tests.conftest import make_step


def corridor(cells: str = "abc", discount: float = 0.5) -> FiniteWorld:
    """`on` goes to the next cell, and from the last one to the end for a reward of 1; `back` goes
    to the cell before, and may not start in the first."""
    model = TabularModel()
    for here, there in pairwise(cells):
        model.count(here, "on", Outcome(there, {"done": 0.0}, False))
        model.count(there, "back", Outcome(here, {"done": 0.0}, False))
    model.count(cells[-1], "on", Outcome("out", {"done": 1.0}, True))
    return FiniteWorld.counted(model, ("on", "back"), lambda o: o.signals["done"], discount)


def test_a_counted_world_weighs_outcomes_by_their_frequency() -> None:
    """Three times to b for 1, once to the end for 3: r = ¾ + ¾, p(b) = ¾·.8, nothing beyond it."""
    model = TabularModel()
    for outcome in [Outcome("b", {"done": 1.0}, False)] * 3 + [Outcome("c", {"done": 3.0}, True)]:
        model.count("a", "go", outcome)
    world = FiniteWorld.counted(model, ("go", "stay"), lambda o: o.signals["done"], 0.8)
    go, stay = world.models
    assert world.states == ("a", "b", "c")
    assert go.reward.tolist() == pytest.approx([1.5, 0.0, 0.0])
    assert go.arrival[0].tolist() == pytest.approx([0.0, 0.6, 0.0])
    assert go.starts.tolist() == [True, False, False]
    assert not stay.starts.any()


def test_a_backup_is_minus_infinity_where_an_option_may_not_start() -> None:
    """From b: on gives 0 + ½·4, back gives 0 + ½·8."""
    world = corridor("ab")
    q = backup(world.models, np.array([8.0, 4.0, 0.0]))
    assert world.states == ("a", "b", "out")
    assert q.tolist() == [[2.0, 1.0, -np.inf], [-np.inf, 4.0, -np.inf]]


def test_each_sweep_of_value_iteration_carries_the_reward_one_step_back() -> None:
    history = value_iteration(corridor().models, 4)
    assert [v[:3].tolist() for v in history] == [
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0],
        [0.0, 0.5, 1.0],
        [0.25, 0.5, 1.0],
        [0.25, 0.5, 1.0],
    ]
    assert history[-1][3] == 0.0, "nothing may start behind the end"


def test_value_iteration_begins_with_the_values_that_it_is_given() -> None:
    history = value_iteration(corridor().models, 1, start=np.array([0.0, 0.0, 8.0, 0.0]))
    assert history[0].tolist() == [0.0, 0.0, 8.0, 0.0]
    assert history[1].tolist() == [0.0, 4.0, 1.0, 0.0]


def test_an_option_is_interrupted_only_where_another_choice_is_worth_more() -> None:
    """`back` for ever is worth less than v in b and c; `on` is the best choice everywhere."""
    models = corridor().models
    values = value_iteration(models, 10)[-1]
    assert interrupted(models, values, 1)[1:3].tolist() == [True, True]
    assert not interrupted(models, values, 0)[:3].any()


def test_an_options_model_earns_on_its_way_and_arrives_where_it_stops() -> None:
    """On through b, stopped in c: nothing earned, γ² = ¼ of arriving in c. Never stopped: ¼ for the
    reward at the end, and no arrival."""
    world = corridor()
    actions = {"a": "on", "b": "on", "c": "on"}
    halted = world.model_of(Learned.over("to c", actions, ["c"]))
    through = world.model_of(Learned.over("out", actions, []))
    assert halted.reward[0] == 0.0 and halted.arrival[0].tolist() == [0, 0, 0.25, 0]
    assert through.reward[:3].tolist() == [0.25, 0.5, 1.0]
    assert not through.arrival[:3].any()


def test_an_option_that_knows_no_action_stops_where_it_arrives() -> None:
    world = corridor()
    model = world.model_of(Learned.over("one step", {"a": "on"}, []))
    assert model.arrival[0].tolist() == [0, 0.5, 0, 0]
    assert model.starts.tolist() == [True, False, False, False]


def test_an_option_does_not_start_where_its_first_action_may_not() -> None:
    world = corridor()
    for first in ("back", "unheard of"):
        model = world.model_of(Learned.over("wrong", {"a": first, "b": "on"}, []))
        assert model.starts.tolist() == [False, True, False, False], first


def test_a_program_stops_early_where_its_next_action_may_not_start() -> None:
    """back, back from b: in a there is no way back, and it stops there after one step."""
    model = corridor().model_of(Program("retreat", ("back", "back")))
    assert model.arrival[1].tolist() == [0.5, 0, 0, 0]
    assert model.arrival[2].tolist() == [0.25, 0, 0, 0]


def row(
    t: int,
    seen: str,
    action: str,
    reward: float | None = 0.0,
    *,
    option: str = "",
    age: int | None = None,
    ending: Ending = "none",
    boundary: Boundary = Boundary.NONE,
) -> Step:
    return make_step(
        t,
        obs_text=seen,
        decision=Decision(action, 0),
        reward=reward,
        option_id=option_id(option) if option else None,
        option_step=age,
        ending=ending,
        boundary=boundary,
    )


def learned(
    rows: Sequence[Step], library: Library, *, intra: bool, discount: float = 0.5
) -> OptionLearner:
    learner = OptionLearner(("on", "back"), library, OptionSettings(0.5, discount, intra))
    for step, following in pairwise(rows):
        learner.learn(step, following)
    return learner


WALK = Library().add(Program("walk", ("on", "on")))


def test_an_smdp_update_waits_until_the_option_is_over() -> None:
    rows = [
        row(0, "a", "use walk", option="walk", age=0),
        row(1, "a", "on", 1.0, option="walk", age=1),
        row(2, "b", "on", 1.0, option="walk", age=2, boundary=Boundary.OPTION_END),
        make_step(3, closing=True, obs_text="c"),
    ]
    early = learned(rows[:3], WALK, intra=False)
    assert early.values["a"][2] == 0.0 and not early.durations
    late = learned(rows, WALK, intra=False)
    assert late.values["a"][2] == pytest.approx(0.5 * (1.0 + 0.5 * 1.0))
    assert late.durations == {"use walk": [2]}


def test_an_option_that_the_worlds_end_cut_off_is_over_and_worth_nothing_more() -> None:
    """Without an OPTION_END mark: the world ended first. Q(b, on) = 8 must not be added."""
    rows = [
        row(0, "b", "on", 16.0),
        row(1, "a", "use walk", option="walk", age=0),
        row(2, "a", "on", 1.0, option="walk", age=1, ending="terminated"),
        make_step(3, closing=True, obs_text="b"),
    ]
    learner = learned(rows, WALK, intra=False)
    assert learner.values["b"][0] == 8.0
    assert learner.values["a"][2] == 0.5
    assert learner.durations["use walk"] == [1]


def test_an_option_looks_ahead_to_the_best_choice_where_it_stops() -> None:
    """Q(b, on) = 4, one turn for 1: .5·(1 + .5·4)."""
    rows = [
        row(0, "b", "on", 8.0, ending="terminated"),
        row(1, "a", "use walk", option="walk", age=0),
        row(2, "a", "on", 1.0, option="walk", age=1, boundary=Boundary.OPTION_END),
        make_step(3, closing=True, obs_text="b"),
    ]
    assert learned(rows, WALK, intra=False).values["a"][2] == pytest.approx(1.5)


def test_intra_option_learning_needs_no_use_of_the_option_and_knows_its_age() -> None:
    """`back` in b ends for 1: on-and-back is worth ½ there at age 1, and nothing at age 0."""
    library = Library().add(Program("turn", ("on", "back")))
    rows = [
        row(0, "b", "back", 1.0, ending="terminated"),
        row(1, "a", "on"),
        make_step(2, closing=True, obs_text="b"),
    ]
    learner = learned(rows, library, intra=True)
    assert learner.values["b"] == [0.0, 0.5, 0.0], "no turn starts with back"
    assert learner.values["a"][2] == 0.5 * 0.5 * 0.5, "α·γ·Q(b, turn at age 1)"
    assert not learner.durations


def test_a_row_with_an_unknown_reward_teaches_no_value() -> None:
    rows = [row(0, "a", "on", None), make_step(1, closing=True, obs_text="b")]
    for intra in (True, False):
        assert learned(rows, WALK, intra=intra).values == {}


def test_an_option_that_may_not_start_there_is_no_best_choice() -> None:
    library = Library().add(Program("walk", ("on",), precondition=Condition("far")))
    learner = OptionLearner(("on", "back"), library, OptionSettings())
    for seen in ("far", "near"):
        learner.best(seen)
        learner.values[seen][:] = [1.0, 2.0, 9.0]
    assert (learner.best("far"), learner.best("near")) == (9.0, 2.0)


def test_a_model_is_learned_from_one_step_by_the_step_size() -> None:
    """α = ½: half of the reward, and half of γ = .8 at the state where it stops."""
    steps = [(row(0, "a", "on", 2.0), make_step(1, closing=True, obs_text="b"))]
    model = learned_models(steps, Program("go", ("on",)), {"a": 0, "b": 1}, 0.5, 0.8)
    assert model.reward.tolist() == [1.0, 0.0]
    assert model.arrival.tolist() == [[0.0, 0.4], [0.0, 0.0]]


def test_a_model_is_learned_neither_from_choices_nor_from_other_actions_nor_unknown_rewards() -> (
    None
):
    after = make_step(9, closing=True, obs_text="b")
    steps = [
        (row(0, "a", "use go", option="go", age=0), after),
        (row(1, "a", "back", 5.0), after),
        (row(2, "a", "on", None), after),
    ]
    model = learned_models(steps, Program("go", ("on",)), {"a": 0, "b": 1}, 0.5, 0.8)
    assert not model.reward.any() and not model.arrival.any()


def test_an_option_respects_the_reward_on_its_way_and_the_shortest_path_does_not() -> None:
    """a → c directly costs 3; over b it costs nothing. The feature holds in c, and is worth 2."""
    model = TabularModel()
    for here, action, there, cost in [
        ("a", "short", "c", 3.0),
        ("a", "long", "b", 0.0),
        ("b", "long", "c", 0.0),
        ("c", "long", "c", 0.0),
    ]:
        model.count(here, action, Outcome(there, {"cost": cost}, False))
    world = FiniteWorld.counted(model, ("short", "long"), lambda o: -o.signals["cost"], 0.9)
    feature = np.array([state == "c" for state in world.states])
    careful = reward_respecting(world, "careful", feature, np.zeros(3), 2.0)
    blind = shortest_path(world, "blind", feature)
    assert (careful.act("a", 0), blind.act("a", 0)) == ("long", "short")
    for option in (careful, blind):
        assert (option.stops("a", 1), option.stops("c", 1)) == (0.0, 1.0)


def test_an_option_stops_wherever_stopping_is_worth_as_much_as_going_on() -> None:
    """v̂ of b is 1, and 2 in c are 1.8 away at γ = ½: b is a good place to stop."""
    world = corridor()
    nowhere = np.zeros(4, bool)
    option = reward_respecting(world, "stop", nowhere, np.array([0.0, 1.0, 1.8, 0.0]), 0.0)
    assert [option.stops(cell, 1) for cell in "abc"] == [0.0, 1.0, 1.0]


def told(
    actions: str,
    number: int,
    *,
    reward: float | None = 1.0,
    world: str = "envs:Test-v0",
    option: str = "",
    ending: Ending = "terminated",
) -> Episode:
    """An episode with one letter for each action; the last turn carries the reward."""
    stream = number.to_bytes(16, "little")
    steps = tuple(
        replace(
            row(t, f"task {number}, turn {t}", action, 0.0, option=option, age=t + 1),
            stream_id=stream,
            env_id=world,
        )
        for t, action in enumerate(actions)
    )
    last = replace(steps[-1], reward=reward)
    closing = make_step(len(steps), stream, closing=True, env_id=world, ending=ending)
    return Episode((*steps[:-1], last), closing)


def found(episodes: Sequence[Episode], **how: int) -> list[tuple[str, ...]]:
    library = induce_skills(episodes, lambda e, _: e.total_reward or 0.0, Library(), **how)
    return [skill.actions for skill in library if isinstance(skill, Program)]


def test_the_skill_that_saves_most_turns_is_found_and_none_of_its_parts() -> None:
    episodes = [told("xabcy", 1), told("zabcw", 2), told("qab", 3)]
    assert found(episodes) == [("a", "b", "c")], "2·2 turns saved, and ab saves 1·3"
    more = [told("ab", 4), told("ab", 5)]
    assert found([*episodes, *more]) == [("a", "b"), ("b", "c")], "ab saves 5, and is no part of bc"


def test_skills_are_as_long_and_as_frequent_as_they_are_allowed_to_be() -> None:
    episodes = [told("abcd", 1), told("abcd", 2), told("ef", 3)]
    assert found(episodes) == [("a", "b", "c", "d")]
    assert found(episodes, longest=2, most=9) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert found(episodes, longest=2, most=1) == [("a", "b")]
    assert found(episodes, least_uses=3) == []
    assert ("e", "f") in found(episodes, least_uses=1, most=9)


def test_a_failed_episode_and_an_unknown_return_propose_no_skill() -> None:
    assert found([told("ab", 1), told("ab", 2, ending="env_error")]) == []
    assert found([told("ab", 1, reward=None), told("ab", 2)]) == []


def test_a_skills_name_depends_on_its_actions_and_its_world_alone() -> None:
    names = {skill_name("w", ("a", "b")), skill_name("w", ("ab",)), skill_name("v", ("a", "b"))}
    assert len(names) == 3
    assert all(name.startswith("skill-") and len(name) == 14 for name in names)
    assert skill_name("w", ["a", "b"]) == skill_name("w", ("a", "b"))


def test_an_option_is_retired_only_beyond_the_margin_and_after_enough_uses() -> None:
    library = Library().add(Program("walk", ("a",)))
    with_it = [told("a", n, reward=0.5, option="walk") for n in range(1, 5)]
    without = [told("a", n, reward=0.6) for n in range(5, 9)]
    assert len(retire(library, [*with_it, *without], least_uses=4, margin=0.05)) == 0
    assert len(retire(library, [*with_it, *without], least_uses=4, margin=0.2)) == 1
    assert len(retire(library, [*with_it, *without], least_uses=5)) == 1
    assert len(retire(library, with_it, least_uses=4)) == 1, "there is nothing to compare with"


def test_an_easier_world_where_an_option_was_never_used_does_not_retire_it() -> None:
    library = Library().add(Program("walk", ("a",)))
    with_it = [told("a", n, reward=0.5, option="walk") for n in range(1, 5)]
    easy = [told("a", n, reward=0.9, world="envs:Easy-v0") for n in range(5, 9)]
    hard = [told("a", n, reward=0.4) for n in range(9, 13)]
    assert len(retire(library, [*with_it, *easy, *hard], least_uses=4)) == 1


def test_every_choice_of_an_option_is_a_use_even_one_without_a_turn() -> None:
    steps = [
        row(0, "s", "use walk", option="walk", age=0),
        row(1, "s", "use walk", option="walk", age=0),
        row(2, "s", "on", 2.0, option="walk", age=1),
        row(3, "s", "on", None, option="walk", age=2, boundary=Boundary.OPTION_END),
        row(4, "s", "on", 7.0),
        row(5, "s", "use other", option="other", age=0),
    ]
    episode = Episode(tuple(steps), make_step(6, closing=True, ending="truncated"))
    record = record_uses(WALK, [episode]).records["walk"]
    assert (record.n, record.reached, record.turns, record.earned) == (2, 1, 2, 2.0)


def test_uses_in_a_failed_episode_are_not_recorded() -> None:
    steps = (row(0, "s", "use walk", option="walk", age=0),)
    failed = Episode(steps, make_step(1, closing=True, ending="env_error"))
    assert record_uses(WALK, [failed, Episode(steps, None)]).records["walk"].n == 0


@pytest.mark.parametrize(
    ("seen", "fits", "does_not"),
    [
        (["inbox 3", "inbox 32"], "inbox 7", "outbox 3"),
        (["door red\nkey", "door red\nhall"], "door red\nx", "door blue\nkey"),
        (["a.b", "a.c"], "a.d", "axd"),
        (["one", "two"], "anything", ""),
    ],
)
def test_what_observations_begin_with_is_cut_at_a_word(
    seen: list[str], fits: str, does_not: str
) -> None:
    condition = common_start(seen)
    assert condition(fits) and all(condition(text) for text in seen)
    assert not does_not or not condition(does_not)


def test_models_have_the_shapes_that_they_say() -> None:
    model = corridor().model_of(Program("walk", ("on", "on")))
    assert isinstance(model, Model)
    assert (model.reward.shape, model.arrival.shape, model.starts.shape) == ((4,), (4, 4), (4,))
