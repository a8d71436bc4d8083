"""Preferences: how many answers a person should rank, and what a learned reward must not be asked.

Answers are words of eight letters, read by a small transformer; people are simulated by a gold
score that the models never see, with noise (Gumbel, as the Plackett–Luce model has it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.planning.record import Row, row
from experience.learning.advantages import Likelihoods
from experience.learning.batch import Turn
from experience.learning.learner import LearnerSettings
from experience.learning.trainer import Trainer
from experience.models.transformer import Transformer, TransformerShape
from experience.preferences import losses
from experience.preferences.fitting import Answers, FitSettings, agreement, fit_model
from experience.preferences.model import PreferenceModel
from experience.returns import leave_one_out
from experience.text.strict_json import dumps

SEEDS = range(5)
PROMPTS = 50
RANKED = (2, 4, 9)
LETTERS, LENGTH, NOISE = 26, 8, 0.5
CURVES = Path(__file__).parent / "curves"

SHAPE = TransformerShape(LETTERS, layers=1, width=16, heads=2, context=LENGTH)


def words(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(LETTERS, size=(count, LENGTH)).astype(np.int32)


def ranked(answers: np.ndarray, gold: np.ndarray, rng: np.random.Generator) -> Answers:
    """The answers as a person ranks them: gold and noise, as whole places."""
    heard = gold + NOISE * rng.gumbel(size=len(gold))
    return list(answers), heard.argsort().argsort().astype(float).tolist()


def preference_model(shown: list[Answers], seed: int) -> PreferenceModel:
    torch.manual_seed(seed)
    model = PreferenceModel(SHAPE)
    fit_model(model, shown, settings=FitSettings(passes=20, rate=5e-3, seed=seed))
    return model


def how_many() -> Iterator[Row]:
    """Pairs ordered right by models that were shown K ranked answers of as many prompts."""
    found: dict[int, list[float]] = {k: [] for k in RANKED}
    direct = list[float]()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        worth = rng.normal(size=LETTERS) / LENGTH**0.5  # of each letter: gold scores have σ = 1
        shown = []
        for _ in range(PROMPTS):
            answers = words(max(RANKED), rng)
            shown.append((answers, ranked(answers, worth[answers].sum(1), rng)[1]))
        tested = words(200, rng)
        held_out: Answers = (list(tested), worth[tested].sum(1).tolist())
        for k in RANKED:
            some = [(list(answers[:k]), grades[:k]) for answers, grades in shown]
            found[k].append(agreement(preference_model(some, seed), [held_out]))
        some = [(list(answers), grades) for answers, grades in shown]
        direct.append(_direct(some, held_out, seed))
    most, fewest = found[max(RANKED)], found[min(RANKED)]
    means = {f"K = {k}": float(np.mean(values)) for k, values in found.items()}
    yield row(
        "pairs ordered right: K = 9 ranked answers over K = 2, 50 prompts",
        "InstructGPT ranks K = 4 to 9 (Ouyang et al. 2022)",
        "points",
        [100 * (a - b) for a, b in zip(most, fewest, strict=True)],
        ">= 20",
        means,
        "the same prompts; chance is 0.5",
    )
    yield row(
        "pairs ordered right by DPO's implied reward, K = 9",
        "equal to the explicit one in theory (Rafailov et al. 2023)",
        "of pairs",
        direct,
        "",
        {"explicit, same rankings": float(np.mean(most)), "chance": 0.5},
        "the policy's own log π/π_ref, through the trainer of learning.recipe=dpo",
    )


def _direct(shown: list[Answers], held_out: Answers, seed: int) -> float:
    """The share of held-out pairs that log π/π_ref orders right, after DPO on the rankings."""
    torch.manual_seed(seed)
    model = Transformer(TransformerShape(LETTERS + 1, 1, 16, 2, LENGTH + 1))
    trainer = Trainer(model, LearnerSettings(recipe="dpo", learning_rate=5e-3))
    trainer.keep_reference()
    rng = np.random.default_rng(seed)
    for _ in range(20):
        for part in np.array_split(rng.permutation(len(shown)), len(shown) // 4):
            some = [shown[i] for i in part]
            trainer.update(_weighted(some, trainer.likelihoods), [], 0.0)
    logp, reference = trainer.likelihoods([_turn(word) for word in held_out[0]])
    right, _ = losses.agreement((logp - reference)[None], torch.tensor([held_out[1]]))
    return float(right)


def _weighted(some: list[Answers], likelihoods: Likelihoods) -> list[Turn]:
    turns = [_turn(word) for answers, _ in some for word in answers]
    shape = len(some), len(some[0][1])
    logp, reference = (values.reshape(shape) for values in likelihoods(turns))
    grades = torch.tensor([grades for _, grades in some])
    weights, _, _ = losses.answer_weights(losses.direct, logp, reference, grades, 0.1)
    return [_turn(t.action, float(w)) for t, w in zip(turns, weights.flatten(), strict=True)]


def _turn(word: np.ndarray, advantage: float = 0.0) -> Turn:
    prompt = np.array([LETTERS], np.int32)
    return Turn(prompt, word, np.zeros(len(word), np.float32), advantage)


CHOICES, VOWELS, ENOUGH = 512, 5, 4
STEPS, DRAWN = 150, 64
BETAS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Tastes:
    """Words that a policy chooses one of. gold, proxy: standard scores under the reference, [N].

    A word's gold is its number of vowels, but each above four costs two. The reference seldom
    writes such a word, so the model was hardly shown any: it is right where it was asked, and
    wrong beyond.
    """

    reference: np.ndarray
    gold: np.ndarray
    proxy: np.ndarray
    agreement: float

    @classmethod
    def drawn(cls, seed: int) -> Tastes:
        rng = np.random.default_rng(seed)
        some = rng.integers(VOWELS, LETTERS, (CHOICES, LENGTH))
        count = rng.integers(LENGTH + 1, size=CHOICES)
        vowels = np.argsort(rng.random((CHOICES, LENGTH)), 1) < count[:, None]
        some = np.where(vowels, rng.integers(VOWELS, size=some.shape), some).astype(np.int32)
        gold = np.where(count <= ENOUGH, count, ENOUGH - 2 * (count - ENOUGH)).astype(float)
        chance = np.array([_binomial(k) for k in range(LENGTH + 1)])[count]
        reference = chance / np.bincount(count, minlength=LENGTH + 1)[count]
        reference /= reference.sum()
        gold = _standard(gold, reference)
        picked = [rng.choice(CHOICES, max(RANKED), False, reference) for _ in range(PROMPTS)]
        model = preference_model([ranked(some[p], gold[p], rng) for p in picked], seed)
        tested = rng.choice(CHOICES, 200, True, reference)
        alike = agreement(model, [(list(some[tested]), gold[tested].tolist())])
        return cls(reference, gold, _standard(model.standard(list(some)), reference), alike)

    def best(self, beta: float) -> np.ndarray:
        """π* ∝ π_ref·e^{r/β}, what PPO with KL to the reference should become."""
        weights = self.reference * np.exp((self.proxy - self.proxy.max()) / beta)
        chances: np.ndarray = weights / weights.sum()
        return chances


def _binomial(k: int, chance: float = 0.25) -> float:
    ways = float(np.prod([(LENGTH - i) / (i + 1) for i in range(k)]))
    return ways * chance**k * (1 - chance) ** (LENGTH - k)


def _standard(values: np.ndarray, chances: np.ndarray) -> np.ndarray:
    mean = float(chances @ values)
    standard: np.ndarray = (values - mean) / float(chances @ (values - mean) ** 2) ** 0.5
    return standard


def curve(tastes: Tastes, beta: float, seed: int) -> list[list[float]]:
    """[KL to the reference, proxy, gold] after each update, exactly: the policy has 512 choices.

    The policy is a transformer that writes one token; its updates are those of ppo_kl.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Transformer(TransformerShape(CHOICES + 1, 1, 32, 2, 4))
    settings = LearnerSettings(
        recipe={"like": "ppo_kl", "kl_weight": beta},
        learning_rate=3e-3,
        imitation_rate=1e-2,
    )
    trainer = Trainer(model, settings)
    for step in range(100):
        trainer.set_rate(1e-2 * (1 - step / 110))
        shown = rng.choice(CHOICES, 256, True, tastes.reference)
        trainer.update([], [_choice(c) for c in shown], 1.0)
    trainer.forget_moments()
    trainer.keep_reference()
    trainer.set_rate(settings.learning_rate)
    start = _chances(model)
    found = [_point(start, start, tastes)]
    for _ in range(STEPS):
        now = _chances(model)
        drawn = rng.choice(CHOICES, DRAWN, True, now)
        better = leave_one_out(tastes.proxy[drawn])
        trainer.update(
            [_choice(c, np.log(now[c]), b) for c, b in zip(drawn, better, strict=True)], [], 0.0
        )
        found.append(_point(_chances(model), start, tastes))
    return found


def _choice(choice: int, logp: float = 0.0, advantage: float = 0.0) -> Turn:
    action = np.array([choice], np.int32)
    return Turn(np.array([CHOICES], np.int32), action, np.full(1, logp, np.float32), advantage)


@torch.inference_mode()
def _chances(model: Transformer) -> np.ndarray:
    logits = model(torch.tensor([[CHOICES]]))[0, 0].double()
    # The prompt's own token is no answer; its probability is all but 0 after imitation.
    chances: np.ndarray = logits[:CHOICES].softmax(0).numpy()
    return chances / chances.sum()


def _point(chances: np.ndarray, start: np.ndarray, tastes: Tastes) -> list[float]:
    kl = float(chances @ (np.log(chances) - np.log(start)))
    return [kl, float(chances @ tastes.proxy), float(chances @ tastes.gold)]


def curves(seed: int) -> dict[str, Any]:
    """The curves of a seed for each β, kept in CURVES."""
    path = CURVES / f"over-optimisation-{seed}.json"
    if not path.exists():
        tastes = Tastes.drawn(seed)
        found: dict[str, Any] = {f"{beta:g}": curve(tastes, beta, seed) for beta in BETAS}
        best = {f"{b:g}": float(tastes.best(b) @ tastes.gold) for b in BETAS if b}
        path.parent.mkdir(exist_ok=True)
        path.write_text(dumps({**found, "best": best, "agreement": tastes.agreement}) + "\n")
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def over_optimisation() -> Iterator[Row]:
    """What people would say of a policy that is paid by a model of them, with KL and without."""
    found = [curves(seed) for seed in SEEDS]
    free = [np.array(f["0"]) for f in found]
    peak = [float(one[:, 2].max()) for one in free]
    last = [float(one[-20:, 2].mean()) for one in free]
    yield row(
        "gold score lost from its peak where β = 0",
        "falls while the proxy rises (Gao et al. 2022, figure 1)",
        "σ",
        [p - end for p, end in zip(peak, last, strict=True)],
        ">= 0.5",
        {
            "peak": float(np.mean(peak)),
            "last": float(np.mean(last)),
            "proxy at the end": float(np.mean([one[-20:, 1].mean() for one in free])),
            "KL at the end": float(np.mean([one[-20:, 0].mean() for one in free])),
            "model's agreement where it was asked": float(np.mean([f["agreement"] for f in found])),
        },
        f"{STEPS} updates of ppo_kl, {DRAWN} answers each",
    )
    strongest = f"{max(BETAS):g}"
    cured = [float(np.array(f[strongest])[-20:, 2].mean()) for f in found]
    yield row(
        f"gold score at the end, β = {strongest} over β = 0",
        "KL to the first policy holds it (Ouyang et al. 2022)",
        "σ",
        [a - b for a, b in zip(cured, last, strict=True)],
        ">= 0.5",
        {
            f"β = {strongest}": float(np.mean(cured)),
            f"π_ref·e^(r/β), exactly, β = {strongest}": float(
                np.mean([f["best"][strongest] for f in found])
            ),
            **{
                f"β = {beta:g}": float(
                    np.mean([np.array(f[f"{beta:g}"])[-20:, 2].mean() for f in found])
                )
                for beta in BETAS[1:-1]
            },
        },
        "the same preference models",
    )
