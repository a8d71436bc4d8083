"""Limits: the cases that Reverb's limiter is known by, staleness, bytes, and what a checkpoint keeps."""

from __future__ import annotations

import random

import pytest

from experience.errors import ConfigError
from experience.replay.limits import Counts, RateLimiter


def after(
    limiter: RateLimiter, inserted: int = 0, sampled: int = 0, deleted: int = 0
) -> RateLimiter:
    limiter.counts = Counts(inserted, sampled, deleted)
    return limiter


def test_min_size_holds_samples_back_until_it_is_reached_and_again_when_items_go() -> None:
    limiter = RateLimiter.min_size(3)
    assert not after(limiter, 2).can_sample()
    assert after(limiter, 3, 1_000_000).can_sample(99)
    assert not after(limiter, 5, deleted=3).can_sample()
    assert after(limiter, 10**9).can_insert(10**9)


def test_a_ratio_is_kept_within_its_buffer() -> None:
    limiter = RateLimiter.sample_to_insert_ratio(2.0, min_size_to_sample=10, error_buffer=4.0)
    assert (limiter.min_diff, limiter.max_diff) == (16.0, 24.0)
    assert not after(limiter, 9).can_sample()
    assert after(limiter, 10).can_sample(4) and not limiter.can_sample(5)
    assert after(limiter, 10).can_insert(2) and not limiter.can_insert(3)
    assert after(limiter, 11, 6).can_insert(4) and not limiter.can_insert(5)
    assert after(limiter, 0).can_insert(10), "up to the size from which samples are allowed"


def test_a_band_may_be_given_as_it_is() -> None:
    limiter = RateLimiter.sample_to_insert_ratio(1.0, 1, (-5.0, 2.0))
    assert after(limiter, 1).can_sample(6) and not limiter.can_sample(7)
    assert after(limiter, 1).can_insert() and not limiter.can_insert(2)


def test_a_queue_gives_each_item_once_and_holds_so_many() -> None:
    limiter = RateLimiter.queue(2)
    assert not limiter.can_sample() and limiter.can_insert(2) and not limiter.can_insert(3)
    assert (
        after(limiter, 2).can_sample(2) and not limiter.can_sample(3) and not limiter.can_insert()
    )
    assert after(limiter, 2, 1).can_insert() and limiter.can_sample() and not limiter.can_sample(2)


def test_an_item_that_was_sampled_and_deleted_makes_room_for_none_beyond_the_band() -> None:
    limiter = after(RateLimiter.queue(1), 5, 5, deleted=5)
    assert limiter.can_insert() and not limiter.can_insert(2) and not limiter.can_sample()


@pytest.mark.parametrize(("spi", "buffer"), [(1.0, 0.5), (3.0, 2.9), (0.25, 0.99)])
def test_a_buffer_that_blocks_for_ever_is_refused(spi: float, buffer: float) -> None:
    with pytest.raises(ConfigError, match="for ever"):
        RateLimiter.sample_to_insert_ratio(spi, 10, buffer)


@pytest.mark.parametrize(
    "wrong",
    [dict(samples_per_insert=0.0), dict(min_size_to_sample=0), dict(min_diff=2.0, max_diff=1.0)],
)
def test_a_limiter_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="rate limiter"):
        RateLimiter(**wrong)  # type: ignore[arg-type]


def test_with_the_least_buffer_inserts_and_samples_never_block_each_other_for_ever() -> None:
    rng = random.Random(0)
    for spi in (0.2, 0.5, 1.0, 1.7, 8.0):
        limiter = RateLimiter.sample_to_insert_ratio(spi, rng.randint(1, 20), max(1.0, spi))
        for _ in range(2_000):
            assert limiter.can_insert() or limiter.can_sample()
            if limiter.can_insert() and (rng.random() < 0.5 or not limiter.can_sample()):
                limiter.counts.inserted += 1
            else:
                limiter.counts.sampled += 1
        assert limiter.counts.sampled / limiter.counts.inserted == pytest.approx(spi, rel=0.2)


def test_collecting_runs_ahead_by_the_staleness_bound_and_no_further() -> None:
    limiter = RateLimiter.staleness(items_per_update=4, max_lag=2)
    for version, allowed in ((0, 12), (1, 16), (5, 32)):
        limiter.counts = Counts(inserted=allowed - 1, version=version)
        assert limiter.inserts_allowed() == allowed
        assert limiter.can_insert(1) and not limiter.can_insert(2)


def test_a_store_grows_so_far_and_no_further() -> None:
    limiter = RateLimiter(most_bytes=1_000, counts=Counts(inserted=7, bytes=900))
    assert limiter.can_insert(nbytes=100) and not limiter.can_insert(nbytes=101)
    limiter.counts.bytes = 1_000
    assert limiter.inserts_allowed() == 7


def test_the_narrowest_limit_holds() -> None:
    limiter = RateLimiter(max_diff=10.0, items_per_update=2, max_lag=1, counts=Counts(version=100))
    assert limiter.inserts_allowed() == 10
    limiter.counts = Counts(version=1, sampled=50)
    assert limiter.inserts_allowed() == 6


def test_counts_come_back_with_the_checkpoint() -> None:
    limiter = after(RateLimiter.queue(5), 4, 3, 2)
    again = RateLimiter.queue(5)
    again.restore(limiter.save())
    assert again.counts == limiter.counts
