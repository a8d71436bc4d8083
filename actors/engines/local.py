"""Engines whose model runs in this process: exact tokens, and their true log-probabilities."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from actors.engines.engine import Situation, answer_fields
from actors.engines.model import Prompt, TrainedModel, TurnTokenizer
from actors.engines.settings import PolicySettings
from experience.errors import ConfigError
from experience.models.decoding import Sampled, allowed_tokens, sample
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


@dataclass(frozen=True)
class TokenLimits:
    """How many tokens a prompt and its action may have together, and an action alone; and where
    each limit was set, for error messages."""

    context: int
    most_tokens: int
    where_context: str = "policy.context"
    where_most_tokens: str = "policy.max_tokens"

    @classmethod
    def of(cls, policy: PolicySettings) -> TokenLimits:
        return cls(
            policy.context, policy.max_tokens, policy.place("context"), policy.place("max_tokens")
        )


_ANY_LENGTH = 1 << 30
_MOST_MEASURED = 256
"""Prompts that were measured and not yet answered, at most."""


class TokenEngine:
    """What all engines share that read and write tokens: prompts, actions, and what they mean.

    A prompt with a history is measured before it is answered (see `length`): what was measured is
    kept until then, so that nothing is encoded twice.
    """

    def __init__(
        self, tokenizer: TurnTokenizer, limits: TokenLimits, behaviour_id: str, listed: bool = False
    ) -> None:
        self.version = 0
        self.behaviour_id = behaviour_id
        self.model_name = ""
        self._tokenizer = tokenizer
        self._limits = limits
        self._listed = listed
        self._measured: OrderedDict[int, tuple[Situation, np.ndarray]] = OrderedDict()

    def encode(self, situation: Situation, action: str) -> Decision:
        """The action as tokens. Raises ConfigError if it has more tokens than may be written."""
        prompt = self._prompt(situation)
        ids = self._checked(action)
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

    def _decision(
        self,
        situation: Situation,
        prompt: Prompt,
        written: Sampled,
        temperature: float,
        version: int | None = None,
    ) -> Decision:
        """version: of the weights that were sampled from; None: those of this engine."""
        version = self.version if version is None else version
        is_listed = len(written.allowed_counts) > 0
        spelled = self._text_listed if is_listed else self._text_free
        fields: dict[str, Any] = {"text": spelled(situation, written.ids)}
        said: Any = getattr(self._tokenizer, "said", None)  # of chat models only
        if said is not None and not is_listed:
            fields = answer_fields(said(written.ids), situation, fields["text"])
        ending = "tool_calls" if fields.get("tool_calls") else "stop"
        return Decision(
            **fields,
            policy_version=version,
            prompt_ids=prompt.ids,
            action_ids=written.ids,
            logprobs=written.logprobs,
            version_spans=(VersionSpan(version, len(written.ids)),),
            finish_reason=ending if written.ended else "length",
            model=self.model_name,
            token_exact=True,
            behaviour_id=self.behaviour_id,
            decoder=f"temperature={temperature:g}{' listed' if is_listed else ''}",
            sampled=temperature > 0,
            temperature=temperature,
            allowed_ids=written.allowed_ids,
            allowed_counts=written.allowed_counts,
            prompt_cut=prompt.cut,
            action_cut=not written.ended,
        )

    def length(self, situation: Situation) -> int:
        """The number of tokens of a prompt from which nothing is left out."""
        whole = self._whole(situation)
        self._measured[id(situation)] = (situation, whole)  # it is held, so that its id stays its
        while len(self._measured) > _MOST_MEASURED:
            self._measured.popitem(last=False)
        return len(whole)

    def _prompt(self, situation: Situation) -> Prompt:
        room = self._limits.context - self._limits.most_tokens
        if situation.earlier:
            known = self._measured.pop(id(situation), None)
            whole = self._whole(situation) if known is None else known[1]
            if len(whole) <= room:
                return Prompt(whole)
        return self._first_prompt(situation, room)

    def _whole(self, situation: Situation) -> np.ndarray:
        """The whole prompt, however long: what was read and written before, and what is new."""
        if situation.before is not None:
            last = situation.earlier[-1].answer_ids
            new = self._tokenizer.further(last, situation.observation)
            return np.concatenate([situation.before, new])
        first, *later = situation.observations
        opening = replace(situation, observation=first, memory="", earlier=())
        parts = [self._first_prompt(opening, _ANY_LENGTH).ids]
        for exchange, seen in zip(situation.earlier, later, strict=True):
            answer = exchange.answer_ids
            if not len(answer):
                answer = self._tokenizer.action(exchange.answer)
            parts += [answer, self._tokenizer.further(answer, seen)]
        return np.concatenate(parts)

    def _first_prompt(self, situation: Situation, room: int) -> Prompt:
        (observation,) = replace(situation, earlier=()).observations
        try:
            return self._tokenizer.prompt(replace(situation, observation=observation), room)
        except ConfigError as error:
            raise ConfigError(
                f"{self._limits.where_context}: policy.context: {error}",
                f"it is {self._limits.context}, of which policy.max_tokens="
                f"{self._limits.most_tokens} are kept for the action",
            ) from error

    def _only(self, situation: Situation) -> list[np.ndarray]:
        """The token sequences that may be written; empty: any."""
        return [self._checked(action) for action in situation.actions] if self._listed else []

    def _text_free(self, situation: Situation, ids: np.ndarray) -> str:
        """The action that a model of free text means by these tokens."""
        return self._tokenizer.text(ids)

    def _text_listed(self, situation: Situation, ids: np.ndarray) -> str:
        """The listed action that these tokens spell, to the letter: it is not parsed."""
        written = (
            action
            for action in situation.actions
            if np.array_equal(self._tokenizer.action(action), ids)
        )
        return next(written, self._tokenizer.text(ids))

    def _checked(self, action: str) -> np.ndarray:
        ids = self._tokenizer.action(action)
        most = self._limits.most_tokens
        if len(ids) > most:
            raise ConfigError(
                f"{self._limits.where_most_tokens}: policy.max_tokens: {most} are allowed, "
                f"and the action {action[:80]!r} takes {len(ids)}",
                f"set policy.max_tokens={len(ids)} or more",
            )
        return ids


class LocalEngine(TokenEngine):
    """Samples from a model in this process, which a learner may update between two calls.

    listed: in a world that lists its actions, only a listed action is ever written. look: makes, of
    the situations of one call, the pictures that the model's session takes; None: it cannot see.

    Actions are drawn from the model's softmax at the given temperature, over what may be written,
    and from nothing else. The random numbers are the engine's own, or, for a situation that names
    a `draw`, those of that seed: the global generator plays no part, and is left as it is.
    """

    def __init__(
        self,
        trained: TrainedModel,
        limits: TokenLimits,
        seed: int,
        behaviour_id: str,
        listed: bool = False,
        look: Callable[[Sequence[Situation]], Any] | None = None,
    ) -> None:
        super().__init__(trained.tokenizer, limits, behaviour_id, listed)
        self.sees = look is not None
        self._look = look
        self._model = trained.model.eval()
        self._generator = torch.Generator().manual_seed(seed)

    def load(self, weights: Weights) -> None:
        weights.put_into(self._model)
        self.version = weights.version

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """Raises ConfigError if a listed action has more tokens than may be written."""
        prompts = [self._prompt(s) for s in situations]
        begun = time.perf_counter()
        self._model.eval()  # a learner that shares the model has left it in training mode
        written = sample(
            self._model,
            [p.ids for p in prompts],
            end=self._tokenizer.ends,
            temperature=temperature,
            most_tokens=self._limits.most_tokens,
            only=[self._only(s) for s in situations],
            generator=[self._generator_of(s) for s in situations],
            pictures=None if self._look is None else self._look(situations),
        )
        seconds = time.perf_counter() - begun if hasattr(self._tokenizer, "said") else None
        return [
            replace(self._decision(s, p, w, temperature), seconds=seconds)
            for s, p, w in zip(situations, prompts, written, strict=True)
        ]

    def _generator_of(self, situation: Situation) -> torch.Generator:
        if situation.draw is None:
            return self._generator
        return torch.Generator().manual_seed(situation.draw)
