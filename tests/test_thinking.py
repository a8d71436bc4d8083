"""Lookahead, sweeps and tree search: scores and values by hand, and what is never asked twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from experience.planning.lookahead import Act, Search, in_model
from experience.planning.reach import LARGEST_DISCOUNT, Choice, Reach, could_do, worth
from experience.planning.search import Found, Leaf, TreeSearch, gumbel_search, softmax
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction
from experience.policy import Decision
from experience.reward import RewardModel

INF = float("inf")


class Written:
    """A world model whose outcomes are written down; it remembers what it was asked."""

    version, threshold = 1, INF

    def __init__(
        self, rules: Mapping[tuple[str, str], Outcome], unsure: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.rules = rules
        self.unsure = unsure
        self.asked: list[tuple[str, str]] = []

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        found = []
        for pair in zip(observations, actions, strict=True):
            self.asked.append(pair)
            found.append(Prediction(self.rules.get(pair), 2.0 if pair in self.unsure else 0.5))
        return found


def leads(there: str, reward: float = 0.0, *, ended: bool = False) -> Outcome:
    return Outcome(there, {"done": reward}, ended)


ROAD = {
    ("a", "on"): leads("b", 0.25),
    ("b", "on"): leads("c", 0.5),
    ("c", "on"): leads("out", 1.0, ended=True),
    ("a", "stay"): leads("a"),
    ("b", "stay"): leads("b"),
    ("c", "stay"): leads("c"),
}
"""a → b → c → the end, with rewards ¼, ½ and 1 on the way; `stay` changes nothing."""


def says(*actions: str) -> Act:
    """A policy whose samples go through `actions` again and again, at each call anew."""

    def act(observations: Sequence[str]) -> list[Decision]:
        return [
            Decision(actions[i % len(actions)], 3, decoder="said")
            for i, _ in enumerate(observations)
        ]

    return act


def earned(answer: Outcome) -> float:
    return answer.signals.get("done", 0.0)


def look(
    model: Written,
    act: Act,
    *,
    horizon: int = 1,
    value: float = 0.0,
    rollouts: int = 1,
    threshold: float = INF,
) -> list[tuple[str, float | None]]:
    search = Search(
        act,
        in_model(model),
        lambda seen: np.full(len(seen), value),
        lambda _, answer: earned(answer),
        "look",
        candidates=2,
        horizon=horizon,
        rollouts=rollouts,
        discount=0.5,
        threshold=threshold,
    )
    return [(decision.text, score) for decision, score in search(["a"], ["a"])]


def test_a_score_is_the_discounted_reward_and_the_value_where_the_thought_ends() -> None:
    """One turn: ¼ + ½·8. Two turns, the second by the policy, whose first sample is `on`:
    ¼ + ½·½ + ¼·8."""
    assert look(Written(ROAD), says("on", "stay"), value=8.0) == [("on", 4.25)]
    assert look(Written(ROAD), says("on", "stay"), horizon=2, value=8.0) == [("on", 2.5)]


def test_the_end_of_the_world_is_worth_nothing_more_and_a_cut_is_worth_its_value() -> None:
    """From c: 1 and the end. Staying is worth ½·1.5 more, and is cut before if it is unsure."""
    search = Search(
        says("on", "stay"),
        in_model(Written(ROAD, unsure=[("c", "stay")])),
        lambda seen: np.full(len(seen), 1.5),
        lambda _, answer: earned(answer),
        "look",
        candidates=2,
        horizon=1,
        discount=0.5,
        threshold=1.0,
    )
    ((chosen, score),) = search(["c"], ["c"])
    assert (chosen.text, score) == ("stay", 1.5), "cut at once: v(c), not γ·v(c)"


def test_a_prediction_of_nothing_possible_ends_a_thought_where_it_stands() -> None:
    nowhere = {("a", "on"): leads("b", 0.25)}
    assert look(Written(nowhere), says("on", "stay"), value=0.5) == [("on", 0.5)]
    assert look(Written({}), says("on", "stay"), value=0.5) == [("on", 0.5)], "the first of equals"


def test_a_score_is_the_mean_over_the_rollouts_of_a_candidate() -> None:
    """Two rollouts of two turns: after `on` the policy says on and stay: ¼ + ½·½ and ¼; after
    `stay` the same from a: ½·¼ and 0."""
    found = look(Written(ROAD), says("on", "stay"), horizon=2, rollouts=2)
    assert found == [("on", pytest.approx((0.5 + 0.25) / 2))]


def test_no_decision_of_a_search_is_marked_as_a_sample_and_its_decoder_says_how_it_was_made() -> (
    None
):
    search = Search(
        says("on", "stay"),
        in_model(Written(ROAD)),
        lambda seen: np.zeros(len(seen)),
        lambda _, answer: earned(answer),
        "look",
        candidates=2,
        horizon=1,
    )
    ((chosen, _),) = search(["a"], ["a"])
    assert (chosen.decoder, chosen.sampled, chosen.policy_version) == (
        "said look m=2 h=1 n=1",
        False,
        3,
    )


def test_situations_are_thought_about_together_and_rewarded_by_their_number() -> None:
    model = Written(ROAD)
    search = Search(
        says("on", "stay"),
        in_model(model),
        lambda seen: np.zeros(len(seen)),
        lambda situation, answer: earned(answer) * (1 if situation == 0 else -1),
        "look",
        candidates=2,
        horizon=1,
    )
    found = search(["a", "b"], ["a", "b"])
    assert [(d.text, score) for d, score in found] == [("on", 0.25), ("stay", 0.0)]
    assert sorted(model.asked) == [("a", "on"), ("a", "stay"), ("b", "on"), ("b", "stay")]


def test_what_was_lived_is_not_asked_of_the_model_again() -> None:
    model = Written(ROAD)
    tries = in_model(model, {("a", "on"): leads("a", -1.0)})
    (lived_place, lived), (place, guessed) = tries(["a", "a"], ["on", "stay"])
    assert (lived_place, lived) == ("a", Prediction(leads("a", -1.0), 0.0))
    assert (place, guessed.uncertainty) == ("a", 0.5)
    assert model.asked == [("a", "stay")]


def reach(
    model: Written,
    *,
    states: int = 9,
    discount: float = 0.5,
    threshold: float = INF,
    stops: str = "",
) -> Reach[str]:
    return Reach(
        lambda seen: [("on", "stay", "on")] * len(seen),
        in_model(model),
        earned,
        states,
        discount,
        threshold,
        lambda observation: observation == stops,
    )


def values(choices: Mapping[str, Choice]) -> dict[str, float]:
    return {seen: choice.value for seen, choice in choices.items()}


def test_sweeps_find_the_value_of_every_state_and_ask_for_each_action_once() -> None:
    """c: 1; b: ½ + ½·1; a: ¼ + ½·1."""
    model = Written(ROAD)
    choices = reach(model)(["a"], ["a"])
    assert values(choices) == {"a": 0.75, "b": 1.0, "c": 1.0}
    assert all(list(choice.best) == ["on"] for choice in choices.values())
    assert sorted(model.asked) == sorted(ROAD), "`on` was listed twice"


def test_what_was_not_laid_out_is_worth_nothing() -> None:
    """Two states: c is beyond, so that b is worth its reward of ½, and a ¼ + ½·½."""
    assert values(reach(Written(ROAD), states=2)(["a"], ["a"])) == {"a": 0.5, "b": 0.5}
    assert values(reach(Written(ROAD), states=1)(["a"], ["a"])) == {"a": 0.25}


def test_a_plan_ends_where_it_is_told_to_though_the_world_goes_on() -> None:
    assert values(reach(Written(ROAD), stops="b")(["a"], ["a"])) == {"a": 0.25}


def test_what_the_model_is_unsure_of_leads_nowhere_and_is_never_best() -> None:
    """In b only `stay` is certain: all that is known there has one value, and nothing is chosen."""
    model = Written(ROAD, unsure=[("b", "on")])
    assert values(reach(model, threshold=1.0)(["a"], ["a"])) == {"a": 0.25}
    assert ("c", "on") not in model.asked


def test_a_discount_of_one_is_brought_below_it_or_going_in_circles_would_be_as_good() -> None:
    rules = {
        ("a", "on"): leads("out", 1.0, ended=True),
        ("a", "stay"): leads("a"),
    }
    (choice,) = reach(Written(rules), discount=1.0)(["a"], ["a"]).values()
    assert list(choice.best) == ["on"], "staying is worth .99 of it"
    assert LARGEST_DISCOUNT == 0.99


def test_all_best_actions_are_named_and_a_state_without_a_difference_is_left_out() -> None:
    same = {
        ("a", "on"): leads("out", 1.0, ended=True),
        ("a", "stay"): leads("out", 1.0, ended=True),
    }
    assert reach(Written(same))(["a"], ["a"]) == {}
    three = Reach(
        lambda seen: [("x", "y", "z")] * len(seen),
        in_model(
            Written(
                {
                    ("a", "x"): leads("out", 1.0, ended=True),
                    ("a", "y"): leads("end", 1.0, ended=True),
                    ("a", "z"): leads("a"),
                }
            )
        ),
        earned,
        discount=0.5,
    )
    assert list(three(["a"], ["a"])["a"].best) == ["x", "y"]


def test_each_state_names_the_situation_from_which_it_was_first_reached() -> None:
    choices = reach(Written(ROAD))(["c", "a", "c"], ["c", "a", "c"])
    assert {seen: choice.root for seen, choice in choices.items()} == {"c": 0, "a": 1, "b": 1}


def test_a_model_that_is_certain_of_nothing_gives_no_choice() -> None:
    assert reach(Written({}))(["a", "b"], ["a", "b"]) == {}


def test_an_unknown_reward_adds_nothing_to_a_plan() -> None:
    rewards = RewardModel({"envs:Test-v0": {"done": 2.0}})
    assert worth(rewards, "envs:Test-v0", leads("b", 1.5)) == 3.0
    assert worth(rewards, "envs:Other-v0", leads("b", 1.5)) == 0.0


def test_what_could_be_done_is_what_the_world_lists_or_else_what_the_policy_says() -> None:
    assert could_do(("x", "y"), says("on"), 3, ["a", "b"]) == [("x", "y"), ("x", "y")]
    assert could_do((), says("on", "stay"), 3, ["a", "b"]) == [
        ["on", "stay", "on"],
        ["stay", "on", "stay"],
    ]


def searched(
    logits: Sequence[float],
    returns: Mapping[tuple[int, ...], float],
    *,
    simulations: int,
    value: float = 0.0,
    goes_on: bool = False,
    **how: float,
) -> tuple[Found, list[tuple[int, ...]]]:
    """A search without noise over paths of actions, and the paths that it asked for in order.

    `goes_on`: every path has two more actions; else it ends there, worth `returns`.
    """
    asked: list[tuple[int, ...]] = []
    root = Leaf[tuple[int, ...]]((), 0.0, 1.0, value, logits)
    search = gumbel_search(root, simulations=simulations, rng=None, **how)  # type: ignore[arg-type]
    state, action = next(search)
    while True:
        path = (*state, action)
        asked.append(path)
        after = [0.0, 0.0] if goes_on else []
        try:
            state, action = search.send(Leaf(path, returns.get(path, 0.0), 0.5, 0.0, after))
        except StopIteration as over:
            found: Found = over.value
            return found, asked


def test_softmax_is_a_distribution_and_does_not_overflow() -> None:
    assert softmax(np.array([0.0, math.log(3.0)])).tolist() == pytest.approx([0.25, 0.75])
    assert softmax(np.array([1000.0, 1000.0])).tolist() == [0.5, 0.5]


def test_without_noise_the_likeliest_actions_are_considered_and_no_others() -> None:
    found, asked = searched([0.0, 3.0, 1.0, 2.0], {}, simulations=8, considered=2)
    assert set(asked) == {(1,), (3,)}
    assert found.action == 1, "both are worth nothing: the prior decides"


def test_no_more_actions_are_considered_than_there_are_simulations() -> None:
    _, asked = searched([0.0, 1.0, 2.0], {}, simulations=1)
    assert asked == [(2,)]


def test_an_action_that_was_never_tried_is_worth_the_mixed_value() -> None:
    """v = ½, one simulation of action 0 for 1: v_mix = (½ + 1·1)/(1 + 1) = ¾ for action 1. The
    policy is softmax of (50 + 1)·[1, 0], so that the root is worth 1."""
    found, asked = searched([0.0, 0.0], {(0,): 1.0}, simulations=1, value=0.5)
    assert asked == [(0,)]
    assert found.policy[1] == pytest.approx(math.exp(-51.0))
    assert found.value == pytest.approx(1.0)
    low, _ = searched([0.0, 0.0], {(0,): -1.0}, simulations=1, value=0.5)
    assert low.policy[0] == pytest.approx(math.exp(-51.0)), "v_mix is −¼, and better than −1"
    assert low.value == pytest.approx(-0.25)
    thrice, _ = searched([0.0, 0.0], {(0,): -1.0}, simulations=3, value=0.5, considered=1)
    assert thrice.value == pytest.approx((0.5 - 3 * 1.0) / 4), "three visits weigh three times"


def test_where_all_are_worth_the_same_the_improved_policy_is_the_prior() -> None:
    logits = [0.0, 1.0, 2.0]
    found, _ = searched(logits, {}, simulations=12)
    assert found.policy.tolist() == pytest.approx(softmax(np.array(logits)).tolist())


def test_sequential_halving_gives_the_better_half_the_other_simulations() -> None:
    """16 simulations of 4 actions in 2 phases: 2 for each of four, then 4 for each of two."""
    returns = {(2,): 1.0, (3,): 0.5}
    _, asked = searched([0.0] * 4, returns, simulations=16, goes_on=True)
    assert len(asked) == 16
    counts = [sum(path[0] == action for path in asked) for action in range(4)]
    assert counts == [2, 2, 6, 6]


def test_a_search_of_depth_one_asks_nothing_below_the_root() -> None:
    _, asked = searched([0.0, 0.0], {}, simulations=9, goes_on=True, depth=1)
    assert sorted(asked) == [(0,), (1,)]


def test_the_same_search_without_noise_is_the_same_again() -> None:
    returns = {(0, 1): 1.0, (1,): 0.3}
    one, first = searched([0.1, 0.0], returns, simulations=20, goes_on=True)
    two, second = searched([0.1, 0.0], returns, simulations=20, goes_on=True)
    assert first == second
    assert (one.action, one.value, one.policy.tolist()) == (
        two.action,
        two.value,
        two.policy.tolist(),
    )


class Counts:
    """A policy and a value that count their calls: batches are what a real model pays for."""

    def __init__(self, act: Act) -> None:
        self._act, self.calls = act, 0

    def __call__(self, observations: Sequence[str]) -> list[Decision]:
        self.calls += 1
        return self._act(observations)


def tree(model: Written, act: Act, *, listed: Sequence[str] = (), **how: float) -> TreeSearch[str]:
    settings = {"candidates": 2, "simulations": 8, "discount": 0.5, **how}
    return TreeSearch(
        act,
        in_model(model),
        lambda seen: np.zeros(len(seen)),
        earned,
        listed,
        **settings,  # type: ignore[arg-type]
    )


def test_a_tree_search_finds_the_way_to_the_end_from_everywhere_in_the_same_calls() -> None:
    """Eight simulations: at most one batch to the policy for each, and one for the roots."""
    act = Counts(says("stay", "on"))
    found = tree(Written(ROAD), act)(["a", "b", "c"], ["a", "b", "c"])
    assert [choice and choice[0] for choice in found] == ["on", "on", "on"]
    assert act.calls <= 9


def test_the_value_of_a_tree_search_is_the_return_of_its_best_way() -> None:
    """From c: 1 at once, and the end."""
    (found,) = tree(Written(ROAD), says("stay", "on"), simulations=16)(["c"], ["c"])
    assert found is not None and found[1] == pytest.approx(1.0)


def test_one_possible_action_needs_no_thought() -> None:
    model = Written(ROAD)
    found = tree(model, says("stay"))(["a", "b"], ["a", "b"])
    assert found == [None, None] and model.asked == []
    assert tree(model, says("stay"))([], []) == []


def roots(search: TreeSearch[str]) -> Iterator[list[float]]:
    for leaf in search._leaves(["a"], ["a"], [0.0]):
        yield softmax(np.array(leaf.logits)).tolist()


def test_the_prior_is_how_often_the_policy_says_an_action_and_a_part_for_all() -> None:
    """Of four samples three say x and one y; z is listed only: (3 + ⅓, 1 + ⅓, ⅓) of 5."""
    search = tree(Written(ROAD), says("x", "x", "y", "x"), listed=("x", "y", "z"), candidates=4)
    (prior,) = roots(search)
    assert prior == pytest.approx([10 / 15, 4 / 15, 1 / 15])
