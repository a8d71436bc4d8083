"""Estimators: each meets a number worked out by hand, its definition, or a theorem."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from experience.episode import Episode, Group
from experience.errors import RecordError
from experience.learning.credit import AdvantageEstimator
from experience.learning.estimators.groups import (
    by_deviation,
    group_in_group,
    less_mean,
    over_roles,
    overlong_penalty,
    whitened,
)
from experience.learning.estimators.off_policy import vtrace
from experience.learning.estimators.temporal import (
    average_reward,
    differential_advantages,
    differential_errors,
    generalized_advantages,
    option_return,
)
from experience.learning.recipes.table import recipe
from experience.learning.value import ValueFunction
from experience.options.option import Library
from experience.returns import Floats, lambda_returns, leave_one_out
from tests.conftest import make_step
from tests.test_learning import group_of
from tests.test_value import walk

RETURNS = np.array([1.0, 0.0, 0.0, 3.0])


def test_rloo_compares_with_the_mean_of_the_others_and_dr_grpo_with_the_mean_of_all() -> None:
    """The mean is 1. Of the others of the last: ⅓."""
    assert leave_one_out(RETURNS)[3] == pytest.approx(3 - 1 / 3)
    assert less_mean(RETURNS).tolist() == [0, -1, -1, 2]


def test_grpo_divides_by_the_deviation_of_the_group() -> None:
    """Squares 0, 1, 1, 4: σ = √1.5."""
    assert by_deviation(less_mean(RETURNS)) == pytest.approx(
        np.array([0, -1, -1, 2]) / math.sqrt(1.5), abs=1e-5
    )


def test_a_batch_is_whitened_over_its_tokens() -> None:
    """Values 0 and 4 with 3 and 1 tokens: mean 1, σ = √3."""
    white = whitened(np.array([0.0, 4.0]), np.array([3.0, 1.0]))
    assert white == pytest.approx(np.array([-1.0, 3.0]) / math.sqrt(3), abs=1e-5)


def test_group_in_group_adds_the_difference_in_the_state_to_that_of_the_episode() -> None:
    """Two episodes from s: R 1 and 0. In b both have a turn: G = 1 and 0; c is alone."""
    found = group_in_group(
        ["s", "s"], ["s", "b", "s", "c", "b"], [np.array([1.0, 1.0]), np.array([0.0, 0.0, 0.0])]
    )
    assert [part.tolist() for part in found] == [[2.0, 2.0], [-2.0, -1.0, -2.0]]


def test_a_role_is_compared_with_its_own_past() -> None:
    baselines: dict = {}
    better = over_roles(["x", "o", "x"], np.array([1.0, -1.0, 1.0]), baselines, memory=0.5)
    assert better.tolist() == [0.5, -0.5, 0.25]
    assert baselines == {"x": 0.75, "o": -0.5}


@pytest.mark.parametrize(("tokens", "lost"), [(80, 0), (90, -0.5), (100, -1), (140, -1)])
def test_a_response_loses_up_to_one_over_the_soft_zone(tokens: int, lost: float) -> None:
    assert overlong_penalty(tokens, most=100, soft=20) == lost
    assert overlong_penalty(tokens, most=0, soft=0) == 0


def test_generalized_advantages_are_lambda_returns_less_the_values() -> None:
    """δ = (1 + ½·2 − 1, 2 + 0 − 2) = (1, 0) by hand, then any episode."""
    two = generalized_advantages(
        np.array([1.0, 2.0]), np.array([0.5, 0.0]), np.array([1.0, 2.0]), np.array([2.0, 9.0]), 0.5
    )
    assert two.tolist() == [1.0, 0.0]
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=9), rng.normal(size=10)
    discounts = rng.uniform(0, 1, 9)
    expected = lambda_returns(rewards, discounts, values[1:], 0.7) - values[:-1]
    found = generalized_advantages(rewards, discounts, values[:-1], values[1:], 0.7)
    assert found == pytest.approx(expected, abs=1e-12)
    with pytest.raises(RecordError, match="one discount"):
        generalized_advantages(rewards, discounts[1:], values[:-1], values[1:], 0.7)


def test_differential_errors_are_what_a_step_earns_beyond_the_average() -> None:
    rewards, v, after = np.array([2.0, 0.0]), np.array([1.0, 3.0]), np.array([3.0, 1.0])
    errors = differential_errors(rewards, v, after, average=1.0)
    assert errors.tolist() == [3.0, -3.0]
    assert differential_advantages(rewards, v, after, 1.0, trace=1.0).tolist() == [0.0, -3.0]
    assert average_reward(1.0, np.array([2.0, 1.0]), step=0.1) == pytest.approx(1.3)


def test_the_average_reward_of_a_ring_is_found_and_its_errors_vanish() -> None:
    """Three states in a ring that earn 0, 0, 3: r̄ = 1, v − v(s₀) = 0, 1, 2."""
    rewards, v, average = np.array([0.0, 0.0, 3.0]), np.zeros(3), 0.0
    for _ in range(4000):
        errors = differential_errors(rewards, v, np.roll(v, -1), average)
        average = average_reward(average, errors, 0.02)
        v += 0.1 * errors
    assert average == pytest.approx(1.0, abs=1e-6)
    assert (v - v[0]).tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)


def test_an_option_is_one_step_of_the_level_that_chose_it() -> None:
    assert option_return(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.5, 0.5])) == (3.0, 0.125)


def by_definition(
    log_ratios: Floats, rewards: Floats, discounts: Floats, v: Floats, most: float, trace: float
) -> Floats:
    """V-trace as it is written: a sum over all later steps for each step."""
    ratios, steps = np.exp(log_ratios), len(rewards)
    targets = np.empty(steps)
    for s in range(steps):
        total = v[s]
        for t in range(s, steps):
            weight = 1.0
            for i in range(s, t):
                weight *= discounts[i] * trace * min(1.0, ratios[i])
            error = rewards[t] + discounts[t] * v[t + 1] - v[t]
            total += weight * min(most, ratios[t]) * error
        targets[s] = total
    return targets


@pytest.mark.parametrize("most", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("trace", [1.0, 0.9])
def test_vtrace_is_its_definition(most: float, trace: float) -> None:
    rng = np.random.default_rng(0)
    for steps in (1, 2, 40):
        ratios, rewards, v = (
            rng.normal(size=steps),
            rng.normal(size=steps),
            rng.normal(size=steps + 1),
        )
        discounts = rng.uniform(0.5, 1, steps) * (rng.uniform(size=steps) > 0.1)
        found, better = vtrace(
            ratios, rewards, discounts, v[:-1], v[1:], trace=trace, most_ratio=most
        )
        expected = by_definition(ratios, rewards, discounts, v, most, trace)
        assert np.abs(found - expected).max() <= 1e-12
        after = np.append(expected[1:], v[-1])
        rho = np.minimum(most, np.exp(ratios))
        assert better == pytest.approx(rho * (rewards + discounts * after - v[:-1]), abs=1e-12)


def test_vtrace_of_ones_own_experience_is_the_return() -> None:
    rewards, discounts, v = np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.array([9.0, -4.0, 8.0])
    targets, _ = vtrace(np.zeros(2), rewards, discounts, v[:-1], v[1:])
    assert targets.tolist() == [1 + 0.5 * 6, 2 + 0.5 * 8]
    with pytest.raises(RecordError, match="one of each"):
        vtrace(np.zeros(1), rewards, discounts, v[:-1], v[1:])
    with pytest.raises(RecordError, match="converges"):
        vtrace(np.zeros(2), rewards, discounts, v[:-1], v[1:], most_ratio=0.5)


@pytest.mark.parametrize("most", [0.5, 1.0, 2.0, math.inf])
def test_the_fixed_point_of_vtrace_is_the_value_of_the_truncated_policy(most: float) -> None:
    """π_ρ̄ ∝ min(ρ̄ μ, π), in an MDP of 4 states and 3 actions, by expected one-step updates."""
    rng, gamma = np.random.default_rng(1), 0.4
    reach = rng.dirichlet(np.ones(4), (4, 3))
    reward = rng.normal(size=(4, 3))
    mu, pi = rng.dirichlet(np.ones(3), 4), rng.dirichlet(np.ones(3), 4)
    truncated = np.minimum(most * mu, pi)
    truncated /= truncated.sum(1, keepdims=True)
    chain = np.einsum("sa,sax->sx", truncated, reach)
    value = np.linalg.solve(np.eye(4) - gamma * chain, (truncated * reward).sum(1))
    v = np.zeros(4)
    for _ in range(3000):
        moved = np.zeros(4)
        for s in range(4):
            for a in range(3):
                for x in range(4):
                    target, _ = vtrace(
                        np.log(pi[s, a : a + 1] / mu[s, a]), reward[s, a : a + 1],
                        np.array([gamma]), v[s : s + 1], v[x : x + 1],
                        most_ratio=most, most_trace=min(1.0, most),
                    )  # fmt: skip
                    moved[s] += mu[s, a] * reach[s, a, x] * (target[0] - v[s])
        v = v + moved
        if np.abs(moved).max() < 1e-14:
            break
    assert np.abs(v - value).max() <= 1e-11


def credited(groups: list[Group], **cells: object) -> list[float]:
    turns, _ = AdvantageEstimator(recipe(cells))(groups, Library())
    return [turn.advantage for turn in turns]


def test_each_episode_estimator_reaches_the_turns_of_a_group() -> None:
    groups = [group_of(RETURNS.tolist())]
    plain = {"scale": "none"}
    assert credited(groups, estimator="none", **plain) == RETURNS.tolist()
    assert credited(groups, estimator="mean", **plain) == [0, -1, -1, 2]
    assert credited(groups, estimator="rloo", **plain) == pytest.approx([0, -4 / 3, -4 / 3, 8 / 3])
    by_group = credited(groups, estimator="mean", scale="group")
    assert by_group == pytest.approx([0, -0.8165, -0.8165, 1.633], abs=1e-4)
    assert np.mean(credited(groups, like="reinforce_pp")) < 0.5
    assert credited(groups, estimator="role", **plain)[0] == pytest.approx(0.95)


def test_a_flat_group_counts_only_where_the_recipe_keeps_it() -> None:
    flat = [group_of([1.0, 1.0])]
    assert credited(flat) == [] and credited(flat, keep_flat=True) == [0.0, 0.0]


def test_a_long_response_is_punished_before_it_is_compared() -> None:
    """Both earn 1; the second has used up its tokens."""
    group = group_of([1.0, 1.0])
    short = replace(group.episodes[0].steps[0], decision=make_step(3).decision)
    group = replace(group, episodes=(Episode((short,), None), group.episodes[1]))
    turns, _ = AdvantageEstimator(
        recipe({"estimator": "mean", "scale": "none", "keep_flat": True})
    )([group], Library())
    most = max(turn.chosen for turn in turns)
    assert len({turn.chosen for turn in turns}) == 2
    better = credited([group], estimator="mean", scale="none", most_tokens=most, soft_tokens=0)
    assert sorted(better) == [-0.5, 0.5]


def test_vtrace_credit_of_the_present_policy_is_that_of_lambda_returns() -> None:
    groups = [Group("g", (walk(1, lucky=True), walk(2, lucky=False)))]

    def turns(kind: str, ratio: float) -> list[float]:
        value = ValueFunction(1, 32, 32, seed=0)
        cells = recipe({"estimator": kind, "scale": "none", "trace": 1.0})
        estimator = AdvantageEstimator(cells, value, lambda some: [ratio] * len(some))
        return [turn.advantage for turn in estimator(groups, Library())[0]]

    assert turns("vtrace", 0.0) == pytest.approx(turns("turn", 0.0))
    halved = turns("vtrace", math.log(0.5))
    assert halved[1] == pytest.approx(0.5 * turns("turn", 0.0)[1]), "the last turn: ρ (r − v)"


def test_the_average_reward_of_a_world_is_learned_with_its_values() -> None:
    value = ValueFunction(1, 32, 32, seed=0)
    estimator = AdvantageEstimator(recipe("average_reward"), value)
    for n in range(12):
        group = Group("g", (walk(2 * n, lucky=True), walk(2 * n + 1, lucky=True)))
        _, metrics = estimator([group], Library())
    assert 0.2 < metrics["average_reward"] < 0.8, "one reward in two steps"
