"""A world that never ends is lived in segments, which go on without a reset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from actors.agents.context import Context, History
from actors.collecting.slot import Slot
from actors.collecting.work import Work
from actors.config.schema import load
from actors.engines.engine import Situation
from actors.reading.replayed import relive
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.episode import Episode, EpisodeReader
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.shards.exchange import as_plain, from_plain
from experience.step import Boundary, Step
from experience.world import SEGMENT_TURNS, WorldCard
from tests.alone import SMALLEST_POLICY, Alone
from tests.endless_world import Endless, Mill

MILL, STRANGER = "tests.endless_world:Mill-v0", "tests.endless_world:Endless-v0"
TABLE = ("policy.engine=table", "planning.enabled=false")


def lived(folder: Path, world: str, works: list[Work], *settings: str) -> list[Episode]:
    """The episodes that one slot lived in order of their rows."""
    told = f"worlds=[{{id: '{world}', groups: 1, demonstrations: 0{settings[0]}}}]"
    one = Alone(
        load([], [told, *SMALLEST_POLICY, *TABLE, "collecting.slots=1", *settings[1:]])[0], folder
    )
    one.order(works)
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    reader = EpisodeReader()
    return [e for block in Catalog(folder).follow() for s in block for e in reader.take(s)]


def works(world: str, lanes: str) -> list[Work]:
    """One piece of work a letter: t for training, e for evaluation."""
    return [
        Work.named(
            f"{n}",
            env_id=world,
            lane="train" if lane == "t" else "random",
            seed=n,
            split="train" if lane == "t" else "heldout",
        )
        for n, lane in enumerate(lanes)
    ]


def seen(episode: Episode) -> list[str]:
    return [step.obs_text for step in episode.rows]


def test_segments_of_an_endless_world_go_on_without_a_reset(tmp_path: Path) -> None:
    one, two, three = lived(tmp_path, STRANGER, works(STRANGER, "ttt"), ", segment_turns: 3")
    assert seen(one) == ["turn 0", "turn 1", "turn 2", "turn 3"]
    assert seen(two) == ["turn 3", "turn 4", "turn 5", "turn 6"]
    assert seen(three)[-1] == "turn 9"
    assert [e.first.boundary for e in (one, two, three)] == [
        Boundary.RESET,
        Boundary.CONTINUES,
        Boundary.CONTINUES,
    ]
    for episode in (one, two, three):
        assert episode.ending == "truncated" and episode.closing is not None
        assert episode.closing.boundary & Boundary.TRUNCATED
        assert episode.steps[-1].discount == 1.0, "the learner bootstraps from the closing row"
        assert episode.total_reward == 3.0
    rows = [s for e in (one, two, three) for s in e.rows]
    assert [s.t for s in rows] == list(range(12))
    assert [from_plain(as_plain(s)).boundary for s in rows] == [s.boundary for s in rows]


def test_an_evaluation_in_between_has_a_world_of_its_own(tmp_path: Path) -> None:
    episodes = lived(tmp_path, STRANGER, works(STRANGER, "tetet"), ", segment_turns: 2")
    assert [seen(e)[0] for e in episodes] == ["turn 0", "turn 0", "turn 2", "turn 0", "turn 4"]
    resets = [bool(e.first.boundary & Boundary.RESET) for e in episodes]
    assert resets == [True, True, False, True, False]


def test_after_a_failure_an_endless_world_begins_anew_and_says_so(tmp_path: Path) -> None:
    arguments = ", segment_turns: 2, arguments: {breaks_at: 4}"
    episodes = lived(tmp_path, STRANGER, works(STRANGER, "tttt"), arguments)
    assert [e.ending for e in episodes] == ["truncated", "env_error", "truncated", "env_error"]
    assert [seen(e)[0] for e in episodes] == ["turn 0", "turn 2", "turn 0", "turn 2"]
    resets = [bool(e.first.boundary & Boundary.RESET) for e in episodes]
    assert resets == [True, False, True, False]


def test_a_world_without_a_limit_says_how_long_its_segments_are(tmp_path: Path) -> None:
    assert WorldCard.of(Mill()).segment_turns == 8
    assert WorldCard.of(Endless()).segment_turns == 0, "a stranger's ends by itself, or is told"

    class Unsaid(Mill):
        segment_turns = 0

    assert WorldCard.of(Unsaid()).segment_turns == SEGMENT_TURNS
    world = Mill()
    world.reset(seed=0)
    for _ in range(1000):
        assert not world.step("turn")[3]
    assert len(vars(world)["_acted"]) == 0, "an endless world keeps no list of its actions"
    one, two = lived(tmp_path, MILL, works(MILL, "tt"), "")
    assert (len(one.steps), len(two.steps)) == (8, 8) and seen(two)[0] == seen(one)[-1]


def test_an_agent_remembers_an_endless_world_over_its_segments_and_what_came_between() -> None:
    engine: Any = None  # no tokens are counted in this history
    slot = Slot(b"s" * 16, context=Context(History("last", 3)))
    slot.work, slot.segment_turns = works(STRANGER, "t")[0], 3
    slot.observe("turn 0", {})
    slot.context.begin()
    slot.context.acted("turn 0", Decision("on", policy_version=0))
    slot.last_t = 7
    slot.stand()
    slot.work, slot.last_t = works(STRANGER, "e")[0], 9
    slot.context.begin()
    slot.context.acted("another", Decision("off", policy_version=0))
    slot.work = works(STRANGER, "t")[0]
    assert slot.resume() and slot.last_t == 7
    read = slot.context.situation(Situation("turn 1"), engine)
    assert [(one.observation, one.answer) for one in read.earlier] == [("turn 0", "on")]


def test_a_segment_that_goes_on_is_not_lived_again_by_a_reset(tmp_path: Path) -> None:
    _, two = lived(tmp_path, STRANGER, works(STRANGER, "tt"), ", segment_turns: 2")
    model = RewardModel({STRANGER: {"env_reward": 1.0}})
    assert "a reset does not lead there" in relive(two.rows, Endless(), model)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """The rows of a run of the table engine in the mill."""
    config, origins = load(
        [],
        [
            f"worlds=[{{id: '{MILL}', groups: 2, demonstrations: 0}}]",
            *TABLE,
            "collecting.slots=12",
            "collecting.group_size=2",
            "collecting.discount=0.9",
            "learning.step_size=0.5",
            "policy.epsilon=0.3",
            "budget.updates=100",
            "evaluation.episodes=0",
            "evaluation.final_episodes=8",
            f"runs_dir={tmp_path_factory.mktemp('runs')}",
        ],
    )
    directory = RunDirectory.create(config, origins, ["test"])
    run(config, directory)
    return [step for block in Catalog(directory.shards).follow() for step in block]


def test_a_table_learns_in_a_world_that_never_ends(learned: list[Step]) -> None:
    reader = EpisodeReader()
    episodes = [e for step in learned for e in reader.take(step)]
    held_out = [e for e in episodes if e.first.split == "heldout" and e.steps]
    greedy = [e for e in held_out if e.first.decision and e.first.decision.behaviour_id == "table"]
    last = max(e.first.decision.policy_version for e in greedy if e.first.decision)
    by_version = {
        v: [e.total_reward or 0.0 for e in greedy if e.first.decision.policy_version == v]  # type: ignore[union-attr]
        for v in (0, last)
    }
    assert last >= 30 and len(by_version[last]) >= 4
    # from place p of a wheel of n, the best of eight turns is 8 - (-p % n)
    starts = [e.first.obs_text.split() for e in greedy][-len(by_version[last]) :]
    best = [8.0 - (-int(place) % int(size)) for _, place, _, size in starts]
    assert by_version[last] == best and sum(best) > sum(by_version[0])


def test_training_in_a_run_resets_an_endless_world_once_a_slot(learned: list[Step]) -> None:
    training = [s for s in learned if s.is_training and s.step_in_episode == 0]
    resets = [s for s in training if s.boundary & Boundary.RESET]
    assert len(training) > 100
    assert len(resets) == len({s.stream_id for s in training})
