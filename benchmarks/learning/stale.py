"""`python -m benchmarks.learning.stale [SEED ...]`: learning from a behaviour 8 versions old.

A small transformer that has imitated noisy additions learns to add by reward, from answers that it
sampled itself 8 updates ago. What is measured is the probability of the right answer, over all
additions, without sampling. Each row of the table of recipes is one arm, with the same advantages;
`none` takes no account of the age. Each seed is printed, then the means with Student's t, and the
share of the gain of learning without age that each arm keeps. `--json FILE` adds the seeds'
results to a file, so that they can be run one by one.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experience.episode import Episode, Group
from experience.evaluation.statistics import mean_estimate, shown
from experience.learning.batch import TokenBatch, Turn
from experience.learning.learner import LearnerSettings
from experience.learning.sequences.scoring import score
from experience.learning.token_learner import TokenLearner
from experience.models.decoding import sample
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.policy import Decision, VersionSpan
from experience.step import Step
from experience.text.strict_json import dumps

TOKENS = ByteTokenizer()
SUMS = [(a, b) for a in range(5) for b in range(5)]
LAG, UPDATES, PROMPTS, GROUP = 8, 80, 10, 8
RATE = 4e-3
ARMS: dict[str, tuple[int, Any]] = {
    "no age": (0, "grpo"),
    "clip": (LAG, "grpo"),
    "decoupled": (LAG, "decoupled"),
    "none": (LAG, {"surrogate": "none"}),
}


def prompt(a: int, b: int) -> np.ndarray:
    return TOKENS.prompt(f"{a}+{b}")


def row(number: int, pair: tuple[int, int], decision: Decision, reward: float | None) -> Step:
    stream = number.to_bytes(16, "little")
    return Step(
        stream, 0, "bench:Sum-v0", f"{pair[0]}+{pair[1]}", decision=decision, reward=reward,
        ending="terminated", discount=0.0, source="real" if decision.sampled else "demonstration",
    )  # fmt: skip


def decided(pair: tuple[int, int], ids: np.ndarray, logprobs: np.ndarray, version: int) -> Decision:
    spans = (VersionSpan(version, len(ids)),)
    return Decision(
        TOKENS.text(ids), version, prompt(*pair), ids, logprobs, spans, True,
        sampled=version >= 0, temperature=1.0,
    )  # fmt: skip


def demonstrations(rng: np.random.Generator) -> list[Step]:
    """Additions of which one of four is right."""
    rows = []
    for number in range(600):
        pair = SUMS[int(rng.integers(len(SUMS)))]
        total = sum(pair) if rng.random() < 0.25 else int(rng.integers(9))
        ids = TOKENS.action(f"{total}")
        rows.append(row(number, pair, decided(pair, ids, np.zeros(len(ids), np.float32), -1), None))
    return rows


def success(model: Transformer) -> float:
    """The mean probability of the right answer over all additions."""
    answers = [TOKENS.action(f"{a + b}") for a, b in SUMS]
    turns = [
        Turn(prompt(*pair), ids, np.zeros(len(ids), np.float32))
        for pair, ids in zip(SUMS, answers, strict=True)
    ]
    batch = TokenBatch.of(turns)
    with torch.no_grad():
        logp = score(model, batch) * batch.mask
    return float(logp.sum(1).exp().mean())


def lived(
    model: Transformer, version: int, rng: np.random.Generator, draws: torch.Generator
) -> list[Group]:
    pairs = [SUMS[i] for i in rng.choice(len(SUMS), PROMPTS, replace=False)]
    asked = [pair for pair in pairs for _ in range(GROUP)]
    answers = sample(
        model, [prompt(*pair) for pair in asked], end=TOKENS.END, most_tokens=2, temperature=1.0,
        generator=draws,
    )  # fmt: skip
    groups = []
    for first in range(0, len(asked), GROUP):
        episodes = []
        for n in range(first, first + GROUP):
            decision = decided(asked[n], answers[n].ids, answers[n].logprobs, version)
            right = float(decision.text == f"{sum(asked[n])}" and answers[n].ended)
            episodes.append(Episode((row(n, asked[n], decision, right),), None))
        groups.append(Group(f"{version}-{first}", tuple(episodes)))
    return groups


def imitated(seed: int) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(TransformerShape(ByteTokenizer.size, 2, 64, 4, 16))
    learner = TokenLearner(model, LearnerSettings(seed=seed))
    learner.imitate(demonstrations(np.random.default_rng(seed)), passes=8)
    return model


def learned(start: Transformer, lag: int, recipe: Any, seed: int) -> float:
    """The success after all updates from answers that are `lag` versions old."""
    settings = LearnerSettings(
        recipe=recipe, learning_rate=RATE, imitation_weight=0.0, minibatches=2, seed=seed
    )
    learner = TokenLearner(copy.deepcopy(start), settings)
    rng, draws = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    behaviours: deque[Transformer] = deque(maxlen=lag + 1)
    for version in range(UPDATES):
        behaviours.append(copy.deepcopy(learner.model))  # type: ignore[arg-type]
        learner.improve(lived(behaviours[0], max(version - lag, 0), rng, draws))
        learner.publish()
    return success(learner.model)  # type: ignore[arg-type]


def one_seed(seed: int) -> dict[str, float]:
    start = imitated(seed)
    found = {"start": success(start)}
    for name, (lag, recipe) in ARMS.items():
        found[name] = learned(start, lag, recipe, seed)
    print(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
    return found


def tell(results: dict[str, dict[str, float]]) -> None:
    seeds = list(results.values())
    for name in ("start", *ARMS):
        print(f"{name}: {shown([one[name] for one in seeds])}")
    for name in list(ARMS)[1:]:
        kept = [(one[name] - one["start"]) / (one["no age"] - one["start"]) for one in seeds]
        found = mean_estimate(kept)
        low, high = found.interval or (float("nan"), float("nan"))
        print(f"{name}: share of the gain without age: {shown(kept)}")
        print(f"  mean {found.value:.2f} (95 % {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    words = sys.argv[1:]
    file = Path(words.pop(words.index("--json") + 1)) if "--json" in words else None
    numbers = [word for word in words if word != "--json"] or ["0", "1", "2", "3", "4"]
    known = json.loads(file.read_text()) if file is not None and file.exists() else {}
    for number in numbers:
        known[number] = one_seed(int(number))
        if file is not None:
            file.write_text(dumps(known))
    tell(known)
