"""Preferences: each loss meets a number worked out by hand, and rankings come from the store."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experience.episode import Episode, Group
from experience.errors import ConfigError, WeightsError
from experience.learning.advantages import ranked_turns
from experience.learning.learner import LearnerSettings
from experience.learning.token_learner import TokenLearner
from experience.learning.trainer import Trainer
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import TransformerShape
from experience.models.weights import Weights
from experience.policy import VersionSpan
from experience.preferences import losses
from experience.preferences.fitting import FitSettings, answers_of, fit_model
from experience.preferences.model import PreferenceModel, read_model
from experience.preferences.rankings import (
    CHOICE,
    RATING,
    Ranking,
    by_people,
    by_return,
    rankings,
)
from experience.shards.amend import Amendment, amend
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind
from experience.step import Boundary
from tests.conftest import CATALOGUE, make_step
from tests.test_learning import tiny

TOKENS = ByteTokenizer()
NAN = math.nan


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_bradley_terry_is_the_mean_over_all_pairs_of_a_ranking() -> None:
    """(−log σ(1) − log σ(2) − log σ(1)) / 3 = (0.313262 + 0.126928 + 0.313262) / 3"""
    total, count = losses.bradley_terry(logs([2.0, 1.0, 0.0]), logs([3.0, 2.0, 1.0]))
    assert (total.item(), count) == (pytest.approx(0.251151, abs=1e-6), 1.0)


def test_equal_and_missing_answers_are_no_pairs() -> None:
    scores, grades = logs([2.0, 1.0, 0.0, 9.0]), logs([1.0, 0.0, 0.0, NAN])
    total, count = losses.bradley_terry(scores, grades)
    assert total.item() == pytest.approx((0.313262 + 0.126928) / 2, abs=1e-6)
    assert losses.bradley_terry(scores[:, 1:3], grades[:, 1:3])[1] == 0.0
    assert count == 1.0


def test_plackett_luce_chooses_the_best_of_those_that_are_left() -> None:
    """log(e² + e + 1) − 2 + log(e + 1) − 1 = 0.407606 + 0.313262"""
    total, _ = losses.plackett_luce(logs([1.0, 0.0, 2.0, 5.0]), logs([2.0, 1.0, 3.0, NAN]))
    assert total.item() == pytest.approx(0.720868, abs=1e-6)


def test_plackett_luce_of_two_answers_is_bradley_terry() -> None:
    scores, grades = logs([0.3, -1.1]), logs([0.0, 1.0])
    one, other = losses.plackett_luce(scores, grades), losses.bradley_terry(scores, grades)
    assert one[0].item() == pytest.approx(other[0].item())


def test_dpo_is_minus_log_sigma_of_the_implied_rewards_margin() -> None:
    """β = 0.5: 0.5·((−1 + 2) − (−2 + 2)) = 0.5, and −log σ(0.5) = 0.474077"""
    given = logs([-1.0, -2.0]), logs([-2.0, -2.0]), logs([1.0, 0.0])
    total, _ = losses.direct(*given, 0.5)
    assert total.item() == pytest.approx(0.474077, abs=1e-6)
    assert losses.implied_rewards(given[0], given[1], 0.5).tolist() == [[0.5, 0.0]]


def test_ipo_has_its_minimum_at_a_margin_of_one_over_two_beta() -> None:
    given = logs([-1.0, -2.0]), logs([-2.0, -2.0]), logs([1.0, 0.0])
    assert losses.identity(*given, 0.5)[0].item() == pytest.approx(0.0)
    assert losses.identity(*given, 0.25)[0].item() == pytest.approx(1.0)  # (1 − 2)²


def test_the_weight_of_an_answer_is_minus_the_slope_of_the_loss() -> None:
    """β·σ(−0.5) = 0.5·0.377541"""
    given = logs([-1.0, -2.0]), logs([-2.0, -2.0]), logs([1.0, 0.0])
    weights, loss, count = losses.answer_weights(losses.direct, *given, 0.5)
    assert weights.tolist() == [
        [pytest.approx(0.188770, abs=1e-6), pytest.approx(-0.188770, abs=1e-6)]
    ]
    assert (loss, count) == (pytest.approx(0.474077, abs=1e-6), 1.0)


def test_agreement_is_the_share_of_pairs_ordered_as_graded() -> None:
    total, _ = losses.agreement(logs([2.0, 0.0, 1.0]), logs([3.0, 2.0, 1.0]))
    assert total.item() == pytest.approx(2 / 3)


def episode(answer: str, stream: int = 0, reward: float | None = 0.0, **changes: object) -> Episode:
    """One turn, which writes `answer`, and its closing row."""
    key = stream.to_bytes(16, "little")
    step = make_step(0, key, obs_text="say", reward=reward, group_id="g", **changes)
    decision = replace(
        step.decision,
        text=answer,
        prompt_ids=TOKENS.prompt("say"),
        action_ids=TOKENS.action(answer),
        logprobs=np.full(len(answer) + 1, -1.0, np.float32),
        version_spans=(VersionSpan(3, len(answer) + 1),),
        allowed_ids=np.empty(0, np.int32),
        allowed_counts=np.empty(0, np.int32),
        prompt_cut=0,
    )
    closing = make_step(
        1, key, closing=True, obs_text="", ending="terminated", group_id="g",
        boundary=Boundary.TERMINATED,
    )  # fmt: skip
    return Episode((replace(step, decision=decision, ending="terminated"),), closing)


def group(*answers: str) -> Group:
    """Shorter answers earn more."""
    return Group("g", tuple(episode(a, i, -float(len(a))) for i, a in enumerate(answers)))


@pytest.mark.parametrize("rule", [losses.direct, losses.identity])
def test_an_update_by_weights_is_the_update_by_the_loss_however_it_is_cut(
    rule: losses.Rule,
) -> None:
    (ranking,) = by_return([group("a", "bbb", "cc")])
    grades = torch.tensor([ranking.grades])
    gradients = []
    for most in (64, 1 << 20):
        settings = LearnerSettings(recipe="dpo", micro_batch_tokens=most, gradient_norm=1e9)
        trainer = Trainer(tiny(), settings)
        trainer.keep_reference()
        _shift(trainer)
        turns, metrics = ranked_turns([ranking], rule, 0.3, trainer.likelihoods)
        trainer.update(turns, [], 0.0)
        gradients.append(_gradient(trainer))
    trainer = Trainer(tiny(), LearnerSettings(recipe="dpo", micro_batch_tokens=1 << 20))
    trainer.keep_reference()
    _shift(trainer)
    logp = torch.stack([_likelihood(trainer.model, t) for t in turns])[None]
    _, reference = trainer.likelihoods(turns)
    loss, _ = rule(logp, reference[None], grades, 0.3)
    loss.backward()
    wanted = _gradient(trainer)
    assert metrics["preference_loss"] == pytest.approx(loss.item(), rel=1e-4)
    for found in gradients:
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5)
        assert found.abs().max() > 1e-3


def _shift(trainer: Trainer) -> None:
    """Away from the reference, so that margins are not all 0."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.02 * torch.randn_like(p))


def _gradient(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def _likelihood(model: torch.nn.Module, turn) -> torch.Tensor:  # type: ignore[no-untyped-def]
    tokens = torch.from_numpy(np.concatenate([turn.prompt, turn.action]).astype(np.int64))[None]
    logp = model(tokens)[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[0, :, 0]
    return logp[len(turn.prompt) - 1 :].sum()


@pytest.mark.parametrize("objective", ["dpo", "ipo"])
def test_a_run_may_learn_from_rankings_by_the_objectives_name(objective: str) -> None:
    settings = LearnerSettings(
        recipe=objective, learning_rate=1e-3, imitation_weight=0.0, minibatches=1
    )
    learner = TokenLearner(tiny(), settings)
    groups = [group("a", "bbb"), group("ccc", "d")]
    first = learner.improve(groups)
    for _ in range(8):
        last = learner.improve(groups)
    assert last["preference_loss"] < first["preference_loss"]
    assert last["preference_agreement"] == 1.0


def test_what_people_said_ranks_before_the_return() -> None:
    said = Signal(RATING, 0.9, "of 1", "human"), Signal(RATING, 0.2, "of 1", "human")
    rated = [
        replace(e, steps=(replace(e.steps[0], signals=(s,)),))
        for e, s in zip(group("long", "x").episodes, said, strict=True)
    ]
    assert by_people([Group("g", tuple(rated))])[0].grades == (0.9, 0.2)
    assert by_return([group("long", "x")])[0].grades == (-4.0, -1.0)
    assert by_return([group("x", "y")]) == []


def test_choices_and_ratings_of_people_are_read_from_the_store(tmp_path: Path) -> None:
    store = written(tmp_path, [episode("a", 0), episode("b", 1), episode("c", 2)])
    keys = [i.to_bytes(16, "little") for i in range(3)]
    with pytest.raises(ConfigError, match="no two episodes are ranked by people"):
        rankings(store, "people")
    kinds = {CHOICE: SignalKind("1", "human"), RATING: SignalKind("of 1", "human")}
    over = f"over {keys[1].hex()}:0, {keys[2].hex()}:0"
    amend(store, [Amendment(keys[0], 0, CHOICE, 1.0, evidence=over)], new=kinds)
    amend(
        store, [Amendment(keys[1], 0, RATING, 0.1), Amendment(keys[2], 0, RATING, 0.8)], new=kinds
    )
    chosen, rated = rankings(store, "people")
    assert [e.steps[0].decision.text for e in chosen.episodes] == ["a", "b", "c"]
    assert chosen.grades == (1.0, 0.0, 0.0)
    assert dict(
        zip([e.steps[0].decision.text for e in rated.episodes], rated.grades, strict=True)
    ) == {"b": 0.1, "c": 0.8}


def written(folder: Path, episodes: list[Episode]) -> Path:
    journal = Journal(folder / "shards" / "w", CATALOGUE)
    for one in episodes:
        for row in one.rows:
            journal.append(row)
    journal.close()
    return folder / "shards"


SHAPE = TransformerShape(ByteTokenizer.size, layers=1, width=32, heads=2, context=64)


def fitted(seed: int = 0) -> tuple[PreferenceModel, float]:
    """A model that was shown that shorter answers are better."""
    torch.manual_seed(seed)
    model = PreferenceModel(SHAPE)
    shown = [
        Ranking(tuple(episode("x" * n) for n in some), tuple(-float(n) for n in some))
        for some in ((1, 4, 7), (2, 5, 9), (3, 8, 6), (1, 9, 5))
    ]
    held_out = [Ranking((episode("x" * 2), episode("x" * 8)), (1.0, 0.0))]
    found = fit_model(
        model, answers_of(shown, 64), answers_of(held_out, 64), FitSettings(passes=30, rate=3e-3)
    )
    return model, found.agreement


def test_a_preference_model_orders_episodes_that_it_was_not_shown() -> None:
    model, agreement = fitted()
    scores = model.score([episode("x"), episode("x" * 8)])
    assert agreement == 1.0
    assert scores[0] > scores[1]


def test_a_saved_preference_model_scores_the_same_and_is_named_by_its_weights(
    tmp_path: Path,
) -> None:
    model, _ = fitted()
    (tmp_path / "taste.safetensors").write_bytes(model.save())
    again, version = read_model(tmp_path / "taste.safetensors")
    assert again.score([episode("xx")]).tolist() == model.score([episode("xx")]).tolist()
    assert asdict(again.trunk.shape) == asdict(SHAPE)
    with torch.no_grad():
        model.head.weight.add_(1.0)
    (tmp_path / "other.safetensors").write_bytes(model.save())
    assert read_model(tmp_path / "other.safetensors")[1] != version


def test_a_file_that_is_no_preference_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="xp prefer"):
        read_model(tmp_path / "none.safetensors")
    (tmp_path / "policy.safetensors").write_bytes(Weights.of(tiny(), 0).data)
    with pytest.raises(WeightsError, match="no preference model"):
        read_model(tmp_path / "policy.safetensors")
