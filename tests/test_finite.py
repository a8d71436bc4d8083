"""No loss or gradient that is not finite reaches a weight: the update is skipped and counted, the
third ends the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from experience.episode import Group
from experience.errors import DivergedError
from experience.learning.machine.finite import FiniteSteps
from experience.models.weights import Weights
from experience.planning.tabular import Dyna, DynaSettings
from experience.planning.world_models.ensemble import EnsembleModel
from experience.planning.world_models.language import LanguageWorldModel
from experience.policy import Decision
from experience.reward import RewardModel
from tests.conftest import make_step
from tests.test_ensemble import cartpole
from tests.test_value import learner, walk


def groups(*, spoilt: bool = False) -> list[Group]:
    episodes = [walk(1, lucky=True), walk(2, lucky=False)]
    if spoilt:
        nan = np.full(len(episodes[0].steps[0].decision.logprobs), np.nan, np.float32)
        episodes = [
            replace(
                e,
                steps=tuple(
                    replace(
                        s, decision=replace(s.decision, logprobs=nan[: len(s.decision.logprobs)])
                    )
                    for s in e.steps
                ),
            )
            for e in episodes
        ]
    return [Group("g", tuple(episodes))]


def test_a_policy_update_that_is_not_finite_is_skipped_counted_and_changes_nothing() -> None:
    one = learner(minibatches=1)
    one.improve(groups())
    before = Weights.of(one.model, 0).sha256
    moments = [v.clone() for state in one.trainer.optimizer.state.values() for v in state.values()]
    metrics = one.improve(groups(spoilt=True))
    assert Weights.of(one.model, 0).sha256 == before
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            moments,
            (v for state in one.trainer.optimizer.state.values() for v in state.values()),
            strict=True,
        )
    )
    assert one.skipped == 1
    assert all(np.isfinite(v) for v in metrics.values())
    one.improve(groups())
    assert Weights.of(one.model, 0).sha256 != before


def test_three_in_a_row_end_training_with_the_batch() -> None:
    one = learner(minibatches=1)
    one.improve(groups(spoilt=True))
    one.improve(groups())  # a good one between them: the count begins anew
    one.improve(groups(spoilt=True))
    one.improve(groups(spoilt=True))
    with pytest.raises(DivergedError, match="policy was given 3 updates in a row") as caught:
        one.improve(groups(spoilt=True))
    assert np.isnan(caught.value.batch["turns_logp_behaviour"]).any()
    assert one.skipped == 4


def test_an_infinite_gradient_of_a_finite_loss_is_skipped_too() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.sqrt().sum().backward()  # 0, with a slope of infinity
    steps = FiniteSteps("root")
    assert steps.take(optimizer, 0.0, dict, 1.0) is None
    assert (weight.item(), weight.grad, steps.skipped) == (0.0, None, 1)


def test_a_value_function_skips_returns_that_are_not_finite() -> None:
    value = learner().value
    assert value is not None
    value.fit([walk(1, lucky=True)], passes=1)
    before, explained = value.save()["value.safetensors"], value.explained
    bad = walk(2, lucky=False)
    value.fit(
        [replace(bad, steps=tuple(replace(s, discount=float("nan")) for s in bad.steps))], passes=1
    )
    assert value.skipped == 1
    assert value.save()["value.safetensors"] == before
    assert value.explained == explained


def test_world_models_skip_them_too() -> None:
    language = LanguageWorldModel(layers=1, width=16, context=32, trusted_accuracy=0.9, seed=0)
    language.add(walk(1, lucky=True).transitions)
    language.fit(1)
    with torch.no_grad():
        next(language._network._trained.parameters()).fill_(
            torch.nan
        )  # what fits cannot be finite from here on
    mean = language.save()["world_model_mean.safetensors"]
    with pytest.raises(DivergedError, match="world model"):
        language.fit(3)
    assert language.save()["world_model_mean.safetensors"] == mean
    ensemble = EnsembleModel(("0", "1"), ("env_reward",), members=2, width=8)
    ensemble.add(cartpole(40, 0))
    ensemble.fit(1)
    assert ensemble._trainer.nets is not None
    with torch.no_grad():
        ensemble._trainer.nets.weights[0].fill_(torch.nan)
    before = ensemble.save()["world_model.safetensors"]
    with pytest.raises(DivergedError, match="ensemble"):
        ensemble.fit(5)
    assert ensemble.save()["world_model.safetensors"] == before
    assert (language.skipped, ensemble.skipped) == (3, 3)


def test_a_table_skips_what_is_not_finite_too() -> None:
    dyna = Dyna(("up", "down"), RewardModel({}), DynaSettings(step_size=1.0, updates=0))
    seen, after = (
        make_step(0, obs_text="a", reward=1e308, decision=Decision("up", 0)),
        make_step(1, obs_text="a"),
    )
    dyna.learn(seen, after)
    dyna.values["a"][0] = 1.7e308
    for _ in range(2):
        dyna.learn(seen, after)
    assert (dyna.skipped, dyna.values["a"]) == (2, [1.7e308, 0.0])
    with pytest.raises(DivergedError, match="table"):
        dyna.learn(seen, after)
