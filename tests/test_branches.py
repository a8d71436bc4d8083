"""Imagined branches: every fate, what a branch earns and ends in, and which are learned from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from experience.episode import Episode
from experience.options.option import Condition, Library, Program, Subgoal, option_id
from experience.planning.imagine import Imagined, imagine, sweep
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction
from experience.policy import Decision
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.signal import SignalKind
from experience.step import Boundary, Step, state_key
from tests.conftest import make_step
from tests.stored import StoredReplay

CATALOGUE = {"done": SignalKind("fraction", "env_state")}
REWARDS = RewardModel({"envs:Test-v0": {"done": 2.0}})


class Road:
    """Cells 0, 1, 2, …: `on` goes one further and earns ¼; behind cell `last` the world ends.

    `fog` is the cell from which on every prediction is uncertain.
    """

    version = 7
    threshold = 1.0

    def __init__(self, last: int = 2, fog: int = 99, signal: str = "done") -> None:
        self.last, self.fog, self.signal = last, fog, signal

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        return [self._one(int(o), a) for o, a in zip(observations, actions, strict=True)]

    def _one(self, cell: int, action: str) -> Prediction:
        if action not in ("on", "stay", "use skip"):
            return Prediction(None, 0.0)
        there = cell + (action != "stay")
        reached = Outcome(str(there), {self.signal: 0.25 * (there > cell)}, there > self.last)
        return Prediction(reached, 0.5 if cell < self.fog else 3.0)


def lived(cell: int = 0, **changes: object) -> Replay:
    """Two episodes of one turn, both in `cell`."""
    replay = StoredReplay(Path(tempfile.mkdtemp()), 2, 9)
    for stream in (b"1" * 16, b"2" * 16):
        first = make_step(0, stream, obs_text=str(cell), reward=0.0, **changes)
        replay.add([first, make_step(1, stream, closing=True, obs_text=str(cell))])
    return replay


def always(*actions: str) -> Callable[[Sequence[str], Sequence[str]], list[Decision]]:
    """A policy that says `actions` in turn, at each call anew."""
    return lambda _, seen: [Decision(actions[i % len(actions)], 3) for i in range(len(seen))]


def made(
    model: Road,
    *actions: str,
    replay: Replay | None = None,
    horizon: int = 3,
    groups: int = 1,
    value: Callable[[Sequence[str]], np.ndarray] | None = None,
    catalogue: Mapping[str, SignalKind] = CATALOGUE,
) -> Imagined:
    return imagine(
        always(*actions),
        model,
        replay or lived(),
        REWARDS,
        dict(catalogue),
        groups=groups,
        group_size=2,
        horizon=horizon,
        discount=0.5,
        value=value,  # type: ignore[arg-type]
    )


def worth_eight(seen: Sequence[str]) -> np.ndarray:
    return np.full(len(seen), 8.0)


def test_a_branch_that_reaches_the_end_earns_its_rewards_and_discounts_and_ends() -> None:
    found = made(Road(last=2), "on")
    assert found.branches == {"ended": 2}
    (group,) = found.groups
    for episode in group.episodes:
        assert [s.obs_text for s in episode.rows] == ["0", "1", "2", "3"]
        assert [s.reward for s in episode.steps] == [0.5, 0.5, 0.5], "2 for each of ¼"
        assert [s.discount for s in episode.steps] == [0.5, 0.5, 0.0]
        assert [s.ending for s in episode.steps] == ["none", "none", "terminated"]
        assert [s.step_in_episode for s in episode.rows] == [0, 1, 2, 3]
        assert episode.closing is not None and episode.closing.value_estimate is None
        assert episode.closing.boundary is Boundary.TERMINATED


def test_an_imagined_row_is_a_stream_of_its_own_and_says_where_it_came_from() -> None:
    found = made(Road(last=0), "on", replay=lived(seed=5, split="train", info={"real": 1}))
    streams = {s.stream_id for s in found.steps}
    assert len(streams) == 2 and not streams & {b"1" * 16, b"2" * 16}
    for step in found.steps:
        assert (step.source, step.split, step.model_version) == ("imagined", "train", 7)
        assert step.parent is not None and step.parent[0] in {b"1" * 16, b"2" * 16}
        assert step.reward_version == REWARDS.version
        assert step.work_id == step.stream_id and step.episode == 0
        assert step.info == {}, "what the real world told is not told of an imagined one"
    for episode in found.groups[0].episodes:
        assert [s.t for s in episode.rows] == [0, 1]
        assert episode.steps[0].state_key == state_key("0")
        assert episode.steps[0].uncertainty == 0.5
        assert [(s.name, s.value, s.source) for s in episode.steps[0].signals] == [
            ("done", 0.25, "model")
        ]


def test_without_a_value_function_an_unfinished_branch_is_not_learned_from() -> None:
    found = made(Road(last=9), "on", horizon=2)
    assert found.branches == {"unfinished": 2}
    assert found.groups == [] and found.steps == []


def test_with_a_value_function_an_unfinished_branch_ends_in_the_value_of_where_it_stands() -> None:
    found = made(Road(last=9), "on", horizon=2, value=worth_eight)
    (group,) = found.groups
    for episode in group.episodes:
        assert len(episode.steps) == 2
        assert episode.closing is not None
        assert (episode.closing.obs_text, episode.closing.value_estimate) == ("2", 8.0)
        assert episode.closing.boundary is Boundary.NONE


def test_an_ended_branch_is_worth_nothing_more_whatever_the_value_function_says() -> None:
    (group,) = made(Road(last=0), "on", value=worth_eight).groups
    assert [e.closing and e.closing.value_estimate for e in group.episodes] == [None, None]


def test_a_branch_is_cut_where_the_model_is_unsure_and_keeps_what_it_lived_before() -> None:
    found = made(Road(last=9, fog=1), "on", value=worth_eight)
    assert found.branches == {"uncertain": 2}
    assert [[s.obs_text for s in e.rows] for e in found.groups[0].episodes] == [["0", "1"]] * 2
    at_once = made(Road(last=9, fog=0), "on", value=worth_eight)
    assert at_once.branches == {"uncertain": 2} and at_once.groups == [], "nothing was lived"


@pytest.mark.parametrize("action", ["nonsense", "use skip"])
def test_an_action_that_cannot_happen_in_the_world_ends_its_branch(action: str) -> None:
    """The choice of an option is no action of a world, whatever the model makes of it."""
    found = made(Road(), action, value=worth_eight)
    assert found.branches == {"impossible": 2} and found.groups == []


def test_a_signal_that_the_world_does_not_have_makes_a_prediction_impossible() -> None:
    found = made(Road(signal="invented"), "on", value=worth_eight)
    assert found.branches == {"impossible": 2} and found.groups == []


def test_a_group_of_one_branch_has_no_baseline_and_is_left_out() -> None:
    """Of each group one branch goes on and ends, and the other says nonsense."""
    found = made(Road(last=0), "on", "nonsense", groups=3)
    assert found.branches == {"ended": 3, "impossible": 3}
    assert found.groups == []


def test_the_branches_of_one_group_start_in_the_same_row_and_groups_are_named_apart() -> None:
    found = made(Road(last=0), "on", groups=4)
    assert [g.group_id for g in found.groups] == [f"imagined-7-{n}" for n in range(4)]
    for group in found.groups:
        assert len({e.first.parent for e in group.episodes}) == 1


def test_the_policy_is_asked_for_the_branches_that_go_on_and_no_others() -> None:
    asked: list[list[str]] = []

    def act(env_ids: Sequence[str], seen: Sequence[str]) -> list[Decision]:
        asked.append(list(seen))
        assert set(env_ids) == {"envs:Test-v0"}
        return [Decision("on" if i == 0 else "nonsense", 3) for i in range(len(seen))]

    how = {"groups": 1, "group_size": 3, "horizon": 5}
    imagine(act, Road(last=1), lived(), REWARDS, CATALOGUE, **how)  # type: ignore[arg-type]
    assert asked == [["0", "0", "0"], ["1"]], "two were cut at once, and one ended in two turns"


def test_the_reward_of_an_unknown_world_is_unknown() -> None:
    found = made(Road(last=0), "on", replay=lived(env_id="envs:Other-v0"))
    assert {s.reward for e in found.groups[0].episodes for s in e.steps} == {None}


def swept(
    model: Road, *, library: Library | None = None, replay: Replay | None = None, states: int = 9
) -> list[Episode]:
    return sweep(
        lambda _, seen: [("on", "stay")] * len(seen),
        model,
        replay or lived(),
        REWARDS,
        CATALOGUE,
        roots=2,
        within=1,
        states=states,
        discount=0.5,
        library=library,
    )


def turns(episodes: Sequence[Episode]) -> dict[str, Step]:
    return {e.first.obs_text: e.first for e in episodes}


def test_sweeps_give_one_turn_for_each_state_with_its_value() -> None:
    """Reward ½ a step to the end behind cell 2: ½, ½ + ¼ and ½ + ⅜."""
    found = turns(swept(Road(last=2)))
    assert {seen: step.value_estimate for seen, step in found.items()} == {
        "0": 0.875,
        "1": 0.75,
        "2": 0.5,
    }
    for step in found.values():
        assert step.decision is not None
        assert (step.decision.text, step.decision.policy_version) == ("on", -1)
        assert step.decision.decoder == "sweeps over 9 states"
        assert (step.option_id, step.option_step) == (None, None)


def test_sweeps_say_nothing_beyond_the_fog() -> None:
    """From cell 1 on nothing is certain: one state is planned, and worth its own reward."""
    found = turns(swept(Road(last=9, fog=1)))
    assert {seen: step.value_estimate for seen, step in found.items()} == {"0": 0.5}


def test_sweeps_do_not_plan_with_signals_that_the_world_does_not_have() -> None:
    """The reward of such a signal is 0: nothing differs, and nothing is concluded."""
    assert swept(Road(signal="invented")) == []


def test_a_subgoal_is_planned_for_from_where_it_may_start_and_as_far_as_it_lies() -> None:
    """Reaching cell 2 earns 1 more: ½ + 1 from cell 1, ½ + ½·1.5 from cell 0."""
    goal = Subgoal("two", "get to cell 2", Condition("^2$"), Condition("^[01]$"))
    library = Library().add(goal).add(Program("skip", ("on",)))
    found = turns(swept(Road(last=9), library=library))
    assert {seen: step.value_estimate for seen, step in found.items()} == {"0": 1.25, "1": 1.5}
    for step in found.values():
        assert (step.option_id, step.option_step) == (option_id("two"), 1)


def test_a_root_where_no_subgoal_may_start_is_not_planned_from() -> None:
    goal = Subgoal("two", "get to cell 2", Condition("^2$"), Condition("^1$"))
    assert swept(Road(), library=Library().add(goal), replay=lived(cell=0)) == []


def test_a_library_without_subgoals_plans_as_none_does() -> None:
    plain = turns(swept(Road(last=2)))
    programs = turns(swept(Road(last=2), library=Library().add(Program("skip", ("on",)))))
    assert {s: t.value_estimate for s, t in plain.items()} == {
        s: t.value_estimate for s, t in programs.items()
    }
