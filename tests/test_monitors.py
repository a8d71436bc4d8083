"""Monitors: what they see in metrics, and that a run heeds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.run import run
from actors.running.events import Events, Learned, Updated, Warned
from experience.errors import ConfigError, XpError
from experience.evaluation.monitors import MONITORS, OK, monitor
from tests.test_run import configured


def line(**found: Any) -> dict[str, Any]:
    return {"version": 1, "episodes": 0, "dropped": {"failed": 0}, "metrics": {}} | found


def flat(groups: float, of_them_flat: float) -> dict[str, Any]:
    return line(metrics={"groups": groups, "flat_groups": of_them_flat})


@pytest.mark.parametrize("name", MONITORS)
def test_a_window_of_nothing_is_ok(name: str) -> None:
    assert MONITORS[name]([line()]) == OK


def test_five_updates_without_a_group_that_differs_are_warned_of() -> None:
    look = MONITORS["flat_groups"]
    assert look([flat(4, 4)] * 4) == OK
    assert look([*[flat(4, 4)] * 4, flat(4, 3)]) == OK
    assert look([flat(4, 3), *[flat(4, 4)] * 5]).verdict == "warn"


def test_turns_compared_with_a_value_function_have_no_flat_groups() -> None:
    """A run of the recipe turn_ppo ended at its fifth update with a KeyError."""
    assert MONITORS["flat_groups"]([line(metrics={"groups": 4.0})] * 6) == OK


def test_samples_far_from_the_present_policy_are_warned_of() -> None:
    look = MONITORS["policy_drift"]
    assert look([line(metrics={"kl": 0.05})]) == OK
    assert look([line(metrics={"kl": float("nan")})]) == OK
    assert "0.5 nats" in look([line(metrics={"kl": 0.5})]).why


def test_a_world_that_fails_more_often_than_not_is_warned_of() -> None:
    look = MONITORS["failing_worlds"]
    assert look([line(episodes=100, dropped={"failed": 50})]) == OK
    assert look([line(episodes=10, dropped={"failed": 10})]) == OK
    assert "51 of 100" in look([line(episodes=100, dropped={"failed": 51})]).why


def test_only_a_new_skipped_update_is_warned_of() -> None:
    look = MONITORS["skipped_updates"]
    assert look([line(skipped_updates=1)]).verdict == "warn"
    assert look([line(skipped_updates=1), line(skipped_updates=1)]) == OK


def test_an_infinite_loss_halts() -> None:
    look = MONITORS["value_collapse"]
    assert look([line(metrics={"value_loss": float("inf")})]).verdict == "halt"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flat_grups", "did you mean 'flat_groups'"),
        ("tests.watching_monitor:third", "third"),
        ("no_such_module:look", "no_such_module"),
        ("experience.evaluation.monitors:OK", "cannot be called"),
    ],
)
def test_an_unknown_monitor_is_refused_by_its_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        monitor(name)
    assert said in f"{refused.value} {refused.value.hint}"


def test_handlers_are_called_in_their_order_and_for_their_events_only() -> None:
    events, seen = Events(), []
    events.subscribe(Updated, lambda event: seen.append(("first", event.version)))
    events.subscribe(Updated, lambda event: seen.append(("second", event.version)))
    events.emit(Learned({}))
    events.emit(Updated(3))
    assert seen == [("first", 3), ("second", 3)]


def test_a_strangers_monitor_halts_a_run_whose_rows_and_metrics_stay(tmp_path: Path) -> None:
    config, directory = configured(
        tmp_path,
        "worlds=[{id: 'tests.uneven_world:Uneven-v0', groups: 1}]",
        "monitors=['tests.watching_monitor:second_version']",
        "budget.updates=5",
    )
    with pytest.raises(XpError, match="second_version halted the run: the second version"):
        run(config, directory)
    assert [found["version"] for found in directory.metrics()][-1] == 2
    assert directory.count()["real"] > 0


def test_a_warning_stands_in_the_record_of_the_run_and_subscribers_hear_of_it(
    tmp_path: Path,
) -> None:
    config, directory = configured(
        tmp_path,
        "worlds=[{id: 'tests.slow_world:Coin-v0', groups: 1, demonstrations: 0}]",
        "monitors=['tests.watching_monitor:always']",
        "budget.updates=1",
    )
    events, heard = Events(), []
    for kind in (Updated, Warned):
        events.subscribe(kind, heard.append)
    run(config, directory, events=events)
    assert [type(event) for event in heard] == [Updated, Warned]
    assert directory.record["warnings"] == {"tests.watching_monitor:always": "look at this"}
