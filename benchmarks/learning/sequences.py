"""`python -m benchmarks.learning.sequences`: what it costs to train an episode, by its length.

Episodes of 1 to 64 turns, each of whose prompts holds all turns before it, are trained as sequences
and turn by turn, through the same trainer on the same model. Printed for each length: tokens that
the model reads for each token that was sampled, and seconds of processor time of one update (the
least of three, since other programs only ever add). `--plot` draws docs/img/sequences.png.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experience.learning.batch import TokenSequence, Turn, join
from experience.learning.learner import LearnerSettings
from experience.learning.trainer import Trainer
from experience.models.transformer import Transformer, TransformerShape

PLOT = Path(__file__).resolve().parents[2] / "docs" / "img" / "sequences.png"
LENGTHS = (1, 2, 4, 8, 16, 32, 64)
SEEN, WRITTEN = 20, 8
"""Tokens that a turn shows, and that its action has."""
EPISODES = 2
REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """Of one update on episodes of so many turns: tokens read for each sampled, and seconds."""

    read: float
    seconds: float


def episode(number: int, turns: int) -> list[Turn]:
    """An episode with a full history, as an agent with `history: full` lives it."""
    rng = np.random.default_rng(number)
    before = np.empty(0, np.int32)
    found = []
    for t in range(turns):
        prompt = np.concatenate([before, rng.integers(0, 256, SEEN).astype(np.int32)])
        action = rng.integers(0, 256, WRITTEN).astype(np.int32)
        logprobs = np.full(WRITTEN, -5.5, np.float32)
        stream = number.to_bytes(16, "little")
        found.append(Turn(prompt, action, logprobs, 1.0, stream=stream, t=t))
        before = np.concatenate([prompt, action])
    return found


def cost(parts: Sequence[Turn | TokenSequence], context: int) -> Cost:
    torch.manual_seed(0)
    shape = TransformerShape(259, layers=2, width=64, heads=4, context=context)
    trainer = Trainer(Transformer(shape), LearnerSettings())
    sampled = EPISODES * WRITTEN * (context // (SEEN + WRITTEN))
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        trainer.update(parts, [], 0.0)
        seconds.append(time.process_time() - began)
    return Cost(sum(part.length for part in parts) / sampled, min(seconds))


def measure(lengths: Sequence[int] = LENGTHS) -> dict[int, tuple[Cost, Cost]]:
    """By the number of turns: the costs as sequences, and turn by turn."""
    found = {}
    for turns in lengths:
        lived = [turn for n in range(EPISODES) for turn in episode(n, turns)]
        context = turns * (SEEN + WRITTEN)
        found[turns] = cost(join(lived), context), cost(lived, context)
        (joined, apart) = found[turns]
        print(
            f"{turns:3} turns: {joined.read:6.1f} tokens read for each sampled, "
            f"{joined.seconds:7.3f} s; turn by turn {apart.read:6.1f}, {apart.seconds:7.3f} s: "
            f"{apart.seconds / joined.seconds:5.1f} times as long",
            flush=True,
        )
    return found


def plot(found: dict[int, tuple[Cost, Cost]], path: Path = PLOT) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    turns = list(found)
    for axis, what, label in (
        (axes[0], "read", "tokens read for each token sampled"),
        (axes[1], "seconds", "seconds of an update of 2 episodes"),
    ):
        for number, name in ((0, "as sequences"), (1, "turn by turn")):
            values = [getattr(costs[number], what) for costs in found.values()]
            axis.plot(turns, values, marker="o", label=name)
        axis.set(xlabel="turns of an episode", ylabel=label, xscale="log", yscale="log")
        axis.set_xticks(turns, [str(t) for t in turns])
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    costs = measure()
    if "--plot" in sys.argv:
        plot(costs)
