"""Several attempts at a task: pass@k and success by hand, with what failed left out."""

from __future__ import annotations

from itertools import combinations

import pytest

from experience.evaluation.attempts import Attempts, pass_at_k, score


def test_pass_at_k_is_what_is_worked_out_by_hand() -> None:
    # 5 attempts, 2 successes: of the 10 pairs, 3 have no success
    assert pass_at_k(5, 2, 1) == pytest.approx(2 / 5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert pass_at_k(5, 2, 4) == 1.0
    assert pass_at_k(5, 0, 5) == 0.0


@pytest.mark.parametrize(("n", "c"), [(4, 1), (6, 3), (7, 0), (8, 8)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_attempts_with_a_success(n: int, c: int) -> None:
    attempts = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        chosen = [any(some) for some in combinations(attempts, k)]
        assert pass_at_k(n, c, k) == pytest.approx(sum(chosen) / len(chosen))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (0, 0, 1)])
def test_an_estimate_that_does_not_exist_is_an_error(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="attempts"):
        pass_at_k(n, c, k)


def test_a_failed_attempt_is_left_out_and_counted_and_never_a_zero() -> None:
    tasks = [
        Attempts((1.0, 0.0), failed=0),  # one of two: 1/2, pass@2 = 1
        Attempts((0.0, 0.0), failed=2),  # none of two
        Attempts((1.0,), failed=3),  # one of one: too few for pass@2
        Attempts((), failed=4),
    ]
    found = score(tasks, ks=(1, 2), bar=1.0)
    assert (found.tasks, found.episodes, found.failed) == (3, 5, 9)
    assert found.mean_return.mean == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert found.success is not None and found.success.mean == pytest.approx(0.5)
    assert found.passed[1].mean.mean == pytest.approx(0.5) and found.passed[1].short == 1
    assert found.passed[2].mean.mean == pytest.approx(0.5) and found.passed[2].short == 2
    nothing = score([Attempts((), failed=1)], ks=(1,), bar=1.0)
    assert nothing.mean_return.n == 0 and nothing.mean_return.mean != 0.0


def test_the_interval_is_students_over_tasks_and_not_over_attempts() -> None:
    tasks = [Attempts((value,) * 8) for value in (0.0, 1.0, 0.0, 1.0, 1.0)]
    found = score(tasks, ks=(1,), bar=1.0)
    # s = √0.3 over five tasks, t of 4 degrees of freedom is 2.776: 2.776 √(0.3 / 5)
    assert found.mean_return.n == 5
    assert found.mean_return.half == pytest.approx(0.68, abs=0.001)
    assert found.passed[1].mean.half == pytest.approx(0.68, abs=0.001)


def test_without_a_bar_there_is_no_success_and_no_pass() -> None:
    found = score([Attempts((1.0,))], ks=(1,))
    assert found.success is None and found.passed == {}
