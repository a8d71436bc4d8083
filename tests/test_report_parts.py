"""The parts of a report and of a replay, each alone: examples, figures, surveys, episodes again."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.reading import figures
from actors.reading.examples import _pictures, _shortened, examples
from actors.reading.figures import in_one_time
from actors.reading.listing import number, resumptions, seconds_of
from actors.reading.replayed import as_record, choose, described, relive
from actors.reading.survey import Lived, Returns, Survey, first_version, survey, whole_episodes
from actors.runs.directory import RunDirectory
from experience.errors import XpError
from experience.evaluation.statistics import mean_with_interval
from experience.reward import RewardModel
from experience.shards.journal import Journal
from experience.shards.storage.blobs import BlobReader
from experience.signal import Signal
from experience.step import Step
from tests.conftest import CATALOGUE, make_step
from tests.lived_runs import WrittenRun

WORLD = "envs:Test-v0"


def png(width: int, height: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


# Episodes as a survey finds them


def test_a_survey_tells_each_episode_once_with_its_return_and_ending(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.live([0.25, 0.5], version=3, seed=11, task_id="t1")
    run.live([None], ending="truncated", stream=1)
    run.live([], ending="env_error", error="OSError: no valve")
    unclosed = run.turns([1.0], stream=1)
    next(unclosed)
    found = survey(run.close() / "shards")
    told = [(e.turns, e.total, e.ending, e.whole) for e in found.episodes]
    assert (2, 0.75, "terminated", True) in told and (1, None, "truncated", True) in told
    assert (0, 0.0, "env_error", False) in told and (1, 1.0, None, False) in told
    first = found.episodes[0]
    assert (first.env_id, first.version, first.seed, first.task) == (WORLD, 3, 11, "t1")
    assert found.worlds == [WORLD]
    assert [(f.kind, f.count, f.first) for f in found.failures] == [
        ("OSError", 1, "OSError: no valve")
    ]


def test_returns_are_of_held_out_tasks_and_the_gain_is_between_first_and_last(
    tmp_path: Path,
) -> None:
    run = WrittenRun(tmp_path)
    for seed in range(3):
        run.live([0.0], split="heldout", seed=seed, behaviour="random")
        for version in (0, 1, 4):
            run.live([float(version)], split="heldout", seed=seed, version=version)
        run.live([9.0], seed=seed, version=4)
    found = survey(run.close() / "shards")
    (returns,) = found.held_out().values()
    assert [returns.versions[v].mean for v in (0, 1, 4)] == [0, 1, 4]
    assert (returns.gain.mean, returns.gain.n, returns.random.mean) == (4, 3, 0)
    assert found.training()[WORLD][4].mean == 9
    random, policy = found.of_one_policy()[WORLD]
    assert random.n == policy.n == 3 and policy.mean == pytest.approx(5 / 3)


def test_a_world_that_was_never_held_out_has_no_returns() -> None:
    assert Survey([]).held_out() == {} and Survey([]).training() == {}


def test_version_zero_is_called_by_what_made_it() -> None:
    assert first_version(None) == "imitation (v0)"


# Choosing and living again


def lived(total: float | None, **known: Any) -> Lived:
    about: dict[str, Any] = {
        "stream": b"s" * 16,
        "t": int(100 * (total or 0)),
        "turns": 1,
        "env_id": WORLD,
        "split": "train",
        "source": "real",
        "behaviour": "small",
        "version": 1,
        "seed": 0,
        "task": "",
        "total": total,
        "ending": "terminated",
        "whole": True,
    }
    return Lived(**(about | known))


def test_the_best_and_the_worst_are_chosen_among_known_returns() -> None:
    found = [lived(0.5), lived(None), lived(0.1), lived(0.9), lived(2.0, ending=None, whole=False)]
    totals = [e.total for e in choose(found, best=1, worst=1)]
    assert totals == [0.9, 0.1]
    assert [e.total for e in choose(found, best=9, worst=9)] == [0.9, 0.5, 0.1], "each once"
    assert choose(found)[0].total == 0.9, "the last that was closed"
    assert choose(found, episode=0)[0].total == 0.5
    for episode in (4, -5):
        with pytest.raises(XpError, match="none of the 4 closed episodes"):
            choose(found, episode=episode)


class Echo:
    """A world that shows its last action, and measures `done` by its length."""

    signal_catalogue = CATALOGUE

    def __init__(self, shift: int = 0, shows: str = "begin") -> None:
        self._shift, self._shows = shift, shows

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return self._shows, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return action, 0.0, True, False, {"signals": {"done": len(action) + self._shift}}


def echoed() -> tuple[list[Step], RewardModel]:
    rewards = RewardModel({WORLD: {"done": 1.0}})
    acted = make_step(0, obs_text="begin", reward=7.0, reward_version=rewards.version)
    closing = make_step(1, obs_text="press 1", closing=True, reward_version=rewards.version)
    return [acted, closing], rewards


def test_an_episode_lived_again_is_the_same_or_says_where_it_differs() -> None:
    steps, rewards = echoed()
    assert relive(steps, Echo(), rewards) == ""
    assert relive(steps, Echo(shift=1), rewards) == "turn 0 is worth 8.0, not 7.0"
    assert relive(steps, Echo(shows="end"), rewards) == "turn 0 shows something else"
    unknown = [replace(steps[0], reward=None), steps[1]]
    assert relive(unknown, Echo(), rewards) == "turn 0 is worth 7.0, not None"
    other = RewardModel({WORLD: {"done": 2.0}})
    assert "they cannot be compared" in relive(steps, Echo(), other)


def test_a_row_that_only_chose_an_option_is_not_acted_in_the_world() -> None:
    steps, rewards = echoed()
    choice = replace(steps[0], option_id=1, option_step=0, reward=None)
    assert choice.is_choice
    assert relive([choice, *steps], Echo(), rewards) == ""


def test_a_turn_is_told_in_words_and_as_data() -> None:
    steps, _ = echoed()
    signals = (Signal("done", None, "fraction", "env_state"),)
    told = described(replace(steps[0], signals=signals, reward=None, task_id="t"))
    assert told.splitlines() == [
        "--- envs:Test-v0 turn 0, t",
        "begin",
        "> press 1",
        "    reward unknown  done unknown",
    ]
    failed = replace(steps[1], ending="env_error", info={"error": "OSError: no"})
    assert described(failed).endswith("the episode's end: env_error, OSError: no")
    record = as_record(steps[0])
    assert (record["action"], record["signals"], record["version"]) == ("press 1", {"done": 0.5}, 3)
    assert as_record(steps[1])["action"] is None


def test_whole_episodes_come_in_the_order_in_which_they_were_asked_for(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    first, second = run.turns([0.1, 0.2]), run.turns([0.3], stream=1)
    for turn in (first, second, first, second, first):
        next(turn)
    path = run.close()
    found = survey(path / "shards").episodes
    episodes = whole_episodes(path / "shards", found[::-1])
    assert [len(e.steps) for e in episodes] == [e.turns for e in found[::-1]]
    assert all(e.closing is not None for e in episodes)


# Examples


def test_a_short_text_is_shown_whole_and_a_long_one_loses_its_middle() -> None:
    assert _shortened(["a", "b"]) == "a\n\nb"
    many = _shortened([f"turn {n} " + "x" * 990 for n in range(100)])
    assert "turn 0 " in many and "turn 99 " in many and "turn 50 " not in many
    assert re.search(r"… \d+ turns in between, not shown here: ./xp env replay", many)
    assert len(many) < 25_000
    one = _shortened(["x" * 100_000])
    assert "… 95000 characters …" in one and len(one) < 6_000


def test_a_picture_that_cannot_be_shown_says_why_and_the_others_are_few(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    blobs = [
        journal.blobs.put(png(n + 1, 2), "image/png", n + 1, 2, role="screen") for n in range(9)
    ]
    broken = journal.blobs.put(b"no picture", "image/png", role="broken")
    sound = journal.blobs.put(b"RIFF", "audio/wav", role="sound")
    for t, blob in enumerate([*blobs, sound]):
        journal.append(make_step(t, obs_blobs=(blob,), step_in_episode=t))
    journal.close()
    reader = BlobReader(tmp_path)
    rows = [make_step(t, obs_blobs=(b,), step_in_episode=t) for t, b in enumerate([*blobs, sound])]
    drawn = _pictures(rows, reader)
    assert drawn.count("<figure>") == 4 and "sound" not in drawn
    assert "screen at turn 0, 1 × 2 pixels" in drawn and "screen at turn 8" in drawn
    shown = _pictures([make_step(0, obs_blobs=(broken,))], reader)
    assert "cannot be shown" in shown and "<figure>" not in shown
    missing = replace(broken, hash=b"\0" * 32)
    assert "is missing" in _pictures([make_step(0, obs_blobs=(missing,))], reader)
    assert _pictures([make_step(0)], reader) == ""


def test_examples_are_the_best_and_the_worst_of_the_last_version(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    for seed, reward in enumerate((0.2, 0.9, 0.5)):
        run.live([reward], split="heldout", seed=seed, version=2)
        run.live([9.0], split="heldout", seed=seed, version=1)
    directory = RunDirectory(run.close())
    page = examples(directory, survey(directory.shards))
    assert re.findall(r"return ([\d.]+)", page) == ["0.9", "0.2"]
    assert "→ act 0" in page and "■ the end: terminated" in page


# Figures


def test_the_seconds_of_attempts_are_put_behind_each_other() -> None:
    history = [
        {"seconds": 5.0, "t": 105.0},
        {"seconds": 9.0, "t": 109.0},
        {"seconds": 4.0, "t": 204.0},
        {"seconds": 12.0, "t": 312.0},
    ]
    assert [r["seconds"] for r in in_one_time(history)] == [5.0, 9.0, 13.0, 25.0]
    assert list(in_one_time([])) == []


def test_a_figure_without_data_is_none_at_all() -> None:
    assert figures.held_out({}) == figures.training({WORLD: {}}) == ""
    assert figures.sources([]) == figures.model([{"version": 1}]) == ""
    assert figures.learning([{"version": 1, "metrics": {"loss": float("nan")}}]) == ""


def test_a_figure_says_in_words_what_it_shows_and_repeats_no_id() -> None:
    points = {v: mean_with_interval([0.1 * v] * 6) for v in (0, 1)}
    returns = {WORLD: Returns(points[0], points, points[1])}
    one, two = figures.held_out(returns), figures.training({WORLD: points})
    assert 'aria-label="Held-out return per policy version"' in one and "n=6" in one
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (one, two)]
    assert ids[0] and not set(ids[0]) & set(ids[1])


def test_sources_stand_in_two_panels_and_the_model_beside_its_baseline() -> None:
    history = [
        {"seconds": 60.0 * n, "steps": {"real": 10 * n, "imagined": 5 * n}, "version": n}
        for n in (1, 2)
    ]
    drawn = figures.sources(history)
    assert "acknowledged" in drawn and "imagined" in drawn and "demonstration" not in drawn
    errors = [{"version": n, "model_error": {"exact": 0.5, "copy": 0.1}} for n in (1, 2)]
    assert "copy baseline" in figures.model(errors)
    updates = [{"version": n, "metrics": {"policy_loss": 0.1 * n}, "lag": 1.0} for n in (1, 2)]
    drawn = figures.learning(updates)
    assert "nats a token" in drawn and "policy versions" in drawn and "value loss" not in drawn


def test_a_worlds_name_is_no_mathematics_of_the_figure() -> None:
    points = {0: mean_with_interval([1.0] * 6)}
    assert "a$b$c" in figures.training({"envs:a$b$c": points}).replace("\\", "")


# Numbers of a record that anybody may have written


@pytest.mark.parametrize("value", [None, "1", True, 1e300, float("inf"), [1]])
def test_what_is_no_number_of_a_record_is_unknown(value: object) -> None:
    assert number(value) is None


def test_resumptions_that_make_no_sense_are_passed_over() -> None:
    record = {"resumed": [{"at": 5, "version": None}, {"at": "x"}, 3, {"version": 2}]}
    assert resumptions(record) == [{"at": 5, "version": None}]
    assert resumptions({"resumed": "yesterday"}) == resumptions({}) == []


def test_the_seconds_of_a_run_that_ended_are_those_it_wrote(tmp_path: Path) -> None:
    path = WrittenRun(tmp_path, seconds=12.5).close()
    assert seconds_of(RunDirectory(path)) == 12.5
