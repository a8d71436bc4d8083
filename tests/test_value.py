"""Values: returns by hand, a function that learns them, and advantages that tell turns of one
episode apart."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from experience.episode import Episode, Group
from experience.errors import RecordError
from experience.learning.batch import Turn
from experience.learning.credit import AdvantageEstimator
from experience.learning.learner import LearnerSettings
from experience.learning.recipes.table import recipe
from experience.learning.token_learner import TokenLearner
from experience.learning.value import ValueFunction
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.options.option import Library
from experience.policy import Decision, VersionSpan
from experience.returns import lambda_returns
from tests.conftest import make_step


def test_lambda_returns_lie_between_one_step_and_the_whole_episode() -> None:
    rewards, discounts, ahead = np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.array([4.0, 8.0])
    assert lambda_returns(rewards, discounts, ahead, 0.0).tolist() == [3.0, 6.0]
    assert lambda_returns(rewards, discounts, ahead, 1.0).tolist() == [1 + 0.5 * 6.0, 6.0]
    assert lambda_returns(rewards, discounts, ahead, 0.5).tolist() == [
        1 + 0.5 * (0.5 * 4 + 0.5 * 6),
        6.0,
    ]
    assert lambda_returns(rewards, np.array([0.5, 0.0]), ahead, 1.0).tolist() == [2.0, 2.0]
    with pytest.raises(RecordError, match="rewards"):
        lambda_returns(rewards, discounts[:1], ahead, 1.0)


def walk(number: int, *, lucky: bool, source: str = "real") -> Episode:
    """Two turns: at `start` any way, then at `left` (worth nothing) or `right` (worth 1)."""
    stream = number.to_bytes(16, "little")
    where = "right" if lucky else "left"
    tokens = ByteTokenizer()
    rows = [
        make_step(
            t,
            stream,
            obs_text=seen,
            source=source,
            reward=float(lucky and t),
            discount=0.0 if t else 1.0,
            parent=(stream, 0) if source == "imagined" else None,
            model_version=1 if source == "imagined" else None,
            ending="terminated" if t else "none",
            decision=Decision(
                word,
                0,
                tokens.prompt(seen),
                action := tokens.action(word),
                np.full(len(action), -1.0, np.float32),
                (VersionSpan(0, len(action)),),
                True,
                sampled=True,
            ),
        )
        for t, (seen, word) in enumerate((("start", where), (where, "on")))
    ]
    return Episode(tuple(rows), make_step(2, stream, closing=True, obs_text="end"))


def fitted() -> ValueFunction:
    value = ValueFunction(1, 32, 32, seed=0, learning_rate=3e-3)
    for round_ in range(25):
        value.fit([walk(round_ * 8 + i, lucky=i % 2 == 0) for i in range(8)])
    return value


def test_a_value_function_learns_what_each_state_is_worth_and_says_how_well() -> None:
    value = fitted()
    assert value(["left", "start", "right"]) == pytest.approx([0.0, 0.5, 1.0], abs=0.25)
    assert 0.3 < value.explained <= 0.55  # half of the variance, at the start, is luck


def turn_advantages(
    groups: list[Group], value: ValueFunction, spread: dict[str, float]
) -> list[Turn]:
    """The turns as they are credited, with a copy of the value function: it is fitted after."""
    estimator = AdvantageEstimator(recipe("turn_ppo"), copy.deepcopy(value))
    estimator.spread.update(spread)
    turns, _ = estimator(groups, Library())
    spread.update(estimator.spread)
    return turns


def test_credit_goes_to_the_turn_that_made_the_difference() -> None:
    turns = turn_advantages([Group("g", (walk(1, lucky=True), walk(2, lucky=False)))], fitted(), {})
    first_of_lucky, second_of_lucky, first_of_other, _ = (t.advantage for t in turns)
    assert first_of_lucky > 0.5 > abs(second_of_lucky)
    assert first_of_other < -0.5


def test_an_imagined_difference_is_measured_by_real_ones() -> None:
    """A difference of a tenth of a reward stays a tenth, however alike everything imagined is."""
    spread = {"envs:Test-v0": 1.0}
    value = fitted()
    imagined = [
        replace(s, reward=0.1 * (s.reward or 0.0))
        for s in walk(3, lucky=True, source="imagined").steps
    ]
    turns = turn_advantages(
        [Group("i", (Episode(tuple(imagined[1:]), walk(3, lucky=True).closing),))], value, spread
    )
    assert abs(turns[0].advantage - (0.1 - float(value(["right"])[0]))) < 1e-5
    assert spread == {"envs:Test-v0": 1.0}


def learner(minibatches: int = 2) -> TokenLearner:
    torch.manual_seed(0)
    model = Transformer(TransformerShape(ByteTokenizer.size, 1, 32, 4, 64))
    return TokenLearner(
        model, LearnerSettings(minibatches=minibatches, seed=0), ValueFunction(1, 32, 32, seed=0)
    )


def test_a_learner_with_values_goes_on_bit_by_bit_where_it_was_saved() -> None:
    groups = [
        Group(str(n), (walk(4 * n, lucky=True), walk(4 * n + 1, lucky=False))) for n in range(6)
    ]
    whole = learner()
    for group in groups[:3]:
        whole.improve([group])
        whole.publish()
    saved = whole.save()
    again = learner()
    again.restore(saved, [], groups[:3])
    for one in (whole, again):
        for group in groups[3:]:
            one.improve([group])
            one.publish()
    assert whole.policy().weights.sha256 == again.policy().weights.sha256
    assert whole.save()["value.safetensors"] == again.save()["value.safetensors"]


def test_the_advantages_of_a_batch_are_taken_before_the_value_has_seen_it() -> None:
    groups = [
        Group(str(n), (walk(2 * n, lucky=True), walk(2 * n + 1, lucky=False))) for n in range(4)
    ]
    one, before = learner(), copy.deepcopy(learner().value)
    assert before is not None
    expected = turn_advantages(groups, before, {})
    turns, metrics = one.advantages(groups, Library())
    assert [t.advantage for t in turns] == [t.advantage for t in expected]
    assert metrics["value_loss"] > 0
    assert one.value is not None
    assert abs(one.value(["right"])[0] - before(["right"])[0]) > 1e-6
