"""What an engine is: it answers a situation with a decision.

An engine whose policy is learned takes new weights by `load`; any other engine refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from experience.models.weights import Weights
from experience.policy import Decision


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy must answer.

    instructions: the rules of the world, and how it wants its actions written.
    actions: all actions that there are, if the world lists them.
    draw: the seed of the random numbers that this situation is answered by, so that the answer
    does not depend on what else is asked beside it; None: the engine's own generator goes on.
    """

    observation: str
    instructions: str = ""
    actions: tuple[str, ...] = ()
    draw: int | None = None


def messages(situation: Situation) -> list[dict[str, str]]:
    """The chat that asks a model: the rules as system message, the observation as the user's."""
    return [
        {"role": "system", "content": situation.instructions},
        {"role": "user", "content": situation.observation},
    ]


_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-z]*\n(.*?)(?:```|$)", re.DOTALL)


def parse_action(text: str) -> str:
    """The action in a model's answer, without its thoughts, its code fence and its quotes."""
    text = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.search(text)
    if fenced:
        text = text[: fenced.start()] + fenced[1]
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "`'\"":
        text = text[1:-1].strip()
    return text


class Engine(Protocol):
    """Samples actions from a policy. What a learner updates is another thing: a TrainedModel.

    An engine with an attribute `answers_alone` that is true is asked about one situation a call, by
    many threads at once, so that nobody waits for the slowest answer: a server is such an engine.
    """

    version: int
    """The version of the weights that it samples from."""

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """One decision for each situation, in order. Temperature 0 takes the likeliest action.

        Raises EngineError if the model does not answer.
        """

    def load(self, weights: Weights) -> None:
        """Samples from these weights from now on. Raises EngineError if it cannot take any."""

    def encode(self, situation: Situation, action: str) -> Decision | None:
        """An action that this engine did not sample, as its tokens; None if they are not known.

        Raises ConfigError if the action has more tokens than an action may have.
        """
