"""Who runs the model: one seam, four engines.

Situation -> Decision. An engine that learns takes new weights by `load`; one that does not refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from experience.models.weights import Weights
from experience.policy import Decision

if TYPE_CHECKING:
    from actors.config import Policy
    from actors.engines.openai_server import OpenAIServer


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
    return [{"role": "system", "content": situation.instructions},
            {"role": "user", "content": situation.observation}]


_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-z]*\n(.*?)(?:```|$)", re.DOTALL)


def parse_action(text: str) -> str:
    """The action in a model's answer: without its thoughts, its code fence, or quotes around all of it."""
    text = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.search(text)
    if fenced:
        text = text[:fenced.start()] + fenced[1]
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


def check_server(policy: Policy) -> None:
    """Raises EngineError, within seconds, where the policy's server does not answer as it must; other engines have
    none. To be called before a run lives anything."""
    if policy.engine == "openai":
        _server(policy).check()


def _server(policy: Policy) -> OpenAIServer:
    from actors.engines.openai_server import OpenAIServer

    return OpenAIServer(policy.base_url, policy.model, policy.api_key_env, policy.max_tokens, policy.timeout_seconds,
                        policy.retries)


def make_engine(policy: Policy, seed: int) -> Engine:
    """The engine that the configuration names. Heavy libraries are imported only by the one that needs them."""
    if policy.engine == "table":
        from actors.engines.table import TableEngine

        return TableEngine(policy.epsilon, seed)
    if policy.engine == "openai":
        return _server(policy)
    from actors.engines.local import Room

    room = Room(policy.context, policy.max_tokens, policy.place("context"), policy.place("max_tokens"))
    if policy.engine == "hugging_face":
        from actors.engines.hugging_face import hugging_face_engine

        return hugging_face_engine(policy.model, room, seed, policy.listed)
    from actors.engines.small import small_engine
    from experience.models.tokenizer import ByteTokenizer
    from experience.models.transformer import TransformerShape

    shape = TransformerShape(ByteTokenizer.size, policy.layers, policy.width, policy.heads, policy.context)
    return small_engine(shape, room, seed, policy.listed)
