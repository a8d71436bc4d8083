"""Intervals that say 95 % hold the truth in 95 of 100 cases, and where there is too little to say,
none is given."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.planning.bench import PAGE, RESULTS, shown, table
from benchmarks.planning.record import Row, ratio_row, row
from experience.evaluation.statistics import (
    FEWEST,
    mean_estimate,
    mean_with_interval,
    ratio_estimate,
    student_t,
)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
        (95, 1.985),
        (1000, 1.962),
    ],
)
def test_students_t_is_as_in_the_printed_tables(freedom: int, t: float) -> None:
    assert student_t(freedom) == pytest.approx(t, abs=6e-4)


@pytest.mark.parametrize("n", [5, 8, 20])
def test_a_95_percent_interval_of_a_mean_holds_the_truth_in_95_of_100(n: int) -> None:
    """The percentile bootstrap, which stood here, did in 85 of 100 for n = 5, and in 50 to 76 for
    two and three."""
    rng, held, trials = np.random.default_rng(n), 0, 4000
    for _ in range(trials):
        mean = mean_with_interval(rng.normal(3.0, 2.0, n).tolist())
        assert mean.half is not None
        held += abs(mean.mean - 3.0) <= mean.half
    assert held / trials == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("n", [5, 12])
def test_a_95_percent_interval_of_a_ratio_holds_the_truth_in_95_of_100(n: int) -> None:
    rng, held, trials = np.random.default_rng(n), 0, 4000
    for _ in range(trials):
        below = rng.lognormal(5.0, 0.8, n)  # seeds differ, above and below alike
        found = ratio_estimate((below * 0.5 * rng.lognormal(0.0, 0.4, n)).tolist(), below.tolist())
        assert found.interval is not None
        held += found.interval[0] <= 0.5 <= found.interval[1]
    assert held / trials == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("n", range(1, FEWEST))
def test_of_fewer_than_five_the_values_are_shown_and_no_interval(n: int) -> None:
    values = [0.25, 0.5, 1.0, 2.0][:n]
    mean = mean_with_interval(values)
    assert mean.half is None
    assert mean.values == tuple(values)
    assert "±" not in str(mean)
    assert all(f"{v:.3g}" in str(mean) for v in values)
    assert mean_estimate(values).interval is None
    assert ratio_estimate(values, [1.0] * n).interval is None


def test_a_ratio_is_the_geometric_mean_of_its_seeds() -> None:
    found = ratio_estimate([1.0, 4.0, 1.0, 4.0, 2.0], [2.0, 2.0, 2.0, 2.0, 2.0])
    assert found.value == pytest.approx(1.0)
    assert found.values == (0.5, 2.0, 0.5, 2.0, 1.0)
    assert found.interval is not None
    assert found.interval[0] * found.interval[1] == pytest.approx(1.0)


def test_a_ratio_with_a_zero_has_no_interval() -> None:
    found = ratio_estimate([1.0, 2.0, 3.0, 4.0, 0.0], [2.0] * 5)
    assert (found.value, found.interval) == (1.0, None)
    assert math.isnan(ratio_estimate([1.0] * 5, [0.0] * 5).value)
    with pytest.raises(ValueError, match="zip"):
        ratio_estimate([1.0], [])


def test_nothing_is_unknown_and_not_0() -> None:
    assert math.isnan(mean_with_interval([]).mean)
    assert str(mean_with_interval([])) == "–"


def test_a_row_of_the_planning_benchmark_prints_each_seed_and_an_interval_from_five_on() -> None:
    few = row("few", "none", "share", [0.25, 0.75], "")
    assert few.here == "0.5 share (each: 0.25, 0.75)"
    assert "each: 0.25, 0.75" in shown(few)
    many = ratio_row("many", "none", "ratio", [1.0, 1.1, 0.9, 1.2, 1.0], [2.0] * 5, "<= 1")
    assert many.here.startswith("0.518 ratio (0.452 to ")
    assert "each seed: 0.5, 0.55, 0.45, 0.6, 0.5" in shown(many)
    for one in (few, many):
        assert Row.read(json.loads(json.dumps(one.record()))).here == one.here


def test_no_kept_result_gives_an_interval_that_its_seeds_do_not() -> None:
    for part in json.loads(RESULTS.read_text()).values():
        for kept in part["rows"]:
            assert kept["interval"] is None or len(kept["values"]) == kept["seeds"] >= FEWEST
    head, _, rest = PAGE.read_text().partition("<!-- results -->\n")
    assert rest.partition("<!-- end -->")[0] == table(json.loads(RESULTS.read_text())), head[-80:]
