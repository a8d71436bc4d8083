"""A Hugging Face model in this process: chat prompts, exact tokens, true sampling log-probabilities.

The settings for generation that come with a model (top-k, penalties, …) are not used; its end tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.engines.engine import Situation, messages, parse_action
from actors.engines.local import LocalEngine, Prompt, Room
from experience.errors import ConfigError
from experience.models.hugging_face import load

_LEFT_OUT = " […] "


class Chat:
    """The model's chat template. Where a prompt is too long, the middle of the observation gives way; the rules, and
    what the template adds, stay."""

    def __init__(self, tokenizer: Any, lm: Any) -> None:
        self._tokenizer = tokenizer
        self.ends: Sequence[int] = _end_tokens(tokenizer, lm)

    def prompt(self, situation: Situation, room: int) -> Prompt:
        whole = self._render(situation, situation.observation)
        ids, kept = whole, 0
        seen = [] if len(whole) <= room else self._encode(situation.observation)
        while len(ids) > room:
            kept = min(kept or len(seen), len(seen)) - (len(ids) - room)
            if kept < 0:
                raise ConfigError(
                    f"the rules alone take {len(self._render(situation, ''))} tokens of a prompt, and "
                    f"{room} are allowed"
                )
            head, tail = seen[: kept // 2], seen[len(seen) - (kept + 1) // 2 :]
            ids = self._render(situation, self._decode(head) + _LEFT_OUT + self._decode(tail))
        return Prompt(np.array(ids, np.int32), len(whole) - len(ids))

    def action(self, text: str) -> np.ndarray:
        return np.array([*self._encode(text), *self.ends[:1]], np.int32)

    def text(self, ids: np.ndarray) -> str:
        return parse_action(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _render(self, situation: Situation, observation: str) -> list[int]:
        chat = messages(Situation(observation, situation.instructions))
        if self._tokenizer.chat_template is None:
            return self._encode("\n\n".join(m["content"] for m in chat if m["content"]) + "\n")
        return self._encode(
            self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: list[int]) -> str:
        """Without the halves of characters at its ends."""
        return str(self._tokenizer.decode(ids)).strip("\N{REPLACEMENT CHARACTER}")


def _end_tokens(tokenizer: Any, lm: Any) -> list[int]:
    """All that end an answer, by the tokenizer and by the model's settings; the tokenizer's own first."""
    said, found = lm.generation_config.eos_token_id, list[int]()
    for named in (tokenizer.eos_token_id, lm.config.eos_token_id if said is None else said):
        found += [named] if isinstance(named, int) else named or []
    return list(dict.fromkeys(found))


def hugging_face_engine(name: str, room: Room, seed: int, listed: bool = False) -> LocalEngine:
    """Raises ConfigError if nothing would end an action of the model, MissingPartError if it cannot be loaded."""
    model, tokenizer = load(name)
    words = Chat(tokenizer, model.lm)
    if not words.ends:
        raise ConfigError(
            f"policy.model: {name} names no token that ends an answer",
            "name one: eos_token in its tokenizer_config.json, or eos_token_id in its "
            "generation_config.json",
        )
    return LocalEngine(model, words, room, seed, "hugging_face", listed)
