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
from experience.learning.losses import k3_divergence
from experience.learning.objectives import (
    GRPO,
    OBJECTIVES,
    PPOKL,
    SFT,
    WeightedSFT,
    objective,
)
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
    loss, metrics = GRPO().loss(logp, batch, TokenCounts(8.0, 1.0))
    assert loss.item() == pytest.approx((2 * -1.28 + 2 * 1.5) / 8)
    assert metrics["clipped"] == pytest.approx(2 / 8)
    assert metrics["kl"] == pytest.approx(4 * (1.5 - 1 - math.log(1.5)) / 8, rel=1e-5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_k3_is_the_ratio_less_one_less_its_logarithm(ratio: float) -> None:
    reference = torch.tensor([[math.log(ratio), -torch.inf]])
    found = k3_divergence(torch.zeros(1, 2), reference, torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)


def test_ppo_kl_adds_the_divergence_from_the_reference_to_grpo() -> None:
    batch = replace(batch_of([1.0]), logp_reference=torch.full((1, 2), math.log(0.25)))
    logp = torch.full((1, 2), math.log(0.5), requires_grad=True)
    counts = TokenCounts.of([batch])
    plain, _ = GRPO().loss(logp, batch, counts)
    loss, metrics = PPOKL(kl_weight=2.0).loss(logp, batch, counts)
    k3 = 0.5 - 1 - math.log(0.5)
    assert metrics["kl_reference"] == pytest.approx(k3, rel=1e-5)
    assert (loss - plain).item() == pytest.approx(2.0 * k3, rel=1e-5)
    (loss - plain).backward()
    assert logp.grad is not None
    assert logp.grad.sum().item() == pytest.approx(2.0 * (1 - 0.5)), "towards the reference"


def test_ppo_kl_without_log_probabilities_of_a_reference_is_refused() -> None:
    batch = batch_of([1.0])
    with pytest.raises(ConfigError, match="no log-probabilities of a reference"):
        PPOKL().loss(torch.zeros(1, 2), batch, TokenCounts.of([batch]))


def test_sft_is_the_nll_of_actions_plus_that_of_observations() -> None:
    ids = np.array([1, 2, 3], np.int32)
    batch = TokenBatch.of([Turn(ids, ids[:1], np.zeros(1, np.float32))])
    logp = torch.tensor([[-1.0, -3.0, -5.0]])  # two observed tokens, then the action
    loss, metrics = SFT(observation_weight=0.5).loss(logp, batch, TokenCounts.of([batch]))
    assert loss.item() == pytest.approx(5.0 + 0.5 * (1.0 + 3.0) / 2)
    assert metrics == {"nll": 5.0}


def test_weighted_sft_imitates_in_proportion_to_a_positive_advantage() -> None:
    batch = batch_of([2.0, -2.0])
    logp = torch.full((2, 2), -0.5, requires_grad=True)
    loss, _ = WeightedSFT().loss(logp, batch, TokenCounts.of([batch]))
    loss.backward()
    assert loss.item() == pytest.approx((2 * 2.0 * 0.5) / 4)
    assert logp.grad is not None
    assert logp.grad.tolist() == [[-0.5, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_survives_tokens_that_the_decoder_barred(name: str) -> None:
    """What is masked has a log-probability of −∞: neither a loss nor a gradient may see it."""
    batch = replace(batch_of([1.0]), mask=torch.tensor([[1.0, 0.0]]))
    batch = replace(batch, logp_reference=torch.tensor([[-1.0, -torch.inf]]))
    scores = torch.tensor([[-1.0, -torch.inf]], requires_grad=True)
    loss, metrics = objective(name, {}).loss(scores, batch, TokenCounts.of([batch]))
    loss.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all() and math.isfinite(loss.item())
    assert all(math.isfinite(value) for value in metrics.values())


def test_an_objective_takes_the_settings_that_are_its_fields() -> None:
    settings = asdict(LearnerSettings(clip_below=0.1, clip_above=0.3, kl_weight=0.5))
    assert objective("grpo", settings) == GRPO(0.1, 0.3)
    assert objective("ppo_kl", settings) == PPOKL(0.1, 0.3, kl_weight=0.5)
    assert objective("sft", settings) == WeightedSFT()
    assert objective(CONSTRUCTED_BY_NAME, settings) == Reinforce(0.5)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gpro", "grpo, ppo_kl, sft"),
        ("no_such_package:Loss", "cannot be imported"),
        ("tests.test_objectives:Missing", "cannot be imported"),
        ("pathlib:Path", "no method `loss`"),
        ("tests.test_objectives:", "cannot be imported"),
        (":Loss", "cannot be imported"),
    ],
)
def test_what_is_no_objective_is_a_configuration_error_that_says_what_there_is(
    name: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        objective(name, {})


def made(*settings: str) -> TokenLearner:
    config, _ = load([], ["policy.layers=1", "policy.width=32", "policy.heads=4", *settings])
    learner = make_learner(config, make_model(config.policy, 0), RewardModel({}))
    assert isinstance(learner, TokenLearner)
    return learner


def test_the_configuration_names_the_objective() -> None:
    assert made().trainer.objective == GRPO(0.2, 0.28)
    chosen = made("learning.objective=ppo_kl", "learning.kl_weight=0.2", "learning.clip_above=0.5")
    assert chosen.trainer.objective == PPOKL(0.2, 0.5, kl_weight=0.2)
    assert made(f"learning.objective='{CONSTRUCTED_BY_NAME}'").trainer.objective == Reinforce(0.04)
    with pytest.raises(ConfigError, match="there are: grpo, ppo_kl, sft"):
        made("learning.objective=gppo")


def test_a_strangers_objective_is_what_an_update_minimises() -> None:
    learner = TokenLearner(tiny(), LearnerSettings(objective=CONSTRUCTED_BY_NAME, minibatches=1))
    metrics = learner.improve([group_of([1.0, 0.0])])
    assert "reinforce" in metrics and "clipped" not in metrics


def improved(learner: TokenLearner, times: int, rate: float = 1.0) -> float:
    """The divergence from the reference after some updates on the same group."""
    for _ in range(times):
        metrics = learner.improve([group_of([1.0, 0.0, 0.3])], rate)
        learner.publish()
    return metrics["kl_reference"]


def test_ppo_kl_holds_the_policy_near_what_it_was_before_its_first_update() -> None:
    settings = LearnerSettings(objective="ppo_kl", minibatches=1, imitation_weight=0.0)
    free, held = (
        TokenLearner(tiny(), replace(settings, kl_weight=weight)) for weight in (0.0, 10.0)
    )
    assert improved(free, 1) == pytest.approx(0.0, abs=1e-6), "the reference is the policy itself"
    improved(held, 1)
    assert improved(free, 4) > 2 * improved(held, 4) > 0


def test_a_resumed_learner_keeps_the_reference_of_its_first_update() -> None:
    settings = LearnerSettings(objective="ppo_kl", minibatches=1, kl_weight=1.0)
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
    assert {"imitation_rate", "batch_turns", "objective", "clip_above"} <= shared
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
    (words,) = re.findall(r"(learning\.objective=\S+) (learning\.\S+)", page)
    learner = made(*words)
    batch = batch_of([2.0])
    loss, metrics = learner.trainer.objective.loss(
        torch.full((1, 2), math.log(0.75)), batch, TokenCounts.of([batch])
    )
    assert metrics["mean_weight"] == pytest.approx(1.5)
    assert loss.item() == pytest.approx(-1.5 * 2.0 * math.log(0.75))
    assert "mean_weight" in learner.improve([group_of([1.0, 0.0])])
