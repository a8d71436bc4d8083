"""The words of the engines: what is asked of a model, and who answers.

Situation -> Decision. An engine that learns takes new weights by `load`; one that does not refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from experience.models.weights import Weights
from experience.policy import Decision


@dataclass(frozen=True, slots=True)
class Situation:
    """What an agent must answer: the observation, how this world wants its answers written, and, where the world can
    list them, all answers that there are. draw: the seed of the random numbers by which it is answered, the same
    whatever else is asked beside it; None: the engine's own generator goes on."""

    observation: str
    instructions: str = ""
    actions: tuple[str, ...] = ()
    draw: int | None = None


def messages(situation: Situation) -> list[dict[str, str]]:
    """The chat that asks a model that reads: the world's rules as system, what is seen as user."""
    return [
        {"role": "system", "content": situation.instructions},
        {"role": "user", "content": situation.observation},
    ]


_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-z]*\n(.*?)(?:```|$)", re.DOTALL)


def parse_action(text: str) -> str:
    """The action in a model's answer: without its thoughts, its code fence, or quotes around all of it."""
    text = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.search(text)
    if fenced:
        text = text[: fenced.start()] + fenced[1]
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "`'\"":
        text = text[1:-1].strip()
    return text


class Engine(Protocol):
    version: int
    model: Any

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]: ...

    def load(self, weights: Weights) -> None: ...

    def encode(self, situation: Situation, action: str) -> Decision | None:
        """Somebody else's action as this engine's tokens, no sample; None where the engine's tokens are not known."""
