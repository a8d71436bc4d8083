"""The pool in this process: what it is given is lived, in order, and told to the caller."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.collecting.work import Lane, Work
from actors.config.schema import Config, load
from actors.engines.registry import make_model
from actors.pool.factory import make_pool
from actors.pool.local import LocalPool
from experience.errors import EngineError
from experience.models.weights import PolicyBundle, Weights
from experience.shards.catalog import Catalog
from experience.step import Boundary, Step
from tests.alone import SMALLEST_POLICY

WORLD = "envs:KeyDoor-v0"


def configuration(*more: str) -> Config:
    words = [
        f"worlds=[{{id: '{WORLD}', groups: 1, demonstrations: 0}}]",
        *SMALLEST_POLICY,
        "collecting.slots=2",
        "collecting.group_size=2",
        *more,
    ]
    return load([], words)[0]


def pool_of(folder: Path, *more: str) -> LocalPool:
    pool = make_pool(configuration(*more), "test", folder, Catalog(folder))
    assert isinstance(pool, LocalPool)
    return pool


def policy(version: int, seed: int = 0) -> PolicyBundle:
    trained = make_model(configuration().policy, seed)
    assert trained is not None
    return PolicyBundle(Weights.of(trained.model, version))


def works(lane: Lane, *seeds: int, version: int = -1) -> list[Work]:
    return [
        Work.named(f"{lane}/{s}", env_id=WORLD, seed=s, lane=lane, split="heldout", version=version)
        for s in seeds
    ]


def lived(pool: LocalPool, episodes: int) -> list[Step]:
    """The rows that the pool gives out until so many episodes are closed."""
    rows: list[Step] = []

    def is_enough() -> bool:
        return sum(row.is_closing for row in rows) >= episodes

    for block in pool.shards(until=is_enough):
        rows.extend(block)
    return rows


def test_without_a_push_no_training_begins_and_with_one_no_group_beyond_the_quota(
    tmp_path: Path,
) -> None:
    pool = pool_of(tmp_path)
    rounds = iter(range(5))
    assert not any(pool.shards(until=lambda: next(rounds, None) is None))
    assert pool.status()[0]["idle"]
    pool.push(policy(7), quota=2)
    rows = lived(pool, 4)
    assert pool.status()[0]["idle"] and pool.status()[0]["version"] == 7
    closed = [row.group_id for row in rows if row.is_closing]
    assert sorted(closed) == ["0-0", "0-0", "0-1", "0-1"]
    assert {row.decision.policy_version for row in rows if row.decision} == {7}
    pool.close()


def test_what_was_ordered_is_lived_before_training_and_only_once(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    pool.push(policy(1), quota=1)
    ordered = works("random", 1, 2, 3)
    pool.order(ordered)
    pool.order(ordered)
    rows = lived(pool, 5)
    closed = [row.work_id for row in rows if row.is_closing]
    names = {work.work_id for work in ordered}
    assert len(closed) == len(set(closed)) == 5 and names < set(closed)
    began = [(row.t_start_ns, row.work_id in names) for row in rows if row.step_in_episode == 0]
    in_turn = [is_ordered for _, is_ordered in sorted(began)]
    # of two slots that begin together, one with the last ordered work, either may act first
    assert in_turn[:2] == [True, True] and not in_turn[-1]
    pool.order(ordered)
    assert pool.status()[0]["idle"], "work that is done is not lived again"
    pool.close()


def test_what_is_dropped_is_not_lived_and_its_episodes_under_way_end_as_cancelled(
    tmp_path: Path,
) -> None:
    pool = pool_of(tmp_path)
    pool.order(works("random", *range(10)))
    while any(slot.turn < 1 for slot in pool.collector._slots):
        pool.collector.pump()
    pool.drop()
    while not pool.status()[0]["idle"]:
        pool.collector.pump()
    pool.close()
    rows = [row for block in Catalog(tmp_path).follow() for row in block]
    endings = [row.ending for row in rows if row.is_closing]
    assert endings == ["cancelled", "cancelled"]


def test_closing_gives_the_last_t_of_every_stream_and_every_row_can_be_read(
    tmp_path: Path,
) -> None:
    pool = pool_of(tmp_path)
    pool.order(works("random", 1, 2, 3, 4))
    rows = lived(pool, 4)
    acknowledged = pool.close()
    kept = [row for block in Catalog(tmp_path).follow() for row in block]
    last = {row.stream_id: row.t for row in kept}  # rows of a stream come in the order of t
    assert acknowledged == last and len(last) == 2
    assert sum(t + 1 for t in last.values()) == len(kept) >= len(rows)


def test_a_collector_whose_engine_fails_for_good_ends_the_run_with_the_engines_error(
    tmp_path: Path,
) -> None:
    pool = pool_of(tmp_path, "collecting.slots=1")
    asked = []

    def mute(*_: object) -> list[object]:
        asked.append(1)
        raise EngineError("the server is away")

    pool.collector._desk._lanes._engine.act = mute  # type: ignore[method-assign, assignment]
    pool.push(policy(1), quota=50)
    with pytest.raises(EngineError, match="the server is away"):
        lived(pool, 50)
    assert len(asked) == 18, "six answers in a row, each asked for three times"
    pool.close()
    rows = [row for block in Catalog(tmp_path).follow() for row in block]
    failed = [row for row in rows if row.is_closing]
    assert [row.ending for row in failed[:4]] == ["engine_error"] * 4
    assert all(row.reward is None for row in failed), "a failure is no reward of zero"


@pytest.mark.parametrize("lane", ["random", "train"])
def test_a_collector_that_was_stopped_leaves_its_episodes_and_their_work_is_leased_again(
    lane: str, tmp_path: Path
) -> None:
    pool = pool_of(tmp_path)
    pool.push(policy(1), quota=2 if lane == "train" else 0)
    if lane == "random":
        pool.order(works("random", 1, 2, 3, 4))
    while any(slot.turn < 1 for slot in pool.collector._slots):
        pool.collector.pump()
    pool.collector.leases._ends_at = 0.0  # as after a silence longer than its lease
    rows: list[Step] = []

    def closed() -> list[bytes]:
        return [row.work_id for row in rows if row.is_closing and row.ending != "cancelled"]

    for block in pool.shards(until=lambda: len(closed()) >= 4):
        rows.extend(block)
    pool.close()
    assert len(closed()) == len(set(closed())) == 4
    gaps = [row for row in rows if row.boundary & Boundary.GAP]
    assert bool(gaps) == (lane == "train"), "a stream goes on after an episode without an end"
