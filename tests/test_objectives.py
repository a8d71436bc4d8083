"""Objectives: each meets a number worked out by hand, and any can be named in a configuration."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.config.schema import Config, Learning, load
from actors.engines.registry import make_model
from actors.running.assembly import make_learner
from experience.errors import ConfigError
from experience.learning.batch import TokenBatch, TokenCounts, Turn
from experience.learning.learner import LearnerSettings
from experience.learning.objectives import (
    ActionLikelihood,
    Divergence,
    ObservationLikelihood,
    PolicyGradient,
    WeightedLikelihood,
    lived_terms,
)
from experience.learning.recipes.recipe import Recipe
from experience.learning.recipes.table import RECIPES, recipe
from experience.learning.surrogates.likelihood import k3_divergence
from experience.learning.token_learner import TokenLearner
from experience.learning.value import ValueFunction
from experience.planning.tabular import DynaSettings
from experience.reward import RewardModel
from tests.test_learning import group_of, tiny

CONSTRUCTED_BY_NAME = "tests.test_objectives:Reinforce"


@dataclass(frozen=True)
class Reinforce:
    """A stranger's objective: −Â·log π, without a ratio."""

    kl_weight: float = 7.0

    def loss(
        self, logp: Tensor, batch: TokenBatch, counts: TokenCounts
    ) -> tuple[Tensor, dict[str, float]]:
        loss = -(batch.advantage[:, None] * logp * batch.mask).sum() / counts.chosen
        return loss, {"reinforce": float(loss.detach())}


def batch_of(advantages: list[float], behaviour: float = math.log(0.5)) -> TokenBatch:
    """One prompt token and two action tokens a turn."""
    ids, logprobs = np.array([1, 2], np.int32), np.full(2, behaviour, np.float32)
    return TokenBatch.of([Turn(ids[:1], ids, logprobs, a) for a in advantages])


def test_grpo_is_the_clipped_ratio_times_the_advantage_over_the_tokens_of_the_update() -> None:
    """π/μ = 1.5 with Â = 1 is clipped to 1.28; with Â = −1 it counts in full."""
    batch = batch_of([1.0, -1.0])
    logp = torch.full((2, 2), math.log(0.75))
    loss, metrics = PolicyGradient(Recipe()).loss(logp, batch, TokenCounts(8.0, 1.0))
    assert loss.item() == pytest.approx((2 * -1.28 + 2 * 1.5) / 8)
    assert metrics["clipped"] == pytest.approx(2 / 8)
    assert metrics["kl"] == pytest.approx(4 * (1.5 - 1 - math.log(1.5)) / 8, rel=1e-5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_k3_is_the_ratio_less_one_less_its_logarithm(ratio: float) -> None:
    reference = torch.tensor([[math.log(ratio), -torch.inf]])
    found = k3_divergence(torch.zeros(1, 2), reference, torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)


def test_a_divergence_is_k3_in_value_and_has_the_gradient_of_the_divergence() -> None:
    """Where π = ½ and the reference ¼: k3 = ½ − 1 − ln ½, and ∇ = log(π/π_ref) = ln 2 a token."""
    batch = replace(batch_of([1.0]), logp_reference=torch.full((1, 2), math.log(0.25)))
    logp = torch.full((1, 2), math.log(0.5), requires_grad=True)
    loss, metrics = Divergence().loss(logp, batch, TokenCounts.of([batch]))
    k3 = 0.5 - 1 - math.log(0.5)
    assert metrics["kl_reference"] == pytest.approx(k3, rel=1e-5)
    assert loss.item() == pytest.approx(k3, rel=1e-5)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.sum().item() == pytest.approx(math.log(2)), "towards the reference"


def test_a_divergence_without_log_probabilities_of_a_reference_is_refused() -> None:
    batch = batch_of([1.0])
    with pytest.raises(ConfigError, match="no log-probabilities of a reference"):
        Divergence().loss(torch.zeros(1, 2), batch, TokenCounts.of([batch]))


def test_imitation_is_the_nll_of_actions_plus_that_of_observations() -> None:
    ids = np.array([1, 2, 3], np.int32)
    batch = TokenBatch.of([Turn(ids, ids[:1], np.zeros(1, np.float32))])
    logp = torch.tensor([[-1.0, -3.0, -5.0]])  # two observed tokens, then the action
    counts = TokenCounts.of([batch])
    loss, metrics = ActionLikelihood().loss(logp, batch, counts)
    assert loss.item() == 5.0 and metrics == {"nll": 5.0}
    assert ObservationLikelihood().loss(logp, batch, counts)[0].item() == (1.0 + 3.0) / 2


def test_weighted_imitation_is_in_proportion_to_a_positive_advantage() -> None:
    batch = batch_of([2.0, -2.0])
    logp = torch.full((2, 2), -0.5, requires_grad=True)
    loss, _ = WeightedLikelihood().loss(logp, batch, TokenCounts.of([batch]))
    loss.backward()
    assert loss.item() == pytest.approx((2 * 2.0 * 0.5) / 4)
    assert logp.grad is not None
    assert logp.grad.tolist() == [[-0.5, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_tokens_that_the_decoder_barred(name: str) -> None:
    """What is masked has a log-probability of −∞: neither a loss nor a gradient may see it."""
    batch = replace(batch_of([1.0]), mask=torch.tensor([[1.0, 0.0]]))
    barred = torch.tensor([[-1.0, -torch.inf]])
    batch = replace(batch, logp_reference=barred, logp_proximal=barred)
    scores = barred.clone().requires_grad_()
    for term in lived_terms(RECIPES[name]):
        loss, metrics = term.objective.loss(scores, batch, TokenCounts.of([batch]))
        loss.backward()
        assert math.isfinite(loss.item())
        assert all(math.isfinite(value) for value in metrics.values())
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_a_loss_from_elsewhere_takes_the_cells_that_are_its_fields() -> None:
    (term,) = lived_terms(recipe(CONSTRUCTED_BY_NAME))
    assert term.objective == Reinforce(0.0)
    term, *_ = lived_terms(recipe({"like": CONSTRUCTED_BY_NAME, "kl_weight": 0.5}))
    assert term.objective == Reinforce(0.5)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("no_such_package:Loss", "cannot be imported"),
        ("tests.test_objectives:Missing", "cannot be imported"),
        ("pathlib:Path", "no method `loss`"),
        ("tests.test_objectives:", "cannot be imported"),
        (":Loss", "cannot be imported"),
    ],
)
def test_what_is_no_loss_is_a_configuration_error_that_says_what_to_do(
    name: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        lived_terms(recipe(name))


def made(*settings: str) -> TokenLearner:
    config, _ = load([], ["policy.layers=1", "policy.width=32", "policy.heads=4", *settings])
    learner = make_learner(config, make_model(config.policy, 0), RewardModel({}))
    assert isinstance(learner, TokenLearner)
    return learner


def test_the_configuration_names_the_recipe() -> None:
    assert made().trainer.recipe == Recipe(source=RECIPES["grpo"].source)
    chosen = made("learning.recipe=ppo_kl", "learning.recipe.kl_weight=0.2")
    assert chosen.trainer.recipe == replace(RECIPES["ppo_kl"], kl_weight=0.2)
    own = made(f"learning.recipe='{CONSTRUCTED_BY_NAME}'")
    assert [term.objective for term in own.trainer.terms] == [Reinforce(0.0)]


def test_a_strangers_objective_is_what_an_update_minimises() -> None:
    learner = TokenLearner(tiny(), LearnerSettings(recipe=CONSTRUCTED_BY_NAME, minibatches=1))
    metrics = learner.improve([group_of([1.0, 0.0])])
    assert "reinforce" in metrics and "clipped" not in metrics


def improved(learner: TokenLearner, times: int, rate: float = 1.0) -> float:
    """The divergence from the reference after some updates on the same group."""
    for _ in range(times):
        metrics = learner.improve([group_of([1.0, 0.0, 0.3])], rate)
        learner.publish()
    return metrics["kl_reference"]


def test_ppo_kl_holds_the_policy_near_what_it_was_before_its_first_update() -> None:
    settings = LearnerSettings(minibatches=1, imitation_weight=0.0)
    free, held = (
        TokenLearner(tiny(), replace(settings, recipe={"like": "ppo_kl", "kl_weight": weight}))
        for weight in (1e-9, 10.0)
    )
    assert improved(free, 1) == pytest.approx(0.0, abs=1e-6), "the reference is the policy itself"
    improved(held, 1)
    assert improved(free, 4) > 2 * improved(held, 4) > 0


def test_a_resumed_learner_keeps_the_reference_of_its_first_update() -> None:
    settings = LearnerSettings(recipe={"like": "ppo_kl", "kl_weight": 1.0}, minibatches=1)
    whole = TokenLearner(tiny(), settings)
    improved(whole, 3)
    again = TokenLearner(tiny(9), settings)
    again.restore(whole.save(), [], [group_of([1.0, 0.0, 0.3])] * 3)
    assert improved(whole, 2) == improved(again, 2)
    assert whole.policy() == again.policy()


def test_defaults_stand_in_one_place() -> None:
    """What a run takes and what a learner made by hand takes are the same."""
    settings, configured = asdict(LearnerSettings()), dict(Learning())
    shared = settings.keys() & configured.keys()
    assert {"imitation_rate", "batch_turns", "recipe", "precision"} <= shared
    assert {name: configured[name] for name in shared} == {name: settings[name] for name in shared}
    made_by_hand = ValueFunction(1, 16, 16, seed=0)._optimizer.param_groups[0]["lr"]
    assert configured["value_rate"] == made_by_hand
    assert configured["step_size"] == DynaSettings().step_size
    assert settings.keys() - configured.keys() == {"gradient_norm", "remembered_successes", "seed"}
    assert Config().learning == Learning()


def test_the_objective_of_the_docs_page_is_learned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "add-an-objective.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_losses.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (words,) = re.findall(r"(learning\.recipe=\S+) (learning\.\S+)", page)
    learner = made(*words)
    batch = batch_of([2.0])
    loss, metrics = learner.trainer.terms[0].objective.loss(
        torch.full((1, 2), math.log(0.75)), batch, TokenCounts.of([batch])
    )
    assert metrics["mean_weight"] == pytest.approx(1.5)
    assert loss.item() == pytest.approx(-1.5 * 2.0 * math.log(0.75))
    assert "mean_weight" in learner.improve([group_of([1.0, 0.0])])
