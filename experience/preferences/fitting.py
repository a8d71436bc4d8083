"""Fitting a preference model to rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experience.errors import DivergedError
from experience.preferences import losses
from experience.preferences.model import PreferenceModel, padded, transcript
from experience.preferences.rankings import Ranking

Answers = tuple[Sequence[np.ndarray], Sequence[float]]
"""The transcripts of one ranking, int32 [L] each, and their grades."""


@dataclass(frozen=True)
class FitSettings:
    """centring: c of c·E[r²], which keeps scores from drifting: a ranking tells no zero.

    rankings: of one optimiser step. All pairs of a ranking are in the same step: shuffled over
    steps they overfit (Ouyang et al. 2022, section 3.5).
    """

    passes: float = 20.0
    rankings: int = 4
    rate: float = 1e-3
    centring: float = 0.01
    listwise: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """agreement: the share of held-out pairs that the model orders as they were ranked; None if no
    ranking was held out. chance is ½."""

    rankings: int
    pairs: int
    steps: int
    loss: float
    agreement: float | None


def answers_of(rankings: Sequence[Ranking], context: int) -> list[Answers]:
    return [([transcript(e, context) for e in r.episodes], r.grades) for r in rankings]


def fit_model(
    model: PreferenceModel,
    shown: Sequence[Answers],
    held_out: Sequence[Answers] = (),
    settings: FitSettings = FitSettings(),
    said: Callable[[int, int], None] = lambda step, steps: None,
) -> Fitted:
    """Fits the model by the Bradley–Terry loss (`listwise`: Plackett–Luce), and notes the mean and
    spread of its scores. Raises DivergedError if the loss is not finite."""
    rng = np.random.default_rng(settings.seed)
    rise = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(rise, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01)
    steps = max(round(settings.passes * len(shown) / settings.rankings), 1)
    order: list[int] = []
    last = float("nan")
    for step in range(steps):
        while len(order) < settings.rankings:
            order += rng.permutation(len(shown)).tolist()
        some = [shown[i] for i in order[: settings.rankings]]
        del order[: settings.rankings]
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / steps)
        last = _step(model, optimizer, some, settings)
        said(step + 1, steps)
    _standardise(model, shown)
    found = agreement(model, held_out) if held_out else None
    pairs = sum(sum(a > b for a in grades for b in grades) for _, grades in shown)
    return Fitted(len(shown), pairs, steps, last, found)


def _step(
    model: PreferenceModel,
    optimizer: torch.optim.Optimizer,
    some: Sequence[Answers],
    settings: FitSettings,
) -> float:
    scores, grades = _scored(model, some)
    rule = losses.plackett_luce if settings.listwise else losses.bradley_terry
    total, count = rule(scores, grades)
    there = scores[~grades.isnan()]
    loss = total / max(count, 1.0) + settings.centring * there.square().mean()
    if not bool(torch.isfinite(loss)):
        raise DivergedError(
            f"the preference model's loss is {float(loss)}", {}, "a smaller rate may help"
        )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(total.detach()) / max(count, 1.0)


def _scored(model: PreferenceModel, some: Sequence[Answers]) -> tuple[Tensor, Tensor]:
    """Scores and grades, float [P, K] each; NaN grades where a ranking has fewer answers."""
    flat = model(*padded([t for transcripts, _ in some for t in transcripts]))
    widest = max(len(grades) for _, grades in some)
    grades = torch.full((len(some), widest), torch.nan)
    rows, columns = list[int](), list[int]()
    for row, (_, given) in enumerate(some):
        grades[row, : len(given)] = torch.tensor(given, dtype=torch.float32)
        rows += [row] * len(given)
        columns += range(len(given))
    scores = torch.zeros(grades.shape).index_put((torch.tensor(rows), torch.tensor(columns)), flat)
    return scores, grades


@torch.no_grad()
def agreement(model: PreferenceModel, held_out: Sequence[Answers]) -> float:
    """The share of pairs that the model orders as they were graded, a mean over rankings."""
    total, count = 0.0, 0.0
    for some in held_out:
        right, one = losses.agreement(*_scored(model, [some]))
        total, count = total + float(right), count + one
    return total / count if count else float("nan")


@torch.no_grad()
def _standardise(model: PreferenceModel, shown: Sequence[Answers]) -> None:
    scores = torch.cat([model(*padded(transcripts)) for transcripts, _ in shown])
    model.mean.copy_(scores.mean())
    if len(scores) > 1 and float(scores.std()) > 0:
        model.spread.copy_(scores.std())
