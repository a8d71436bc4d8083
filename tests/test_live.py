"""A run in progress and at its end: the table, the lines, the warnings, and what is no success."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.config.schema import Config, load
from actors.reading.live import (
    LiveTable,
    causes,
    check_learned,
    headline,
    line,
    summary_line,
    table,
    warnings,
    where,
)
from actors.running.progress import Failure, Progress
from experience.command import output
from experience.errors import XpError
from experience.evaluation.statistics import Mean, mean_with_interval
from experience.planning.world_models.world_model import ModelError

REACTOR = "envs:Reactor-v0"


def progress(**known: Any) -> Progress:
    return Progress("small-1", **known)


def config(*overrides: str) -> Config:
    return load([], overrides)[0]


def evaluated(**more: Any) -> Progress:
    """A run of two versions whose held-out returns went from 0.25 to 0.75; random has 0.1."""
    tasks = [0.25] * 6
    return progress(
        version=2,
        returns={REACTOR: {0: mean_with_interval(tasks), 2: mean_with_interval([0.75] * 6)}},
        random={REACTOR: mean_with_interval([0.1] * 6)},
        gain={REACTOR: mean_with_interval([0.5] * 6)},
        **more,
    )


def broken(count: int = 2) -> Progress:
    name = f"{REACTOR}: KeyError"
    first = Failure(REACTOR, "KeyError: 'valve'", count)
    return progress(failures=Counter({name: count}), broken={name: first}, episodes=count)


# While it goes on


def test_the_headline_counts_steps_by_where_they_came_from() -> None:
    said = headline(
        progress(
            seconds=12.0,
            phase="learning",
            version=3,
            steps={"real": 5, "demonstration": 2, "imagined": 7},
            training_steps=4,
            lag=1.25,
        )
    )
    assert said.startswith("  12 s  learning  policy v3  ")
    assert "5 real (4 training) + 2 shown + 7 imagined steps" in said and "lag 1.2" in said
    assert "FAILURES" not in said and "world model" not in said


def test_the_headline_cries_what_must_not_be_missed() -> None:
    said = headline(
        progress(
            disk_is_full=True,
            skipped=2,
            failures=Counter({"w: KeyError": 3}),
            cut=Counter({"prompts": 4, "actions": 0}),
            model_error=ModelError(0.5, 0.9, kept=0.25, copy=0.1, auroc=None, n=40),
        )
    )
    for word in (
        "THE DISK IS FULL",
        "2 UPDATES SKIPPED",
        "3 FAILURES",
        "4 prompts cut short",
        "world model 50% right, 25% believed",
    ):
        assert word in said, word
    assert "actions cut short" not in said


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "starting"),
        ({"phase": "evaluating", "done": {"episodes": (3, 8)}}, "evaluating: episodes 3 of 8"),
        ({"phase": "imitation", "done": {"imitation step": (3, 8)}}, "imitation step 3 of 8"),
        ({"phase": "learning", "closing": True}, "learning (closing)"),
        ({"done": {"a": (1, 2), "b": (0, 4)}}, "starting: a 1 of 2, b 0 of 4"),
    ],
)
def test_the_phase_says_how_far_it_is(known: dict[str, Any], said: str) -> None:
    assert where(progress(**known)) == said


def test_a_line_ends_with_the_mean_of_each_world_that_has_one() -> None:
    said = line(progress(training={REACTOR: [0.5, 1.0], "envs:Empty-v0": []}))
    assert said.endswith("  Reactor-v0 0.75")


def test_the_table_holds_first_and_last_version_beside_random() -> None:
    drawn = io.StringIO()
    run = evaluated(training={REACTOR: [0.5]})
    Console(file=drawn, width=200).print(table(run))
    text = drawn.getvalue()
    assert REACTOR in text and "0.25" in text and "0.75" in text and "0.10" in text
    assert "imitation" in text and "0.50" in text
    run.learns = False
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(table(run))
    assert "imitation" not in drawn.getvalue() and "first" in drawn.getvalue()


def test_a_worlds_name_cannot_move_the_cursor() -> None:
    drawn = io.StringIO()
    name = "envs:\x1b[2JEvil-v0"
    Console(file=drawn, width=200).print(table(progress(returns={name: {}})))
    assert "\x1b[2J" not in drawn.getvalue() and "Evil-v0" in drawn.getvalue()


def test_without_a_terminal_a_line_comes_at_once_for_each_phase_and_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with LiveTable("small-1") as shown:
        for phase in ("collecting", "collecting", "learning"):
            shown.update(progress(phase=phase))
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "run small-1"
    phases = [said.strip().split("  ")[1] for said in told[1:] if " s  " in said]
    assert [p for p in phases if p != "starting"] == ["collecting", "learning"]


def test_as_json_each_phase_is_a_record_that_a_program_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.release_stdout()
    with LiveTable("small-1", as_json=True) as shown:
        shown.update(evaluated(phase="learning"))
    told = capsys.readouterr()
    records = [json.loads(said) for said in told.out.splitlines()]
    assert {r["kind"] for r in records} == {"progress"}
    last = next(r for r in records if r["phase"] == "learning")
    assert last["held_out"] == {REACTOR: 0.75} and last["version"] == 2


def test_seconds_go_on_between_two_reports() -> None:
    shown = LiveTable("small-1")
    shown.update(progress(seconds=100.0))
    time.sleep(0.05)
    assert 100.04 < shown.now.seconds < 160


def test_what_is_shown_does_not_change_with_the_runs_own_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown, own = LiveTable("small-1"), progress(training={REACTOR: [0.5]})
    shown.update(own)
    own.training[REACTOR].append(1.0)
    assert shown.now.training == {REACTOR: [0.5]}


# At its end


def test_the_last_line_names_random_imitation_last_version_and_the_gain() -> None:
    said = summary_line(evaluated(acknowledged=40, restarts=1), Path("report.html"))
    assert "held-out return (random → imitation → v2)" in said
    assert "Reactor-v0 0.10 → 0.25 → 0.75 (gain 0.50 ± 0.00)" in said
    assert "40 rows acknowledged, 0 lost · 1 restarts · report report.html" in said


def test_a_policy_that_does_not_learn_has_no_imitation_and_no_gain() -> None:
    said = summary_line(evaluated(learns=False), Path("r"))
    assert "(random → v2)" in said and "0.10 → 0.75," not in said and "gain" not in said


def test_what_was_not_evaluated_is_not_told_as_zero() -> None:
    assert "not evaluated" in summary_line(progress(), Path("r"))
    nothing = Mean(math.nan, None, 0)
    said = summary_line(progress(returns={REACTOR: {0: nothing}}), Path("r"))
    assert "Reactor-v0 not evaluated" in said
    said = summary_line(progress(returns={REACTOR: {0: mean_with_interval([1.0])}}), Path("r"))
    assert "unknown → 1.00 → 1.00" in said


def test_what_failed_and_what_was_cut_stands_in_the_last_line() -> None:
    run = broken()
    run.cut_short = {"imitation": "3 of 20 passes"}
    said = summary_line(run, Path("r"))
    assert "CUT SHORT: imitation 3 of 20 passes" in said
    assert f"FAILURES: 2 × {REACTOR}: KeyError: 'valve' (failures.json)" in said


def test_of_many_causes_the_three_commonest_are_told() -> None:
    run = progress(failures=Counter({f"w: E{n}": n for n in range(1, 6)}))
    assert causes(run) == "5 × w: E5, 4 × w: E4, 3 × w: E3"


def test_a_run_that_went_well_has_no_warning() -> None:
    groups = Counter({"all": 3})
    assert warnings(progress(version=1, groups=groups, training={REACTOR: [0.1] * 7})) == []


def test_each_warning_says_what_was_left_out_or_what_to_change() -> None:
    found = warnings(
        progress(
            cut_short={"imitation": "3 of 20 passes", "final evaluation": "8 of 64 episodes"},
            warnings={"flat_groups": "five updates without a difference"},
            training_steps=10,
            training={REACTOR: [0.5] * 8},
        )
    )
    said = "\n".join(found)
    assert len(found) == 5
    assert "imitation: 3 of 20 passes; what was missing then was left out" in said
    assert "final evaluation: 8 of 64 episodes; episodes that end soon count more" in said
    assert "monitor flat_groups: five updates without a difference" in said
    assert "no update: the limit of steps was reached" in said
    assert f"{REACTOR}: the last 8 training episodes all earned 0.5" in said


def test_a_policy_that_does_not_learn_is_not_told_to_imitate_longer() -> None:
    assert warnings(progress(learns=False, training={REACTOR: [0.5] * 8}, training_steps=9)) == []


# What is no success


def failed(run: Progress, *overrides: str) -> str:
    with pytest.raises(XpError) as raised:
        check_learned(config(*overrides), run)
    return str(raised.value)


def test_a_run_without_a_return_is_no_success_and_says_why() -> None:
    run = broken()
    run.dropped = {"failed": 2, "stale": 0}
    told = failed(run)
    assert "nothing was learned: no training episode of 2 has a return" in told
    assert "KeyError: 'valve'" in told and "left out: 2 failed" in told
    assert "failures.json in the run directory" in told and "./xp env check" in told
    run.learns = False
    assert "nothing was measured" in failed(run, "policy.learns=false")


def test_a_run_without_a_whole_group_is_no_success() -> None:
    told = failed(progress(training={REACTOR: [0.5]}), "collecting.group_size=4")
    assert "no 4 episodes of one group ended in time" in told and "budget.minutes" in told


def test_a_run_whose_groups_never_differed_and_that_is_no_better_than_random_is_none() -> None:
    flat = Counter({"all": 6, "flat": 6})
    run = progress(version=3, groups=flat, training={REACTOR: [0.0]})
    assert "in each of 6 groups all episodes earned the same" in failed(run)
    taught = evaluated(groups=flat, training={REACTOR: [0.5]})
    check_learned(config(), taught)


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (("budget.updates=0",), {}),
        (("budget.steps=5",), {"training_steps": 5, "version": 1}),
        ((), {"version": 1, "training": {REACTOR: [0.5]}, "groups": Counter({"all": 1})}),
    ],
)
def test_a_run_that_did_what_it_was_asked_is_a_success(
    overrides: tuple[str, ...], known: dict[str, Any]
) -> None:
    check_learned(config(*overrides), progress(**known))
