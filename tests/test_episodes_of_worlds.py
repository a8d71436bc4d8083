"""Episodes of simple actors, the grid's oracle, and what the checks read in an episode."""

from __future__ import annotations

import signal
import time
from collections import deque
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from envs.check.card import data_sheet
from envs.check.learning import _lived
from envs.check.mutants import MUTANTS
from envs.check.runner import Result
from envs.check.subject import Failed, Subject, long_words
from envs.check.worth import _short_answers_stand_by_chance, _takes_no_text
from envs.contract import INVALID, World, is_held_out
from envs.episode import (
    Episode,
    answering,
    difference,
    do_nothing,
    do_oracle,
    do_random,
    live,
    measure,
    replay,
    scripted,
)
from envs.small.grid import MOVES, Grid, KeyDoor
from experience.errors import EnvironmentFailure
from experience.signal import SignalKind


def turns_needed(world: KeyDoor) -> int:
    """The least number of turns from the reset to the end, by search over all states."""
    task = world.task
    start = (task.start, 0, False)
    queue = deque([(start, 0)])
    met = {start}
    while queue:
        (at, stage, held), turns = queue.popleft()
        if stage == world.stages:
            return turns
        for move in MOVES:
            world.at, world.stage, world.has_key = at, stage, held
            world.act(move)
            state = (world.at, world.stage, world.has_key)
            if state not in met:
                met.add(state)
                queue.append((state, turns + 1))
    raise AssertionError("no way leads through all doors")


@pytest.mark.parametrize(("size", "stages"), [(2, 1), (3, 2), (5, 1), (5, 3)])
def test_the_grids_oracle_takes_a_shortest_way(size: int, stages: int) -> None:
    world = KeyDoor(size, stages)
    for seed in range(20):
        episode = live(world, seed, do_oracle)
        assert episode.terminated
        world.reset(seed=seed)
        # Each stage starts at the last one's door, so shortest stages add up to a shortest whole.
        assert len(episode.actions) == turns_needed(world), seed


def test_a_door_without_its_key_is_a_wall_and_costs_a_turn() -> None:
    world = KeyDoor(3)
    world.reset(seed=0)
    world.task = Grid((0, 0), ((2, 2),), ((0, 1),))
    world.begin()
    signals, ended = world.act("right")
    assert (signals, ended, world.at) == ({"solved": 0.0, "key": 0.0, "door": 0.0}, False, (0, 0))
    assert world.oracle_action() == "down", "the way to the key goes round the door"


@pytest.mark.parametrize(("size", "stages"), [(1, 1), (10, 1), (2, 2), (5, 0)])
def test_a_grid_without_room_for_its_keys_is_refused(size: int, stages: int) -> None:
    with pytest.raises(ValueError, match="room for every key and door"):
        KeyDoor(size, stages)


def test_a_fifth_of_tasks_is_held_out() -> None:
    share = np.mean([is_held_out(f"task {n}") for n in range(5000)])
    assert 0.18 < share < 0.22


def test_a_script_is_acted_in_order_and_its_last_action_repeated() -> None:
    world = KeyDoor(5)
    episode = live(world, 0, scripted(["up", "left"]), most=4)
    assert episode.actions == ["up", "left", "left", "left"]
    assert len(episode.seen) == 5


def test_a_log_is_repeated_to_the_same_transcript() -> None:
    world = KeyDoor(4)
    episode = live(world, 3, do_random)
    log = {"seed": 3, "split": "train", "actions": episode.actions}
    assert difference(episode.transcript, replay(world, log).transcript) == ""


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"seen": ["a", "b"]}, {"seen": ["a", "b"]}, ""),
        ({"seen": ["a", "b"]}, {"seen": ["a", "c"]}, "seen 1: …b… and then …c…"),
        ({"seen": ["a", "b"]}, {"seen": ["a"]}, "seen 1: …b… and then …nothing…"),
        ({"seen": ["x" * 50 + "1"]}, {"seen": ["x" * 50 + "2"]}, "x1… and then …"),
    ],
)
def test_a_difference_names_its_turn(
    one: dict[str, list[str]], other: dict[str, list[str]], said: str
) -> None:
    found = difference(one, other)
    assert (said in found) if said else found == ""


def test_a_deadline_leaves_the_signals_handler_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(EnvironmentFailure, match="step did not answer"), answering("step", 0.1):
        time.sleep(5)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_world_is_measured_for_some_time_and_at_least_three_steps() -> None:
    found = measure(KeyDoor(3), 0.05)
    assert set(found) == {
        "step_p50_ms",
        "step_p99_ms",
        "resets_per_second",
        "cpu_ms_per_step",
        "memory_mib",
    }
    assert 0 < found["step_p50_ms"] <= found["step_p99_ms"]
    assert found["memory_mib"] > 10


class Cut(World[int]):
    """Ends by itself after two turns, as a stranger's time limit does."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {"n": SignalKind("count", "env_state")}
    reward_weights: ClassVar[dict[str, float]] = {"n": 1.0}
    max_turns = 9

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(100))

    def begin(self) -> None:
        self.count = 0

    def observe(self) -> str:
        return f"{self.count} é"

    def act(self, action: str) -> tuple[dict[str, Any], bool]:
        self.count += 1
        self.cut_off = self.count == 2
        return {"n": None if self.count == 1 else 1.0}, False


def test_a_cut_off_truncates_and_an_unknown_signal_is_no_zero() -> None:
    world = Cut()
    seen, _ = world.reset(seed=0)
    assert seen == "0 é", "letters of any script are shown"
    _, reward, terminated, truncated, _ = world.step("x")
    assert np.isnan(reward) and not terminated and not truncated
    _, reward, terminated, truncated, _ = world.step("x")
    assert (reward, terminated, truncated) == (1.0, False, True)
    with pytest.raises(RuntimeError, match="call reset"):
        world.step("x")
    for offered in (world.snapshot, lambda: world.restore(b"")):
        with pytest.raises(NotImplementedError, match="no snapshots"):
            offered()
    with pytest.raises(NotImplementedError, match="needs an oracle_action"):
        world.oracle_action()
    with pytest.raises(ValueError, match="Cut has train and heldout"):
        world.reset(seed=0, options={"split": "test"})


def test_a_broken_reward_is_what_its_name_says() -> None:
    weights = {"solved": 1.0, INVALID: -0.1}
    assert MUTANTS["pays nothing"](weights) == {"solved": 0.0, INVALID: 0.0}
    assert MUTANTS["pays the opposite"](weights) == {"solved": -1.0, INVALID: 0.1}
    assert MUTANTS["pays for nonsense"](weights) == {"solved": 1.0, INVALID: 5.0}
    assert MUTANTS["forgets what pays most"](weights) == {"solved": 0.0, INVALID: -0.1}
    assert weights == {"solved": 1.0, INVALID: -0.1}


def test_copies_of_a_task_under_other_names_are_the_same_once_nonces_are_gone() -> None:
    first = Episode(0, "train", ["open #a1"], ["file 3f2c9a1b7d", "shut"], [1.0])
    second = Episode(1, "heldout", ["open #b7"], ["file 77aa01ff3e", "shut"], [1.0])
    other = Episode(2, "train", ["open #a1"], ["file 3f2c9a1b7d", "open"], [1.0])
    assert _lived(first) == _lived(second) != _lived(other)


def test_a_short_answer_counts_as_a_leak_only_if_other_answers_stand_there_less_often() -> None:
    leaks = [(word, f"the answer is {word}") for word in ("red", "blue", "green")]
    with pytest.raises(Failed, match="holds the answer in 100% of episodes"):
        _short_answers_stand_by_chance("first observation", leaks)
    chance = [(word, "red, blue or green") for word in ("red", "blue", "green")]
    assert _short_answers_stand_by_chance("first observation", chance) == 3
    few = [("red", "red"), ("blue", "blue")]
    assert _short_answers_stand_by_chance("first observation", few) == 0


def test_long_words_are_what_follows_the_verb() -> None:
    episode = Episode(0, "train", ["say yes", "write " + "x" * 20, "go"])
    assert long_words(episode) == ["x" * 20]


def test_a_subject_with_listed_actions_takes_no_text_and_forgets_its_episodes() -> None:
    subject = Subject("envs:KeyDoor-v0", {"size": 3}, episodes=2)
    assert _takes_no_text(subject)
    before = subject.oracle
    assert subject.oracle is before and len(before) == 2
    assert subject.lived is before
    subject.forget()
    assert subject.oracle is not before
    assert subject.answers() == []
    with pytest.raises(Failed, match="nosuch"):
        subject.measured({"nosuch": 1.0})
    subject.close()


def test_a_data_sheet_names_actions_signals_and_checks() -> None:
    world = gymnasium.make("envs:KeyDoor-v0").unwrapped
    sheet = data_sheet("envs:KeyDoor-v0", world, [Result("startup", "PASS", "a|b", 0.1)])
    assert sheet.startswith("# envs:KeyDoor-v0\n")
    assert "| solved | fraction | env_state | 1 |" in sheet
    assert "| startup | PASS | a/b |" in sheet
    assert "Walk onto the key" in sheet


def test_doing_nothing_is_refused_by_a_world_of_listed_actions() -> None:
    episode = live(KeyDoor(3), 0, do_nothing, most=3)
    assert all(INVALID in signals for signals in episode.signals)
    assert episode.total == pytest.approx(-0.15)
