"""Worlds with several agents: each is a stream of its own, in one episode."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from actors.collecting.dispatcher import Dispatcher, Report
from actors.collecting.hosts.described import describe_worlds
from actors.collecting.work import Done, Lane, Work, done_before
from actors.config.schema import Config, load
from experience.errors import ConfigError, EnvironmentFailure
from experience.replay.replay import Replay
from experience.several.agents import Agents, together
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.journal import Journal
from experience.step import OTHERS, WORLD_STEP, Step
from tests.alone import SMALLEST_POLICY, Alone
from tests.conftest import CATALOGUE, make_step

NIM = "envs:Nim-v0"
AT_ONCE = "tests.at_once_world:AtOnce-v0"
ROOT = Path(__file__).resolve().parent.parent


def configuration(world: str, arguments: str = "{}", *more: str) -> Config:
    words = [
        f"worlds=[{{id: '{world}', groups: 1, demonstrations: 0, arguments: {arguments}}}]",
        *SMALLEST_POLICY,
        "collecting.slots=2",
        "collecting.group_size=2",
        *more,
    ]
    return load([], words)[0]


def works(world: str, lane: Lane, count: int, split: str = "train", group: str = "") -> list[Work]:
    return [
        Work.named(f"{lane}/{n}", env_id=world, seed=n, lane=lane, split=split, group_id=group)
        for n in range(count)
    ]


def lived(folder: Path, config: Config, ordered: list[Work]) -> list[Step]:
    one = Alone(config, folder)
    one.order(ordered)
    deadline = time.monotonic() + 60
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    return rows_of(folder)


def rows_of(folder: Path) -> list[Step]:
    return [row for block in Catalog(folder).follow() for row in block]


def by_agent(rows: list[Step]) -> dict[bytes, dict[str, list[Step]]]:
    """Work -> agent -> its rows."""
    found: dict[bytes, dict[str, list[Step]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row.work_id][row.agent_id].append(row)
    return found


def test_two_players_who_take_turns_are_two_streams_of_one_work(tmp_path: Path) -> None:
    found = by_agent(lived(tmp_path, configuration(NIM), works(NIM, "random", 6)))
    assert len(found) == 6
    for episode in found.values():
        first, second = episode["first"], episode["second"]
        assert first[0].stream_id != second[0].stream_id
        assert {len({row.stream_id for row in rows}) for rows in episode.values()} == {1}
        assert first[-1].is_closing and second[-1].is_closing
        turns = sorted(row.info[WORLD_STEP] for row in [*first, *second] if not row.is_closing)
        assert turns == list(range(len(turns))), "the order of turns is kept, across both streams"
        totals = [sum(row.reward or 0 for row in rows) for rows in (first, second)]
        assert sorted(totals) == [-1, 1], "the loser's last action is what lost"
        assert {row.ending for row in (first[-1], second[-1])} == {"terminated"}


def test_agents_that_act_at_once_share_the_worlds_step_and_end_by_themselves(
    tmp_path: Path,
) -> None:
    rows = lived(tmp_path, configuration(AT_ONCE), works(AT_ONCE, "random", 2))
    for episode in by_agent(rows).values():
        steps = {a: [r.info[WORLD_STEP] for r in rows[:-1]] for a, rows in episode.items()}
        assert steps == {"left": [0, 1, 2], "right": [0, 1, 2], "quitter": [0]}
        assert [row.ending for row in episode["quitter"]] == ["terminated", "terminated"]
        left_last = episode["left"][-1]
        assert episode["quitter"][-1].t_end_ns >= episode["left"][-2].t_end_ns
        assert left_last.obs_text == "round 3"


def test_what_is_measured_while_an_agent_waits_belongs_to_its_last_action() -> None:
    agents = Agents("w", ("a", "b"))
    agents.reset(({"a": "go"}, {}))
    (told,) = agents.step(
        ({"b": "go"}, {"a": 1.0}, {}, {}, {"a": {"signals": {"x": (1.0, "moved")}}})
    )
    assert told.agent == "b" and told.is_asked and told.answer[1] == 0.0
    told_a, _ = agents.step(
        (
            {},
            {"a": -3.0},
            {"a": True, "b": True},
            {},
            {"a": {"signals": {"x": (2.0, "was hit"), "y": None}}},
        )
    )
    assert told_a.answer[1:4] == (-2.0, True, False)
    assert told_a.answer[4]["signals"] == {"x": (3.0, "moved; was hit"), "y": None}
    assert together(1.0, None) is None


def test_a_world_that_asks_nobody_and_has_not_ended_is_a_failure_that_names_who_waits() -> None:
    agents = Agents("w", ("a", "b"))
    agents.reset(({"a": "go"}, {}))
    with pytest.raises(EnvironmentFailure, match="a, b has not ended"):
        agents.step(({}, {}, {}, {}, {}))
    with pytest.raises(EnvironmentFailure, match="mappings by agent, of a, b"):
        agents.reset(({"c": "go"}, {}))


def test_rows_of_who_the_policy_does_not_play_are_kept_and_never_learned_from(
    tmp_path: Path,
) -> None:
    config = configuration(NIM, "{others: random}", "policy.engine=table")
    rows = lived(tmp_path, config, works(NIM, "train", 4, group="0-7"))
    theirs = [row for row in rows if row.split == OTHERS]
    ours = [row for row in rows if row.split == "train"]
    assert {row.decision.behaviour_id for row in theirs if row.decision} == {"random"}
    assert {row.group_id for row in theirs} == {""}
    assert {row.group_id for row in ours} <= {"0-7/first", "0-7/second"}
    assert not any(row.is_training for row in theirs)
    replay = Replay(EpisodeIndex.open(tmp_path), 2, 9, takes_work_once=True)
    assert len(replay.episodes["real"]) == 4 and replay.dropped.lived_twice == 0
    assert replay.held_out(0, behaviour="random") == [], "nor measured, as a baseline is"
    assert len(replay.finished) == 4


def test_self_play_gives_a_group_for_each_role_and_the_quota_counts_them(tmp_path: Path) -> None:
    config = configuration(NIM, "{}", "policy.engine=table")
    lived(tmp_path, config, works(NIM, "train", 2, group="0-0"))
    replay = Replay(EpisodeIndex.open(tmp_path), 2, 9, takes_work_once=True)
    assert [group.group_id for group in replay.window(0)] == ["0-0/first", "0-0/second"]
    assert done_before(tmp_path, 2).whole_groups == 2
    assert done_before(tmp_path, 2).next_group == 1
    one = Dispatcher(config, Done())
    one.publish(0, 4, "policy")
    leased = one.renew(Report("c", 99, roles={NIM: 2})).works
    assert len(leased) == 4, "two groups of two episodes, of which four groups are learned from"


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ("{nobody: random}", "'nobody' is no agent of it; there are first, second"),
        ("{first: random, second: random}", "the policy plays nobody"),
        ("3", "3 names nobody"),
        ("no-such-run", "no-such-run"),
        ("{first: {engine: small, width: -1}}", "width"),
    ],
)
def test_who_cannot_play_is_said_at_the_start(tmp_path: Path, others: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Alone(configuration(NIM, f"{{others: {others}}}"), tmp_path)


def test_planning_by_trying_actions_excludes_several_agents() -> None:
    config = configuration(NIM, "{}", "planning.lookahead.candidates=2")
    with pytest.raises(ConfigError, match="several agents exclude each other"):
        describe_worlds(config)


def test_an_engine_of_its_own_plays_an_agent_and_is_named_in_its_rows(tmp_path: Path) -> None:
    arguments = "{others: {first: {engine: small, width: 32}}}"
    config = configuration(NIM, arguments, "policy.engine=table")
    rows = lived(tmp_path, config, works(NIM, "train", 2))
    theirs = {r.decision.behaviour_id for r in rows if r.agent_id == "first" and r.decision}
    assert len(theirs) == 1 and '"width":32' in theirs.pop().replace(" ", "")
    assert {row.split for row in rows if row.agent_id == "first"} == {OTHERS}


@pytest.mark.parametrize(
    "settings",
    ["{game: classic.tictactoe_v3}", "{game: classic.rps_v2, parallel: true, max_turns: 5}"],
)
def test_games_of_pettingzoo_are_lived_in_turns_and_at_once(tmp_path: Path, settings: str) -> None:
    pytest.importorskip("pettingzoo", reason="./xp setup worlds")
    world = "envs:Players-v0"
    found = by_agent(lived(tmp_path, configuration(world, settings), works(world, "random", 3)))
    for episode in found.values():
        assert len(episode) == 2
        totals = [sum(row.reward or 0 for row in rows) for rows in episode.values()]
        assert sum(totals) == 0, "both games are of winning and losing"
        assert all(rows[-1].is_closing for rows in episode.values())


def test_one_seat_of_several_is_an_environment_like_any_other() -> None:
    from gymnasium.utils.env_checker import check_env

    from envs.several.seated import from_one_seat

    world = from_one_seat(gymnasium.make(NIM).unwrapped)
    check_env(world, skip_render_check=True)
    world.reset(seed=1)
    total, ended = 0.0, False
    while not ended:
        _, reward, ended, _, _ = world.step(world.oracle_action())
        total += reward
    assert total == 1.0


def run_on(folder: str) -> None:
    """What `test_a_kill…` runs in a process of its own: episodes without an end."""
    config = configuration(NIM, "{}", "collecting.slots=8", "collecting.commit_seconds=0.001")
    one = Alone(config, Path(folder))
    one.order(works(NIM, "random", 20_000))
    while one.closed < 4:
        one.pump()
    print("ready", flush=True)
    while True:
        one.pump()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_kill_amid_an_episode_of_two_ends_it_for_both_or_for_none(
    tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    program = "import sys; from tests.test_several_agents import run_on; run_on(sys.argv[1])"
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.1 + rng.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    rows = rows_of(tmp_path)
    replay = Replay(EpisodeIndex.open(tmp_path), 2, 9, takes_work_once=True)
    closed: dict[bytes, set[str]] = defaultdict(set)
    for row in rows:
        if row.is_closing:
            closed[row.work_id].add(row.agent_id)
    assert closed and all(agents == {"first", "second"} for agents in closed.values())
    taken: dict[bytes, list[Any]] = defaultdict(list)
    for episode in replay.episodes["real"]:
        taken[episode.first.work_id].append(episode)
    assert all(len(episodes) == 2 for episodes in taken.values()), "each work once, for both"
    for episodes in taken.values():
        steps = sorted(s.info[WORLD_STEP] for e in episodes for s in e.steps)
        assert steps == list(range(len(steps))), "a whole episode, of one life"
    assert replay.dropped.cut_off, "a kill has cut episodes off"


def test_the_guides_world_is_checked_and_lived_as_it_stands_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from envs.check import check

    page = (ROOT / "docs/add-an-environment.md").read_text()
    (source,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "SharedWorld" in b)
    assert len(source.splitlines()) <= 45
    (tmp_path / "match_pennies.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    world = "match_pennies:MatchPennies-v0"
    found = {result.id: result for result in check(world, episodes=2)}
    assert [f"{r.id}: {r.detail}" for r in found.values() if r.outcome == "FAIL"] == []
    assert found["agents_take_their_turns"].outcome == "PASS"
    rows = lived(tmp_path / "shards", configuration(world), works(world, "random", 3))
    for episode in by_agent(rows).values():
        even, odd = (episode[agent][:-1] for agent in ("even", "odd"))
        assert [r.info[WORLD_STEP] for r in even] == [r.info[WORLD_STEP] for r in odd]
        assert all((a.reward or 0) + (b.reward or 0) == 0 for a, b in zip(even, odd, strict=True))


def test_closing_rows_appended_together_are_on_disk_together_or_not_at_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE, durability="sync")
    journal.append(make_step(0), with_next=True)
    assert rows_of(tmp_path) == [] and not journal.acknowledged
    journal.append(make_step(1))
    assert [row.t for row in rows_of(tmp_path)] == [0, 1]
    journal.close()
