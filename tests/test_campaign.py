"""Campaigns: the numbers of the mixture by hand, and when a laboratory measures or declares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from experience.planning.campaign import Belief, Campaign, Laboratory, Plan, experiment

ENDS = np.array([[0.0], [1.0]])
"""Two candidates at distance 1."""


def grid(n: int) -> np.ndarray:
    return np.linspace(0, 1, n)[:, None]


def believed(mean: Sequence[float], spread: Sequence[float]) -> Belief:
    return Belief(np.array(mean), np.array(spread), 0.0)


def test_the_expected_improvement_is_that_of_jones_schonlau_and_welch() -> None:
    """gain 0, σ 2: 2·φ(0). gain 2, σ 1: 2·Φ(2) + φ(2). gain −3, σ 1: −3·Φ(−3) + φ(3)."""
    campaign = Campaign(grid(3))
    found = campaign.improvement(believed([1.0, 3.0, -2.0], [2.0, 1.0, 1.0]), best=1.0)
    assert found[0] == pytest.approx(0.7978846)
    assert found[1] == pytest.approx(2.0084907)
    assert found[2] == pytest.approx(0.0003822, abs=1e-6)


def test_a_measured_candidate_promises_no_improvement() -> None:
    campaign = Campaign(grid(2))
    campaign.tell(1, 0.5)
    found = campaign.improvement(believed([0.0, 9.0], [1.0, 1.0]), best=0.5)
    assert found[1] == -math.inf and math.isfinite(found[0])


def test_after_one_measurement_the_spread_is_the_mean_over_lengths_of_what_the_kernel_leaves() -> (
    None
):
    """The prior leaves a variance of (0 + 2)/(1 + 2); the kernel leaves 1 − k², k² = exp(−1/ℓ²):
    0, 0.0000149, 0.0621765 and 0.4993518 for ℓ = .15, .3, .6, 1.2, all of the same evidence."""
    campaign = Campaign(ENDS, noise=0.0)
    campaign.tell(0, 5.0)
    belief = campaign.belief()
    left = 1 - (0.0 + 0.0000149 + 0.0621765 + 0.4993518) / 4
    assert belief.mean.tolist() == pytest.approx([5.0, 5.0])
    assert belief.spread[1] == pytest.approx(math.sqrt(2 / 3 * left), rel=1e-4)
    assert belief.spread[0] < 1e-3, "what was measured without noise is known"
    assert belief.share == 0.0


def test_a_known_unit_scales_what_may_still_be_found() -> None:
    spreads = []
    for unit in (1.0, 3.0):
        campaign = Campaign(ENDS, noise=0.0, unit=unit)
        campaign.tell(0, 5.0)
        spreads.append(float(campaign.belief().spread[1]))
    assert spreads[1] == pytest.approx(3 * spreads[0])


def test_close_measurements_leave_little_to_find_unless_the_unit_is_known() -> None:
    spread = {}
    for unit in (None, 1.0):
        campaign = Campaign(grid(9), noise=0.01, unit=unit)
        for candidate, value in {0: 0.50, 1: 0.501}.items():
            campaign.tell(candidate, value)
        spread[unit] = float(campaign.belief().spread[8])
    assert spread[None] < 0.002 < 0.4 < spread[1.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_weight_of_a_simulator_has_the_sign_of_its_agreement(sign: float) -> None:
    simulated = np.sin(7 * grid(20)[:, 0])
    campaign = Campaign(grid(20), sign * simulated, noise=0.01)
    for candidate in range(0, 20, 2):
        campaign.tell(candidate, float(simulated[candidate]))
    share = campaign.belief().share
    assert share > 0.7 if sign > 0 else share < 0.0


def test_the_first_measurement_is_the_simulators_best_and_without_a_simulator_it_is_drawn() -> None:
    simulated = np.array([0.1, 0.9, 0.3])
    assert Campaign(grid(3), simulated).next(np.random.default_rng(0)) == 1
    drawn = {Campaign(grid(3)).next(np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {0, 1, 2}


def test_a_constant_simulator_is_none() -> None:
    campaign = Campaign(grid(3), np.full(3, 7.0))
    drawn = {campaign.next(np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {0, 1, 2}
    campaign.tell(0, 1.0)
    assert campaign.belief().share == 0.0


def test_a_campaign_measures_every_candidate_once_before_it_ends() -> None:
    campaign = Campaign(grid(6), noise=0.1)
    rng = np.random.default_rng(0)
    order = []
    for _ in range(6):
        order.append(campaign.next(rng))
        campaign.tell(order[-1], float(rng.normal()))
    assert sorted(order) == list(range(6))


def laboratory(
    simulated: Sequence[float],
    readings: Mapping[int, float] | None = None,
    *,
    measure: Sequence[Plan] = (),
    declare: Sequence[Plan] = (),
    turns: int = 9,
) -> Laboratory:
    n = len(simulated)
    return Laboratory(
        grid(n),
        np.array(simulated),
        readings or {},
        0.01,
        measure or [Plan(f"measure {i}", 0.0, 1) for i in range(n)],
        declare or [Plan(f"declare {i}", 0.0, 1) for i in range(n)],
        turns,
    )


def test_without_a_reading_the_simulators_best_is_measured_whatever_it_costs() -> None:
    costly = [Plan(f"measure {i}", 100.0, 1) for i in range(3)]
    action, expected, share = experiment(laboratory([0.1, 0.2, 0.8], measure=costly))
    assert (action, expected, share) == ("measure 2", 0.8, 1.0)


def test_what_is_measured_first_is_the_best_of_what_can_be_measured_in_time() -> None:
    """The best takes two turns to measure, and one more must be left to declare it."""
    slow = [Plan("measure 0", 0.0, 1), Plan("measure 1", 0.0, 2)]
    assert experiment(laboratory([0.1, 0.9], measure=slow, turns=2))[0] == "measure 0"
    assert experiment(laboratory([0.1, 0.9], measure=slow, turns=3))[0] == "measure 1"


def test_at_the_last_turn_the_best_is_declared_without_a_measurement() -> None:
    assert experiment(laboratory([0.1, 0.9], turns=1)) == ("declare 1", 0.9, 1.0)


def test_a_recipe_that_is_too_dear_to_declare_gives_way_to_a_cheaper_one() -> None:
    declare = [Plan("declare 0", 0.0, 1), Plan("declare 1", 0.9, 1)]
    action, expected, _ = experiment(laboratory([0.5, 0.9], declare=declare, turns=1))
    assert (action, expected) == ("declare 0", 0.5)


def test_a_recipe_that_takes_too_long_to_declare_is_not_declared() -> None:
    declare = [Plan("declare 0", 0.0, 1), Plan("declare 1", 0.0, 2)]
    assert experiment(laboratory([0.5, 0.9], declare=declare, turns=1))[0] == "declare 0"


def test_when_all_was_measured_the_best_reading_is_declared() -> None:
    action, expected, _ = experiment(laboratory([0.9, 0.1], {0: 0.2, 1: 0.7}))
    assert action == "declare 1"
    assert expected == pytest.approx(0.7, abs=0.05)


def test_a_measurement_that_costs_more_than_it_promises_is_not_made() -> None:
    cheap = [Plan(f"measure {i}", 0.001, 1) for i in range(5)]
    costly = [Plan(f"measure {i}", 1.0, 1) for i in range(5)]
    simulated, readings = [0.5, 0.4, 0.3, 0.45, 0.2], {0: 0.1}
    assert experiment(laboratory(simulated, readings, measure=cheap))[0].startswith("measure")
    assert experiment(laboratory(simulated, readings, measure=costly))[0].startswith("declare")


def test_among_equal_promises_the_cheaper_measurement_is_made() -> None:
    """Both sides of the reading look alike to the kernel and to the simulator."""
    prices = [Plan("measure 0", 0.02, 1), Plan("measure 1", 0.0, 1), Plan("measure 2", 0.01, 1)]
    found = experiment(laboratory([0.5, 0.1, 0.5], {1: 0.2}, measure=prices))
    assert found[0] == "measure 2"


def test_a_simulation_without_differences_leaves_a_unit_of_one() -> None:
    """Its standard deviation is 0, and nothing can be divided by that."""
    action, expected, share = experiment(laboratory([0.5, 0.5, 0.5], {1: 0.6}))
    assert action.startswith("measure") and share == 0.0
    assert expected == pytest.approx(0.6, abs=0.01)
