"""Replay: what a learner sees, what it never sees, and what is counted when left out."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from experience.errors import ShardError
from experience.step import Boundary, Step
from tests.conftest import make_step
from tests.stored import StoredReplay


def episode(
    group: str,
    reward: float | None = 1.0,
    *,
    turns: int = 2,
    ending: str = "terminated",
    **changes: object,
) -> list[Step]:
    stream = uuid.uuid4().bytes
    failed = ending in ("env_error", "timeout")
    rows = [
        make_step(
            t,
            stream,
            group_id=group,
            reward=None if t == turns - 1 and failed else reward if t == turns - 1 else 0.0,
            ending=ending if t == turns - 1 else "none",
            step_in_episode=t,
            work_id=stream,
            **changes,
        )
        for t in range(turns)
    ]
    return [
        *rows,
        make_step(
            turns, stream, closing=True, group_id=group, ending=ending, work_id=stream, **changes
        ),
    ]


def test_a_group_is_given_out_once_it_is_whole(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=2, max_lag=0)
    replay.add(episode("g"))
    assert replay.ready_groups == 0
    replay.add(episode("g"))
    assert [g.group_id for g in replay.window(version=3)] == ["g"]
    assert replay.window(version=3) == []


def test_held_out_experience_is_never_learned_from(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=2, max_lag=9)
    for _ in range(4):
        replay.add(episode("g", split="heldout"))
    assert replay.ready_groups == 0
    assert len(replay.transitions) == 0
    assert len(replay.held_out(version=3)) == 4
    with pytest.raises(ShardError):
        replay.sample_steps(1)


def test_sources_do_not_mix_unless_asked(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=2, max_lag=9)
    replay.add(episode("g", source="demonstration"))
    with pytest.raises(ShardError):
        replay.sample_steps(1)
    assert {s.source for s in replay.sample_steps(5, ("demonstration",))} == {"demonstration"}


def test_experience_that_is_too_old_is_counted_and_left_out(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=2, max_lag=1)
    replay.add([*episode("g"), *episode("g")])  # lived by version 3
    assert replay.window(version=5) == []
    assert replay.dropped.stale == 2


def test_a_failure_of_the_world_leaves_its_group_and_is_counted(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=3, max_lag=9)
    replay.add([*episode("g"), *episode("g", 0.0), *episode("g", ending="env_error")])
    (group,) = replay.window(version=3)
    assert len(group.episodes) == 2
    assert replay.dropped.failed == 1


def test_an_unknown_reward_is_left_out_and_counted_not_taken_as_zero(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=3, max_lag=9)
    replay.add([*episode("g"), *episode("g", 0.0), *episode("g", None)])
    (group,) = replay.window(version=3)
    assert sorted(e.total_reward or 0.0 for e in group.episodes) == [0.0, 1.0]
    assert replay.dropped.unknown_reward == 1


def test_a_world_that_could_not_start_still_completes_its_group(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=3, max_lag=9)
    stream = uuid.uuid4().bytes
    replay.add(
        [
            *episode("g"),
            *episode("g"),
            make_step(0, stream, closing=True, group_id="g", ending="env_error"),
        ]
    )
    assert replay.ready_groups == 1


def test_an_episode_cut_off_by_a_crash_has_no_return(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=1, max_lag=9)
    rows = episode("g", turns=3)
    restart = make_step(
        2, rows[0].stream_id, boundary=Boundary.WORKER_RESTART | Boundary.RESET, group_id="h"
    )
    replay.add([*rows[:2], restart])
    assert replay.ready_groups == 0
    assert replay.dropped.cut_off == 1


def test_windows_never_leave_their_episode(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, group_size=2, max_lag=9)
    replay.add([*episode("g", turns=4), *episode("g", turns=2)])
    for window in replay.windows(50, 3):
        assert len({s.stream_id for s in window}) == 1
        assert [s.t for s in window] == list(range(window[0].t, window[0].t + 3))
