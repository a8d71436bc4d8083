"""Engines whose model runs in this process: exact tokens, and the log-probabilities of what was sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from actors.engines.engine import Situation
from experience.errors import ConfigError
from experience.models.decoding import Sampled, allowed_tokens, sample
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


@dataclass(frozen=True)
class Prompt:
    """ids int32 [P], and how many tokens were left out so that they fit."""

    ids: np.ndarray
    cut: int = 0


class Words(Protocol):
    """How a model reads situations and writes actions."""

    ends: Sequence[int]
    """The tokens that end an action."""

    def prompt(self, situation: Situation, room: int) -> Prompt:
        """At most `room` tokens. Raises ConfigError where not even the rules have room."""

    def action(self, text: str) -> np.ndarray:
        """int32 [A], with an end token."""

    def text(self, ids: np.ndarray) -> str: ...


@dataclass(frozen=True)
class Room:
    """Tokens of prompt and action together, and of an action; where each was set, for messages."""

    context: int
    most_tokens: int
    where_context: str = "policy.context"
    where_most_tokens: str = "policy.max_tokens"


class LocalEngine:
    """A model and its words. `listed`: where a world lists its actions, it writes one of them and nothing else.

    Actions are drawn from the model's softmax at the given temperature, over what may be written, and from nothing
    else; by a generator of its own, or, where a situation names a `draw`, by one of that seed: the global generator
    plays no part, and is left as it is.
    """

    def __init__(
        self,
        model: Any,
        words: Words,
        room: Room,
        seed: int,
        behaviour_id: str,
        listed: bool = False,
    ) -> None:
        self.model, self.version, self.behaviour_id = model.eval(), 0, behaviour_id
        self._words, self._room, self._listed = words, room, listed
        self._generator = torch.Generator().manual_seed(seed)

    def load(self, weights: Weights) -> None:
        weights.put_into(self.model)
        self.version = weights.version

    def encode(self, situation: Situation, action: str) -> Decision:
        """Raises ConfigError if the action has more tokens than may be written."""
        prompt, ids = self._prompt(situation), self._checked(action)
        allowed_ids, allowed_counts = allowed_tokens(ids, self._only(situation))
        return Decision(
            action,
            self.version,
            prompt.ids,
            ids,
            np.zeros(len(ids), np.float32),
            (VersionSpan(self.version, len(ids)),),
            token_exact=True,
            allowed_ids=allowed_ids,
            allowed_counts=allowed_counts,
            prompt_cut=prompt.cut,
            action_cut=False,
        )

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """Raises ConfigError if a listed action has more tokens than may be written."""
        prompts = [self._prompt(s) for s in situations]
        self.model.eval()  # the learner may share it
        written = sample(
            self.model,
            [p.ids for p in prompts],
            end=self._words.ends,
            temperature=temperature,
            most_tokens=self._room.most_tokens,
            only=[self._only(s) for s in situations],
            generator=[self._generator_of(s) for s in situations],
        )
        return [
            self._decision(s, p, w, temperature)
            for s, p, w in zip(situations, prompts, written, strict=True)
        ]

    def _decision(
        self, situation: Situation, prompt: Prompt, written: Sampled, temperature: float
    ) -> Decision:
        listed = " listed" if len(written.allowed_counts) else ""
        text = (
            self._text_listed(situation, written.ids) if listed else self._words.text(written.ids)
        )
        return Decision(
            text,
            self.version,
            prompt.ids,
            written.ids,
            written.logprobs,
            (VersionSpan(self.version, len(written.ids)),),
            token_exact=True,
            behaviour_id=self.behaviour_id,
            decoder=f"temperature={temperature:g}{listed}",
            sampled=temperature > 0,
            temperature=temperature,
            allowed_ids=written.allowed_ids,
            allowed_counts=written.allowed_counts,
            prompt_cut=prompt.cut,
            action_cut=not written.ended,
        )

    def _prompt(self, situation: Situation) -> Prompt:
        try:
            return self._words.prompt(situation, self._room.context - self._room.most_tokens)
        except ConfigError as error:
            raise ConfigError(
                f"{self._room.where_context}: policy.context: {error}",
                f"it is {self._room.context}, of which policy.max_tokens={self._room.most_tokens} are "
                "kept for the action",
            ) from error

    def _only(self, situation: Situation) -> list[np.ndarray]:
        return [self._checked(action) for action in situation.actions] if self._listed else []

    def _text_listed(self, situation: Situation, ids: np.ndarray) -> str:
        """The listed action that these tokens are, to the letter: there is no answer to be understood."""
        written = (
            action
            for action in situation.actions
            if np.array_equal(self._words.action(action), ids)
        )
        return next(written, self._words.text(ids))

    def _checked(self, action: str) -> np.ndarray:
        ids, most = self._words.action(action), self._room.most_tokens
        if len(ids) > most:
            raise ConfigError(
                f"{self._room.where_most_tokens}: policy.max_tokens: {most} are allowed, and the action "
                f"{action[:80]!r} takes {len(ids)}",
                f"set policy.max_tokens={len(ids)} or more",
            )
        return ids

    def _generator_of(self, situation: Situation) -> torch.Generator:
        if situation.draw is None:
            return self._generator
        return torch.Generator().manual_seed(situation.draw)
