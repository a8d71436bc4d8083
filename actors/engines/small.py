"""Our own small byte-level transformer, in this process, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from actors.engines.engine import Situation
from actors.engines.local import LocalEngine, Prompt, Room
from experience.models.decoding import fit
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape


class Bytes:
    """Prompts are the bare observation: a model this small is taught the worlds' grammar by demonstrations. A longer
    one keeps its first and last tokens: the head holds the task, the tail the question."""

    ends: Sequence[int] = (ByteTokenizer.END,)

    def __init__(self) -> None:
        self._tokenizer = ByteTokenizer()

    def prompt(self, situation: Situation, room: int) -> Prompt:
        whole = self._tokenizer.prompt(situation.observation)
        return Prompt(fit(whole, room), max(len(whole) - room, 0))

    def action(self, text: str) -> np.ndarray:
        return self._tokenizer.action(text)

    def text(self, ids: np.ndarray) -> str:
        return self._tokenizer.text(ids)


def small_engine(
    shape: TransformerShape, room: Room, seed: int, listed: bool = False
) -> LocalEngine:
    """A transformer with new weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(shape)
    return LocalEngine(model, Bytes(), room, seed, "small", listed)
