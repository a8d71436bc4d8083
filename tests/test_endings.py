"""An episode's ending is one fact: replay, evaluator, exports and SQL agree on which episodes are
whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.collecting.work import Work
from actors.config.schema import Config, load
from actors.pool.evaluator import Evaluator
from actors.pool.local import LocalPool
from actors.reading.query import run_query
from experience.episode import Episode, ending_of
from experience.errors import EngineError
from experience.replay.replay import Replay
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.exchange import Rows, export
from experience.step import ENDINGS
from tests.alone import SMALLEST_POLICY, Alone
from tests.conftest import make_step

WORLD = "tests.endings_world:Ends-v0"
ROOT = Path(__file__).resolve().parent.parent
CRASH = """
import os, sys
from pathlib import Path
from tests.test_endings import collector, held_out, pump_until
one = collector(Path(sys.argv[1]))
one.order(held_out("crash", [0, 1, 6, 7]))
pump_until(one, lambda: min(s.turn for s in one._slots) >= 1)
one.journal.commit()
os._exit(9)
"""


def configuration() -> Config:
    return load(
        [],
        [
            f"worlds=[{{id: '{WORLD}', groups: 1, demonstrations: 0}}]",
            *SMALLEST_POLICY,
            "collecting.slots=4",
            "collecting.group_size=4",
            "collecting.step_timeout_seconds=1.5",
            "learning.max_lag=0",  # in step: all slots are equally far when a test stops them
        ],
    )[0]


def collector(shards: Path) -> Alone:
    return Alone(configuration(), shards)


def held_out(name: str, seeds: list[int]) -> list[Work]:
    return [
        Work.named(f"{name}/{seed}", env_id=WORLD, lane="random", seed=seed, split="heldout")
        for seed in seeds
    ]


def pump_until(one: Alone, over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not over():
        assert time.monotonic() < deadline
        one.pump()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four incarnations of a collector: one that ends well, one whose engine fails, one stopped
    midway, one killed."""
    shards = tmp_path_factory.mktemp("endings") / "shards"
    one = collector(shards)
    one.order(held_out("well", list(range(12))))
    one.load(None, 4)
    pump_until(one, lambda: one.is_done and one.dispatcher._next_group == 4)
    one.close()

    one = collector(shards)
    one.load(None, 9)
    act, calls = one._desk._lanes._engine.act, Counter[str]()

    def failing(*asked: object) -> object:
        calls["act"] += 1
        if calls["act"] in (2, 3, 4, 6, 7, 8):  # one answer is asked for three times
            raise EngineError("the server is away")
        return act(*asked)  # type: ignore[arg-type]

    one._desk._lanes._engine.act = failing  # type: ignore[method-assign, assignment]
    pump_until(one, lambda: one.is_done and one.dispatcher._next_group == 9)
    assert calls["act"] > 8
    one.close()

    one = collector(shards)
    one.order(held_out("stopped", [0, 1, 6, 7]))
    pump_until(one, lambda: min(s.turn for s in one._slots) >= 1)
    one.close()  # as a run does that is stopped by Ctrl-C

    killed = subprocess.run(
        [sys.executable, "-c", CRASH, str(shards)], cwd=ROOT, capture_output=True, text=True
    )
    assert killed.returncode == 9, killed.stderr
    one = collector(shards)  # whose streams go on where they were cut
    one.order(held_out("restarted", [0, 1, 6, 7]))
    pump_until(one, lambda: one.is_done)
    one.close()
    return shards


def lived(shards: Path) -> list[Episode]:
    return list(Rows(shards).episodes())


def test_every_way_to_end_was_lived(shards: Path) -> None:
    found = Counter(str(e.ending) for e in lived(shards))
    assert set(found) == {
        "terminated",
        "truncated",
        "env_error",
        "engine_error",
        "timeout",
        "cancelled",
        "None",
    }
    assert found["cancelled"] == found["None"] == 4


def test_a_whole_episode_earned_3_and_no_other_is_whole(shards: Path) -> None:
    for episode in lived(shards):
        assert episode.failed == (episode.ending not in ("terminated", "truncated"))
        if not episode.failed:
            assert (len(episode.steps), episode.total_reward) == (3, 3.0)


def test_replay_learns_from_whole_episodes_only(shards: Path) -> None:
    replay = Replay(EpisodeIndex.open(shards), group_size=4, max_lag=99)
    groups = replay.window(version=0)
    assert len(groups) >= 2
    assert {e.total_reward for g in groups for e in g.episodes} == {3.0}
    assert set(replay.recent_returns(WORLD)) == {3.0}
    pairs = {(step.stream_id, step.t) for step, _ in replay.transitions}
    whole = {
        (s.stream_id, s.t)
        for e in lived(shards)
        if not e.failed and e.first.split == "train"
        for s in e.steps
    }
    assert pairs == whole
    assert replay.dropped.cut_off == 4


def test_held_out_means_are_of_whole_episodes(shards: Path) -> None:
    replay = Replay(EpisodeIndex.open(shards), group_size=4, max_lag=99)
    evaluator = Evaluator(configuration(), object(), replay)  # type: ignore[arg-type]
    mean = evaluator.returns(WORLD, 0, "random")
    assert (mean.mean, mean.n) == (
        3.0,
        4 + 4,
    )  # of twelve seeds two ways of six are whole, and four once restarted


def test_work_that_was_stopped_midway_is_done_when_it_is_ordered_again(
    shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    index, stopped = EpisodeIndex.open(tmp_path / "shards"), held_out("stopped", [0, 1, 6, 7])
    replay = Replay(index, group_size=4, max_lag=99)
    assert not {w.work_id for w in stopped} & replay.finished
    pool = LocalPool(configuration(), "r", tmp_path / "shards", index)
    pool.order(stopped)
    for _ in pool.shards(lambda: {w.work_id for w in stopped} <= replay.finished):
        replay.refresh()
    pool.close()
    again = [
        e for e in replay.held_out(0, WORLD, "random") if e.work_id in {w.work_id for w in stopped}
    ]
    assert Counter(e.failed for e in again) == {True: 4, False: 4}


def test_sql_says_of_every_episode_what_replay_says(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_query(
        {"steps": shards},
        "select stream_id, t, turns, total_reward, ending, whole from episodes",
        as_json=True,
    )
    said = {
        (row["stream_id"], row["t"]): row
        for row in map(json.loads, capsys.readouterr().out.splitlines())
    }
    found = lived(shards)
    assert len(said) == len(found)
    for episode in found:
        row = said[episode.first.stream_id.hex(), episode.first.t]
        assert (row["turns"], row["total_reward"], row["ending"], row["whole"]) == (
            len(episode.steps),
            episode.total_reward,
            episode.ending,
            not episode.failed,
        )


def test_exports_leave_out_what_is_not_whole_and_count_it(shards: Path, tmp_path: Path) -> None:
    done = export(shards, "atif", tmp_path / "out")
    whole = [e for e in lived(shards) if not e.failed]
    assert (done.episodes, done.left_out) == (len(whole), len(lived(shards)) - len(whole))
    said = [json.loads(path.read_text())["extra"] for path in (tmp_path / "out").glob("*.json")]
    assert {s["total_reward"] for s in said} == {3.0}
    assert Counter(s["ending"] for s in said) == Counter(e.ending for e in whole)


@pytest.mark.parametrize("closing", ENDINGS)
@pytest.mark.parametrize("last", ["none", "terminated", "truncated"])
def test_the_closing_row_says_it_and_the_last_acted_row_where_that_is_silent(
    last: str, closing: str
) -> None:
    acted, end = make_step(0, ending=last), make_step(1, closing=True, ending=closing)
    assert ending_of(acted, end) == (last if closing == "none" else closing)
    assert ending_of(acted, None) is None
    assert ending_of(None, end) == closing
