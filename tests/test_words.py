"""The words: what a record may say, and what it may not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experience.errors import RecordError
from experience.policy import Decision, VersionSpan
from experience.reward import RewardModel
from experience.signal import Signal, read_signals
from experience.step import discount_after, state_key
from tests.conftest import CATALOGUE, make_step


def test_an_unknown_signal_makes_the_reward_unknown_never_zero() -> None:
    model = RewardModel({"w": {"done": 1.0, "cost": -0.1}})
    assert (
        model.reward(
            "w", [Signal("done", None, "1", "verifier"), Signal("cost", 1.0, "1", "env_state")]
        )
        is None
    )


def test_a_signal_that_was_not_reported_adds_nothing() -> None:
    assert (
        RewardModel({"w": {"done": 1.0, "cost": -0.1}}).reward(
            "w", [Signal("cost", 2.0, "1", "env_state")]
        )
        == -0.2
    )


def test_a_world_without_weights_has_an_unknown_reward_never_zero() -> None:
    model = RewardModel({"w": {"done": 1.0}, "free": {}})
    assert model.reward("v", [Signal("done", 1.0, "1", "verifier")]) is None
    assert model.of_values("v", {"done": 1.0}) is None
    assert model.of_values("free", {"done": 1.0}) == 0.0, "a row that says so rewards nothing"


def test_a_reward_version_names_exactly_its_weights() -> None:
    one, other = RewardModel({"w": {"a": 1.0, "b": 2.0}}), RewardModel({"w": {"b": 2.0, "a": 1.0}})
    assert one.version == other.version != RewardModel({"w": {"a": 1.0, "b": 2.1}}).version


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(RecordError, match="finite"):
        read_signals({"signals": {"done": value}}, CATALOGUE)


def test_a_signal_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(RecordError, match="catalogue"):
        read_signals({"signals": {"applause": 1.0}}, CATALOGUE)


@pytest.mark.parametrize("ending", ["env_error", "timeout", "cancelled"])
def test_a_failure_of_the_machinery_cannot_carry_a_reward(ending: str) -> None:
    with pytest.raises(RecordError, match="unknown"):
        make_step(0, ending=ending, reward=0.0)


def test_an_imagined_step_must_name_its_parent_and_its_model() -> None:
    with pytest.raises(RecordError, match="parent"):
        make_step(0, source="imagined")


def test_a_decision_has_one_log_probability_a_token() -> None:
    with pytest.raises(RecordError, match="log-prob"):
        Decision("x", 0, action_ids=np.zeros(3, np.int32), logprobs=np.zeros(2, np.float32))


def test_version_spans_cover_an_exact_action() -> None:
    with pytest.raises(RecordError, match="spans"):
        Decision(
            "x",
            0,
            action_ids=np.zeros(3, np.int32),
            logprobs=np.zeros(3, np.float32),
            version_spans=(VersionSpan(0, 2),),
            token_exact=True,
        )


def test_only_a_true_end_discounts_to_zero() -> None:
    assert discount_after("terminated", 0.9) == 0.0
    assert discount_after("truncated", 0.9) == 0.9


def test_equal_states_share_a_key_and_others_do_not() -> None:
    assert state_key("a page") == state_key("a page") != state_key("a page ")
