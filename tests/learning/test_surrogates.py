"""Surrogates: each cell of the table of recipes against a number worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experience.learning.batch import TokenBatch, TokenCounts, TokenSequence, Turn
from experience.learning.objectives import PolicyGradient
from experience.learning.recipes.table import recipe
from experience.learning.surrogates.likelihood import preference_loss
from experience.learning.surrogates.ratios import mean_over, stale_negatives

HALF = math.log(0.5)


def turn(
    ratios: list[float], advantage: float, response: int = 0, stream: bytes = b"", start: int = 1
) -> Turn:
    """A turn whose tokens the present policy finds `ratios` times as likely as its sampler did.

    The present policy finds each token half as likely as not: log π = log ½.
    """
    logprobs = np.array([HALF - math.log(r) for r in ratios], np.float32)
    ids = np.arange(1, len(ratios) + 1, dtype=np.int32)
    return Turn(
        np.zeros(start, np.int32), ids, logprobs, advantage, response_tokens=response, stream=stream
    )


def loss_of(turns: list[Turn], **cells: object) -> tuple[float, torch.Tensor]:
    """(loss, gradient by log π) of a batch whose tokens all have log π = log ½."""
    batch = TokenBatch.of(turns)
    logp = torch.full(batch.mask.shape, HALF, requires_grad=True)
    proximal = torch.full(batch.mask.shape, HALF - math.log(1.5))
    batch = replace(batch, logp_proximal=proximal)
    loss, _ = PolicyGradient(recipe(cells)).loss(logp, batch, TokenCounts.of([batch]))
    loss.backward()
    assert logp.grad is not None
    return loss.item(), logp.grad


def test_no_surrogate_is_the_advantage_times_the_log_probability() -> None:
    loss, gradient = loss_of([turn([2.0, 1.0], 3.0)], surrogate="none")
    assert loss == pytest.approx(-3 * HALF)
    assert gradient.tolist() == [[-1.5, -1.5]], "whatever the ratio"


def test_clip_higher_lets_a_rare_token_rise_further_than_it_may_fall() -> None:
    for ratio, advantage, gain in ((1.5, 1.0, 1.28), (1.25, 1.0, 1.25), (0.5, -1.0, -0.8)):
        loss, gradient = loss_of([turn([ratio], advantage)], clip_dual=0.0)
        assert loss == pytest.approx(-gain, rel=1e-5)
        assert (gradient.abs().item() > 0) == (ratio == 1.25)
    assert loss_of([turn([9.0], -1.0)], clip_dual=3.0)[0] == pytest.approx(3.0)
    assert loss_of([turn([9.0], -1.0)], clip_dual=0.0)[0] == pytest.approx(9.0, rel=1e-5)


def test_cispo_caps_the_weight_and_no_token_loses_its_gradient() -> None:
    _, gradient = loss_of([turn([8.0, 0.5], 1.0)], like="cispo")
    assert gradient.tolist() == [[pytest.approx(-5 / 2), pytest.approx(-0.5 / 2)]]
    _, gradient = loss_of([turn([8.0, 0.5], 1.0)], like="truncated")
    assert gradient.tolist() == [[pytest.approx(-1 / 2), pytest.approx(-0.5 / 2)]]


def test_a_decoupled_ratio_is_clipped_around_the_start_and_weighed_by_the_samplers() -> None:
    """π/π_prox = 1.5 is clipped to 1.28; π_prox/μ = (3/1.5) = 2, capped at 1.2 in the second."""
    assert loss_of([turn([3.0], 1.0)], like="decoupled")[0] == pytest.approx(-2 * 1.28, rel=1e-5)
    capped = loss_of([turn([3.0], 1.0)], like="decoupled", weight_cap=1.2)[0]
    assert capped == pytest.approx(-1.2 * 1.28, rel=1e-5)


def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens() -> None:
    """√(2 · ½) = 1: nothing is clipped, though both tokens are far away; each has a gradient."""
    loss, gradient = loss_of([turn([2.0, 0.5], 1.0)], ratio="sequence")
    assert loss == pytest.approx(-1.0, rel=1e-5)
    assert gradient.tolist() == [[pytest.approx(-0.5), pytest.approx(-0.5)]]
    loss, gradient = loss_of([turn([1.01, 1.01], 1.0)], like="gspo")
    assert loss == pytest.approx(-1.0004, rel=1e-5) and not gradient.any()


def test_a_turn_ratio_is_that_of_the_turns_tokens_within_a_sequence() -> None:
    first = turn([2.0], 1.0, stream=b"a")
    second = Turn(
        np.array([0, 1, 7], np.int32), np.array([1], np.int32),
        np.array([HALF - math.log(0.5)], np.float32), 1.0, stream=b"a", t=1,
    )  # fmt: skip
    whole = TokenSequence((first, second))
    batch = TokenBatch.of([whole])
    logp = torch.full(batch.mask.shape, HALF)

    def loss(ratio: str) -> float:
        rule = PolicyGradient(recipe({"ratio": ratio}))
        return rule.loss(logp, batch, TokenCounts.of([batch]))[0].item()

    assert loss("turn") == pytest.approx(-(1.28 + 0.5) / 2, rel=1e-5)
    assert loss("sequence") == pytest.approx(-1.0, rel=1e-5)


def test_what_a_sum_is_divided_by_is_a_cell() -> None:
    """Responses of 1 and 3 tokens with Â = 4 and 0: by tokens 1, by responses 2, by 2·10: 0.2."""
    turns = [turn([1.0], 4.0), turn([1.0] * 3, 0.0)]
    assert loss_of(turns, over="tokens")[0] == pytest.approx(-1.0)
    assert loss_of(turns, over="responses")[0] == pytest.approx(-2.0)
    assert loss_of(turns, over="constant", constant_tokens=10)[0] == pytest.approx(-0.2)


def test_the_turns_of_an_episode_are_one_response_however_they_are_cut() -> None:
    """A response of 4 tokens in two turns (Â = 1), and one of 1 token (Â = 3): the mean is 2."""
    turns = [turn([1.0], 1.0, 4), turn([1.0] * 3, 1.0, 4), turn([1.0], 3.0)]
    assert loss_of(turns, over="responses")[0] == pytest.approx(-2.0)


def test_stale_failures_are_left_out_as_sequences_and_successes_never() -> None:
    """Mean of log μ − log π: log 4 > 1 for the first and second."""
    turns = [turn([0.25], -1.0), turn([0.25], 1.0), turn([0.5], -1.0)]
    loss, gradient = loss_of(turns, surrogate="none", mask="stale_negatives", mask_limit=1.0)
    assert gradient.flatten().tolist() == pytest.approx([0.0, -1 / 3, 1 / 3])
    assert loss == pytest.approx((1.0 - 1.0) * HALF / 3, abs=1e-6)
    kept = stale_negatives(
        torch.tensor([[-3.0, -5.0]]), torch.zeros(1, 2), -torch.ones(1, 2), torch.ones(1, 2), 3.9
    )
    assert kept.tolist() == [[0.0, 0.0]]


def test_icepop_leaves_out_tokens_whose_ratio_is_far_off() -> None:
    _, gradient = loss_of([turn([3.0, 0.3, 1.0], 1.0)], surrogate="none", mask="icepop")
    assert gradient.tolist() == [[0.0, 0.0, pytest.approx(-1 / 3)]], "the count is that of all"


def test_negative_advantages_weigh_as_their_turns_say_and_weights_leave_denominators() -> None:
    half = replace(turn([1.0], 2.0), weight=0.5)
    assert loss_of([half, turn([1.0], 0.0)])[0] == pytest.approx(-0.5)


def test_a_mean_over_groups_leaves_out_what_is_masked() -> None:
    values = torch.tensor([[1.0, 3.0, -torch.inf, 8.0]])
    groups, mask = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    assert mean_over(values, groups, mask).tolist() == [[2.0, 2.0, 8.0, 8.0]]


def test_a_preference_of_equal_policies_costs_ln_2_and_less_once_it_is_followed() -> None:
    zero = torch.zeros(1)
    assert preference_loss(zero, zero, zero, zero, 0.1).item() == pytest.approx(math.log(2))
    better = torch.tensor([2.0])
    expected = -math.log(1 / (1 + math.exp(-0.5 * 2)))
    assert preference_loss(better, zero, zero, zero, 0.5).item() == pytest.approx(expected)
