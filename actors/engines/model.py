"""The model that is trained, apart from the engine that samples from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from actors.engines.engine import Situation


@dataclass(frozen=True)
class Prompt:
    """ids int32 [P], and how many tokens were left out so that they fit."""

    ids: np.ndarray
    cut: int = 0


class TurnTokenizer(Protocol):
    """Turns situations into prompts, and actions into tokens and back."""

    ends: Sequence[int]
    """The tokens that end an action."""

    def prompt(self, situation: Situation, most_tokens: int) -> Prompt:
        """The prompt of a first turn, of at most `most_tokens`: `earlier` is not looked at. Raises
        ConfigError if the rules alone are longer."""

    def further(self, answer: np.ndarray, observation: str) -> np.ndarray:
        """The tokens that follow `answer` in the prompt of the next turn, which shows
        `observation`: int32 [P]. They close an answer that has no end token."""

    def action(self, text: str) -> np.ndarray:
        """The tokens of an action, its end token included: int32 [A]."""

    def text(self, ids: np.ndarray) -> str:
        """The action that these tokens spell."""


@dataclass(frozen=True)
class TrainedModel:
    """A language model that the learner updates, and its tokenizer.

    model: an `nn.Module` that maps tokens [B, T] to logits [B, T, V].
    """

    model: Any
    tokenizer: TurnTokenizer


def limit_threads(threads: int) -> None:
    """Lets models in this process use so many CPU threads. With more, small models that share the
    cores with worlds are many times slower: their threads wait for each other."""
    torch.set_num_threads(threads)
