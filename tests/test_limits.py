"""The rate limiter: collecting runs ahead of learning by so many versions and no further."""

from __future__ import annotations

from collections import deque

import pytest

from experience.errors import ConfigError
from experience.replay.limits import RateLimiter


@pytest.mark.parametrize(("version", "allowed"), [(0, 12), (1, 16), (5, 32)])
def test_collecting_runs_ahead_by_the_staleness_bound_and_no_further(
    version: int, allowed: int
) -> None:
    assert RateLimiter(items_per_update=4, max_lag=2).inserts_allowed(version) == allowed


def test_without_a_number_of_items_an_update_nothing_is_bounded() -> None:
    assert RateLimiter(items_per_update=0, max_lag=1).inserts_allowed(0) > 10**18


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_collector_at_the_limit_gives_nothing_older_than_the_lag(lag: int) -> None:
    limiter, inserted = RateLimiter(items_per_update=4, max_lag=lag), 0
    waiting: deque[int] = deque()
    oldest = 0
    for version in range(20):
        while inserted < limiter.inserts_allowed(version):
            waiting.append(version)
            inserted += 1
        learned = [waiting.popleft() for _ in range(4)]
        oldest = max(oldest, version - min(learned))
    assert oldest == lag


@pytest.mark.parametrize("wrong", [{"items_per_update": -1}, {"max_lag": -1}])
def test_a_limit_below_zero_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="rate limiter"):
        RateLimiter(**wrong)
