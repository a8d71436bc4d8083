"""What a world measures late becomes an amendment, and the learner learns from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from actors.collecting.hosts.ledger import Ledger
from actors.collecting.work import Work
from actors.config.schema import load
from actors.reading.query import connect
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.episode import EpisodeReader
from experience.errors import EnvironmentFailure
from experience.replay.late import LateSignals
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend, amendments, follow_amended
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from experience.step import Step
from tests.alone import SMALLEST_POLICY, Alone
from tests.late_world import GOOD, Shop
from tests.stored import StoredReplay

WORLD = "tests.late_world:Shop-v0"
REWARDS = RewardModel({WORLD: dict(Shop.reward_weights)})
TABLE = ("policy.engine=table", "planning.enabled=false")


def lived(folder: Path, arguments: str, episodes: int = 3) -> list[Step]:
    """The rows of one slot, which trains: episodes 0 and 1 are a group, then 2 and 3, and so on."""
    told = f"worlds=[{{id: '{WORLD}', groups: 1, demonstrations: 0, arguments: {arguments}}}]"
    one = Alone(load([], [told, *SMALLEST_POLICY, *TABLE, "collecting.slots=1"])[0], folder)
    one.order(
        [
            Work.named(f"{n}", env_id=WORLD, lane="train", seed=n, group_id=f"g{n // 2}")
            for n in range(episodes)
        ]
    )
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    return [step for block in Catalog(folder).follow() for step in block]


def replayed(store: Path, rows: list[Step], batch: int = 1) -> tuple[Replay, LateSignals]:
    """The rows as a run takes them."""
    index = EpisodeIndex.open(store, REWARDS)
    late, replay = LateSignals(index, Shop.signal_catalogue), Replay(index, 2, 5)
    for start in range(0, len(rows), batch):
        replay.amend(late.take(rows[start : start + batch]))
    return replay, late


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_a_late_signal_makes_the_reward_known_whenever_the_rows_come(
    batch: int, tmp_path: Path
) -> None:
    rows = lived(tmp_path, "{delay: 1}")
    acted = [s for s in rows if s.decision]
    assert all(s.reward is None and s.is_awaited for s in acted), "not known when it was collected"
    replay, _ = replayed(tmp_path, rows, batch)
    found = [s for e in replay.episodes["real"] for s in e.steps]
    expected = [float(GOOD[s.obs_text] == s.decision.text) for s in found if s.decision]
    assert [s.reward for s in found] == [*expected[:-1], None], "nobody paid the last order"
    assert found[0].signals[-1].evidence == "bill 1"
    assert [row.reward for row, _ in replay.transitions] == [s.reward for s in found]


def test_a_group_waits_for_its_late_signals_and_is_learned_from_once(tmp_path: Path) -> None:
    rows = lived(tmp_path, "{delay: 2}", episodes=4)
    first = [s for s in rows if s.episode < 2]
    store = tmp_path / "again"
    store.mkdir()
    replay = StoredReplay(store, 2, 5, catalogue=Shop.signal_catalogue, reward=REWARDS)
    late = LateSignals(replay.index, Shop.signal_catalogue)

    def take(block: list[Step]) -> None:
        replay.add(block)
        replay.amend(late.take(block))

    take(first)
    assert replay.ready_groups == 1 and replay.window(0) == []
    assert replay.consumed == [("g0", False)], "the round counts, so that collecting goes on"
    saved = replay.save()
    take([s for s in rows if s.episode == 2])
    (group,) = replay.window(0)
    assert group.group_id == "g0" and all(e.total_reward is not None for e in group.episodes)
    assert replay.consumed == [("g0", True)]
    assert replay.dropped.unknown_reward == 0 and replay.dropped.late == 0
    # a run that went down between the two finds the group again
    again, _ = replayed(store, [s for s in rows if s.episode <= 2])
    again.restore(saved)
    assert [g.group_id for g in again.window(0)] == ["g0"]
    # what is never paid is given up when it is too old
    take([s for s in rows if s.episode == 3])
    assert replay.window(0) == [] and replay.window(99) == []
    assert replay.dropped.stale == 2


def test_a_signal_that_comes_after_its_group_was_learned_from_is_counted(tmp_path: Path) -> None:
    rows = lived(tmp_path, "{delay: 1}", episodes=3)
    replay, late = replayed(tmp_path, rows)
    assert len(replay.window(0)) == 1
    t = rows[0].t
    amend(tmp_path, [Amendment(rows[0].stream_id, t, "earned", 100.0, source="env_state")])
    replay.index.refresh()
    replay.amend(late.take([]))
    assert replay.dropped.late == 1
    assert replay.episodes["real"][0].steps[0].reward == 100.0


def test_queries_show_late_signals_and_rewards_and_a_second_reading_adds_nothing(
    tmp_path: Path,
) -> None:
    rows = lived(tmp_path, "{delay: 1}")
    replay, late = replayed(tmp_path, rows)
    late.write()
    kept = amendments(tmp_path).num_rows
    assert kept == 10, "five of six orders were paid: a signal and a reward each"
    found = connect({"steps": tmp_path}).sql(
        'select "signal.earned", reward, reward_version from steps '
        "where action_text is not null order by t"
    )
    expected = [s.reward for e in replay.episodes["real"] for s in e.steps]
    assert [row[0] for row in found.fetchall()] == expected
    assert [s.reward for b in follow_amended(tmp_path, None) for s in b if s.decision] == expected
    _, again = replayed(tmp_path, rows)
    again.write()
    assert amendments(tmp_path).num_rows == kept


def test_an_amendment_from_elsewhere_reaches_the_learner(tmp_path: Path) -> None:
    rows = lived(tmp_path, "{delay: 9}")
    replay, late = replayed(tmp_path, rows)
    stream = rows[0].stream_id
    amend(tmp_path, [Amendment(stream, rows[0].t, "earned", 7.0, source="env_state")])
    replay.index.refresh()
    replay.amend(late.take([]))
    assert replay.episodes["real"][0].steps[0].reward == 7.0
    replay.index.refresh()
    assert late.take([]) == set(), "each file is read once"
    later, _ = replayed(tmp_path, rows)
    assert later.episodes["real"][0].steps[0].reward == 7.0, "a run that starts afterwards, too"


def test_a_step_may_be_named_by_its_number_since_the_reset(tmp_path: Path) -> None:
    replay, _ = replayed(tmp_path, lived(tmp_path, "{how: by number}"))
    assert [s.reward for e in replay.episodes["real"] for s in e.steps] == [5.0] * 6


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("unknown tag", "names the step 'order 77', and no step had that tag"),
        ("unknown signal", "'won' is not in the environment's"),
        ("no mapping", "late signals are {tag or number of the step"),
        ("a number too far", "names step 9; since its reset the world took 1 steps"),
    ],
)
def test_a_late_signal_that_names_nothing_ends_the_episode_and_says_why(
    how: str, says: str, tmp_path: Path
) -> None:
    first = lived(tmp_path, f"{{how: {how}}}", episodes=1)[0]
    assert first.ending == "env_error" and says in first.info["error"]


def test_a_ledger_keeps_the_newest_steps_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.collecting.hosts.ledger._MOST_STEPS", 3)
    monkeypatch.setattr("actors.collecting.hosts.ledger._MOST_TAGS", 2)
    ledger = Ledger()
    for t in range(10, 20):
        ledger.note(t, f"tag {t % 5}")
    assert ledger.row("w", 9) == 19 and ledger.row("w", "tag 4") == 19
    for gone in (0, "tag 2", 10):
        with pytest.raises(EnvironmentFailure):
            ledger.row("w", gone)
    ledger.begin()
    assert ledger.row("w", "tag 4") == 19, "a tag outlives a reset"


def test_a_table_learns_from_a_world_that_pays_late(tmp_path: Path) -> None:
    config, origins = load(
        [],
        [
            f"worlds=[{{id: '{WORLD}', groups: 2, demonstrations: 0, arguments: {{delay: 3}}}}]",
            *TABLE,
            "collecting.slots=4",
            "collecting.group_size=2",
            "learning.step_size=0.5",
            "learning.max_lag=4",
            "policy.epsilon=0.3",
            "budget.updates=20",
            "evaluation.episodes=0",
            "evaluation.final_episodes=8",
            f"runs_dir={tmp_path}",
        ],
    )
    directory = RunDirectory.create(config, origins, ["test"])
    progress = run(config, directory)
    found: dict[int, list[Any]] = {}
    reader = EpisodeReader()
    steps = [s for block in Catalog(directory.shards).follow() for s in block]
    for episode in (e for s in steps for e in reader.take(s)):
        for step in episode.steps:
            if step.split == "heldout" and step.decision and step.decision.behaviour_id == "table":
                right = step.decision.text == GOOD[step.obs_text]
                found.setdefault(step.decision.policy_version, []).append(right)
    assert max(found) >= 15, progress.dropped
    assert all(found[max(found)]) and not all(found[0])
