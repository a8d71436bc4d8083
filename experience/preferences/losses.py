"""Losses over rankings: pure functions of scores or of log-probabilities, each with its source.

A ranking holds K answers to one prompt. grades: float [P, K], higher is better; equal grades say
nothing of each other, and NaN marks an answer that is not there. Each loss is a sum over rankings
and how many those are, so that any cut of an update adds up to the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Sum = tuple[Tensor, float]
"""A sum over rankings, and the number of rankings."""
Rule = Callable[[Tensor, Tensor, Tensor, float], Sum]
"""A loss of (log π, log π_ref, grades, β): `direct` or `identity`."""


def pairs(grades: Tensor) -> Tensor:
    """1 where answer i is better than answer j, float [P, K, K]."""
    return (grades[:, :, None] > grades[:, None, :]).to(torch.float32)


def _over_pairs(losses: Tensor, grades: Tensor) -> Sum:
    """The mean over the pairs of a ranking, summed over the rankings that have pairs.

    losses: float [P, K, K] of (better, worse).
    """
    is_pair = pairs(grades)
    count = is_pair.sum((1, 2))
    # What is no pair may be NaN, and 0 · NaN would not be a number.
    total = torch.where(is_pair > 0, losses, 0.0).sum((1, 2))
    return (total / count.clamp(min=1)).sum(), float((count > 0).sum())


def bradley_terry(scores: Tensor, grades: Tensor) -> Sum:
    """−1/C(K,2) Σ_{(w,l)} log σ(r_w − r_l), all pairs of a ranking together.

    Ouyang et al. 2022 (InstructGPT), eq. 1. scores: float [P, K].
    """
    return _over_pairs(-functional.logsigmoid(_margins(scores)), grades)


def plackett_luce(scores: Tensor, grades: Tensor) -> Sum:
    """−Σ_k log(e^{r_(k)} / Σ_{j ≥ k} e^{r_(j)}), over the places of a ranking but the last.

    Plackett 1975; Luce 1959. Of two answers it is `bradley_terry`. Ties are broken in the order
    given. scores: float [P, K].
    """
    is_there = ~grades.isnan()
    order = torch.where(is_there, grades, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ordered = torch.where(is_there, scores, -torch.inf).gather(1, order)
    there = is_there.gather(1, order)
    rest = ordered.flip(1).logcumsumexp(1).flip(1)
    count = there.sum(1)
    places = torch.arange(grades.shape[1], device=grades.device)[None] < count[:, None] - 1
    total = torch.where(places, rest - ordered, 0.0).sum()
    return total, float((count > 1).sum())


def direct(logp: Tensor, logp_reference: Tensor, grades: Tensor, beta: float) -> Sum:
    """−log σ(β·(log π/π_ref(y_w) − log π/π_ref(y_l))), the mean over a ranking's pairs.

    Rafailov et al. 2023 (DPO), eq. 7. logp, logp_reference: float [P, K], of whole answers.
    """
    return bradley_terry(implied_rewards(logp, logp_reference, beta), grades)


def identity(logp: Tensor, logp_reference: Tensor, grades: Tensor, beta: float) -> Sum:
    """(log π/π_ref(y_w) − log π/π_ref(y_l) − 1/2β)², the mean over a ranking's pairs.

    Azar et al. 2023 (IPO), eq. 17. Unlike `direct` it has a minimum at a finite margin, however
    clear the preference is.
    """
    margins = _margins(implied_rewards(logp, logp_reference, 1.0))
    return _over_pairs((margins - 1 / (2 * beta)).square(), grades)


def implied_rewards(logp: Tensor, logp_reference: Tensor, beta: float) -> Tensor:
    """β·log π/π_ref: the reward whose best policy under β·KL is π, but for a constant of the prompt.

    Rafailov et al. 2023, eq. 5.
    """
    return beta * (logp - logp_reference)


def agreement(scores: Tensor, grades: Tensor) -> Sum:
    """The share of pairs that the scores order as the grades do, summed over rankings."""
    margins = _margins(scores)
    right = (margins > 0).to(torch.float32) + 0.5 * (margins == 0)
    return _over_pairs(right, grades)


def _margins(scores: Tensor) -> Tensor:
    """r_i − r_j, float [P, K, K]."""
    return scores[:, :, None] - scores[:, None, :]


def answer_weights(
    rule: Rule, logp: Tensor, logp_reference: Tensor, grades: Tensor, beta: float
) -> tuple[Tensor, float, float]:
    """(−∂L/∂log π(y) of each answer, float [P, K]; L; the number of rankings), L: `rule`'s mean.

    −Σ_y weight(y)·log π(y) has exactly the gradient of L. Unlike L it is a sum over answers, so
    that an update may be cut anywhere, also through a ranking.
    """
    with torch.enable_grad():
        given = logp.detach().requires_grad_()
        total, count = rule(given, logp_reference, grades, beta)
        mean = total / max(count, 1.0)
        (slope,) = torch.autograd.grad(mean, given)
    return -slope, float(mean.detach()), count
