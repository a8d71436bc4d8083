"""The engine `small`: our own byte-level transformer, in this process, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from actors.engines.engine import Situation
from actors.engines.local import LocalEngine, TokenLimits
from actors.engines.model import Prompt, TrainedModel
from actors.engines.registry import EngineKind
from actors.engines.settings import PolicySettings
from experience.errors import ConfigError
from experience.models.decoding import fit
from experience.models.sight import read_picture
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights


class ByteTurns:
    """Prompts are the bare observation: a model this small learns a world's grammar from
    demonstrations. A prompt that is too long loses its middle: the head holds the task, the tail
    the question."""

    ends: Sequence[int] = (ByteTokenizer.END,)

    def __init__(self) -> None:
        self._tokenizer = ByteTokenizer()

    def prompt(self, situation: Situation, most_tokens: int) -> Prompt:
        whole = self._tokenizer.prompt(situation.observation)
        return Prompt(fit(whole, most_tokens), max(len(whole) - most_tokens, 0))

    def further(self, answer: np.ndarray, observation: str) -> np.ndarray:
        shown = self._tokenizer.prompt(observation)
        if len(answer) and int(answer[-1]) == ByteTokenizer.END:
            return shown
        return np.concatenate([[ByteTokenizer.END], shown]).astype(np.int32)

    def action(self, text: str) -> np.ndarray:
        return self._tokenizer.action(text)

    def text(self, ids: np.ndarray) -> str:
        return self._tokenizer.text(ids)


def make_model(policy: PolicySettings, seed: int) -> TrainedModel:
    """A transformer with new weights, which `seed` alone decides, or with those of `policy.model`.

    Raises ConfigError if that file cannot be read, WeightsError if it is of another shape.
    """
    shape = TransformerShape(
        ByteTokenizer.size,
        policy.layers,
        policy.width,
        policy.heads,
        policy.context,
        policy.pixels,
    )
    # nn.Module draws its first weights from the global generator: give it back as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(shape)
    if policy.model:
        read_weights(policy.model).put_into(model)
    return TrainedModel(model, ByteTurns())


def read_weights(path: str) -> Weights:
    """The weights in a file. Raises ConfigError if it cannot be read."""
    try:
        return Weights.read(0, Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"policy.model: {error}", "./xp pretrain SOURCE --out FILE.safetensors makes weights"
        ) from error


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None) -> LocalEngine:
    """Samples from `trained`, or from a transformer of its own with new weights."""
    trained = trained or make_model(policy, seed)
    look = partial(_look, policy.pixels) if policy.pixels else None
    return LocalEngine(trained, TokenLimits.of(policy), seed, "small", policy.listed, look)


def _look(pixels: int, situations: Sequence[Situation]) -> torch.Tensor:
    """The picture of each situation, black where there is none: uint8 [B, S, S, 3]."""
    seen = np.zeros((len(situations), pixels, pixels, 3), np.uint8)
    for row, situation in enumerate(situations):
        if len(situation.images) > 1:
            raise ConfigError(
                f"the world shows {', '.join(sorted(situation.images))}, and policy.engine=small "
                "sees one picture a turn",
                "let the world show one of them, or use another engine",
            )
        for picture in situation.images.values():
            seen[row] = read_picture(picture, pixels)
    return torch.from_numpy(seen)


KIND = EngineKind(make_engine, make_model)
