"""What an engine is: it answers a situation with a decision.

An engine whose policy is learned takes new weights by `load`; any other engine refuses them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from actors.engines.calls.reading import read_answer
from actors.engines.calls.thoughts import NO_MARKS, apart
from experience.models.weights import Weights
from experience.policy import Decision
from experience.text.strict_json import dumps
from experience.text.tools import Schema, ToolCall


@dataclass(frozen=True, slots=True)
class Exchange:
    """An earlier turn, as a policy reads it again: what was seen, and the answer to it.

    answer_ids int32 [A]: the tokens of the answer; empty if nobody knows them.
    images: the pictures that were seen, by name, as the bytes of PNG, JPEG or WebP files.
    calls: the calls of tools in it, for engines whose chats keep them apart.
    """

    observation: str
    answer: str
    answer_ids: np.ndarray = field(compare=False)
    images: Mapping[str, bytes] = field(default_factory=dict)
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy must answer.

    instructions: the rules of the world, and how it wants its actions written.
    actions: all actions that there are, if the world lists them.
    draw: the seed of the random numbers that this situation is answered by, so that the answer
    does not depend on what else is asked beside it; None: the engine's own generator goes on.
    memory: what the policy keeps from before `earlier`: a summary of it, and its own notes.
    earlier: the turns before this one that the policy reads again, the oldest first.
    tools: what may be called, if the world has tools; answers are then read as calls or lines.
    is_free: the answer is a text of its own, such as a summary, and no action.
    before: int32 [P], or None. The exact tokens that the model has read and written so far, if they
    are those of `earlier`: the prompt is these tokens and what is new. Nothing is encoded twice.
    images: the pictures of the present turn, by name, as the bytes of PNG, JPEG or WebP files.
    """

    observation: str
    instructions: str = ""
    actions: tuple[str, ...] = ()
    draw: int | None = None
    memory: str = ""
    earlier: tuple[Exchange, ...] = ()
    before: np.ndarray | None = field(default=None, compare=False)
    tools: tuple[Schema, ...] = field(default=(), hash=False)
    is_free: bool = False
    images: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def pictures(self) -> list[tuple[bytes, ...]]:
        """The pictures of every one of `observations`, in the order of their names."""
        shown = [*(exchange.images for exchange in self.earlier), self.images]
        return [tuple(images[name] for name in sorted(images)) for images in shown]

    @property
    def observations(self) -> list[str]:
        """All observations in turn, the present one last. The memory stands before the first."""
        seen = [*(exchange.observation for exchange in self.earlier), self.observation]
        if self.memory:
            seen[0] = f"{self.memory}\n\n{seen[0]}"
        return seen


def messages(situation: Situation) -> list[dict[str, str]]:
    """The chat that asks a model: the rules as the system's message, then observations of the user
    and answers of the assistant in turn."""
    first, *later = situation.observations
    chat = [
        {"role": "system", "content": situation.instructions},
        {"role": "user", "content": first},
    ]
    for exchange, seen in zip(situation.earlier, later, strict=True):
        chat += [
            {"role": "assistant", "content": exchange.answer},
            {"role": "user", "content": seen},
        ]
    return chat


def with_pictures(
    chat: Sequence[Mapping[str, Any]],
    pictures: Sequence[Sequence[bytes]],
    part: Callable[[bytes], dict[str, Any]],
) -> list[dict[str, Any]]:
    """A chat whose observations show their pictures, each before the text of its turn.

    pictures: for each message of the user, in order. part: a picture as a part of a content. A
    message without pictures stays plain text, which every model and server reads.
    """
    left = iter(pictures)
    shown: list[dict[str, Any]] = []
    for message in chat:
        seen = next(left, ()) if message["role"] == "user" else ()
        text = {"type": "text", "text": message["content"]}
        shown.append({**message, "content": [*map(part, seen), text]} if seen else dict(message))
    return shown


def with_calls(situation: Situation) -> list[dict[str, Any]]:
    """The same chat for a server that is told of tools: calls are apart from what is said, and what
    is seen after a call is its result."""
    first, *later = situation.observations
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": situation.instructions},
        {"role": "user", "content": first},
    ]
    for exchange, seen in zip(situation.earlier, later, strict=True):
        if not exchange.calls:
            chat.append({"role": "assistant", "content": exchange.answer})
            chat.append({"role": "user", "content": seen})
            continue
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in exchange.calls
        ]
        chat.append({"role": "assistant", "content": None, "tool_calls": calls})
        for number, call in enumerate(exchange.calls):
            # every call must be answered, and the world answers all of them at once
            result = seen if number == 0 else "(see the first result)"
            chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return chat


def answer_fields(said: str, situation: Situation, line: str | None = None) -> dict[str, Any]:
    """What a decision keeps of a chat model's whole answer: its text, calls, thoughts and words.

    line: the action, where the world has no tools; None: found in the answer.
    """
    if not situation.tools or situation.is_free:
        reasoning, rest = apart(said, NO_MARKS)
        if situation.is_free:  # every character of it is meant
            return {"text": rest or said, "reasoning": reasoning if rest else ""}
        found = parse_action(rest or said) if line is None else line
        return {"text": found, "reasoning": reasoning if rest else ""}
    answer = read_answer(said, situation.tools)
    named = hashlib.blake2b(f"{situation.draw}/{said}".encode(), digest_size=4).hexdigest()
    calls = [
        ToolCall(f"{named}{number}", name, dumps(dict(given)))  # 9 letters: some models want that
        for number, (name, given) in enumerate(answer.calls)
    ]
    return {
        "text": answer.action or answer.content or said.strip(),
        "tool_calls": tuple(calls),
        "reasoning": answer.reasoning,
        "content": answer.content,
        "refusal": answer.trouble,
    }


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
    An engine with an attribute `sees` that is true shows its model the pictures of a situation; any
    other engine is never given one.
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
