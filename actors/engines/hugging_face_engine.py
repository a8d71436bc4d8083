"""The engine `hugging_face`: a model in this process, chat prompts, exact tokens.

The settings for generation that come with a model (top-k, penalties, …) are not used, for then the
log-probabilities would not be those of what was sampled from; its end tokens are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engines.calls.forms import MARKS, calls_in
from actors.engines.calls.telling import after_an_answer, shows_tools, with_tools
from actors.engines.calls.thoughts import apart
from actors.engines.engine import Situation, messages, parse_action, with_pictures
from actors.engines.local import LocalEngine, TokenLimits
from actors.engines.model import Prompt, TrainedModel
from actors.engines.registry import EngineKind
from actors.engines.settings import PolicySettings, arguments_of
from experience.errors import ConfigError
from experience.models.hugging_face import CausalModel, load, load_seeing, sees
from experience.models.lora import adapt
from experience.models.prefixes import PrefixStore
from experience.models.sight import open_picture
from experience.policy import Decision

_LEFT_OUT = " […] "
_ANSWER = "<the answer of the turn before>"
"""Stands for an answer when the template is asked what it writes after one."""


class ChatTurns:
    """The model's chat template. A prompt that is too long loses the middle of its observation;
    the rules, and what the template adds, stay."""

    def __init__(self, tokenizer: Any, lm: Any, tools: str = "auto") -> None:
        self._tokenizer = tokenizer
        self._shows_tools = tools in ("auto", "template") and shows_tools(tokenizer)
        if tools == "template" and not self._shows_tools:
            raise ConfigError(
                "policy.tools: the chat template of this model has no place for tools",
                "set policy.tools=auto, which tells of them in words",
            )
        self._tells_in_words = not self._shows_tools and tools != "none"
        self.ends: Sequence[int] = _end_tokens(tokenizer, lm)
        self._end_text = str(tokenizer.decode(self.ends[:1])) if self.ends else ""

    def prompt(self, situation: Situation, most_tokens: int) -> Prompt:
        whole = self._render(situation, situation.observation)
        if len(whole) <= most_tokens:
            return Prompt(np.array(whole, np.int32))
        ids = self._shortened(situation, whole, most_tokens)
        return Prompt(np.array(ids, np.int32), len(whole) - len(ids))

    def _shortened(self, situation: Situation, ids: list[int], most_tokens: int) -> list[int]:
        """The prompt with the middle of its observation left out."""
        seen = self._encode(situation.observation)
        kept = len(seen)
        # A text that is cut and joined again may have a few tokens more than its parts: repeat
        # until the whole prompt fits.
        while len(ids) > most_tokens:
            kept -= len(ids) - most_tokens
            if kept < 0:
                raise ConfigError(
                    f"the rules alone take {len(self._render(situation, ''))} tokens of a prompt, "
                    f"and {most_tokens} are allowed"
                )
            head = seen[: kept // 2]
            tail = seen[len(seen) - (kept + 1) // 2 :]
            ids = self._render(situation, self._decode(head) + _LEFT_OUT + self._decode(tail))
        return ids

    def further(self, answer: np.ndarray, observation: str) -> np.ndarray:
        """What the template writes between an answer and the place of the next one."""
        has_end = len(answer) > 0 and int(answer[-1]) in self.ends
        text = self._after_an_answer(observation, self._calls(answer))
        if self._end_text and text.startswith(self._end_text):
            text = text.removeprefix(self._end_text) if has_end else text
        elif not has_end:
            text = self._end_text + text
        return np.array(self._encode(text), np.int32)

    def _after_an_answer(self, observation: str, is_result: bool) -> str:
        if self._tokenizer.chat_template is None:
            return f"\n\n{observation}\n"
        if is_result:
            text = after_an_answer(self._tokenizer, _ANSWER, observation, "tool")
            if text is not None:
                return text
        return after_an_answer(self._tokenizer, _ANSWER, observation, "user") or ""

    def _calls(self, answer: np.ndarray) -> bool:
        """Whether an answer called a tool, in a form that could be read."""
        if not self._shows_tools:
            return False
        _, said = apart(self.said(answer), MARKS)
        return any(given is not None for _, given in calls_in(said, set()))

    def action(self, text: str) -> np.ndarray:
        return np.array([*self._encode(text), *self.ends[:1]], np.int32)

    def text(self, ids: np.ndarray) -> str:
        return parse_action(self._tokenizer.decode(ids, skip_special_tokens=True))

    def said(self, ids: np.ndarray) -> str:
        """The whole answer, with its thoughts and the marks of its calls, without its end."""
        known = list(ids)
        while known and known[-1] in self.ends:
            known.pop()
        return str(self._tokenizer.decode(known))

    def _render(self, situation: Situation, observation: str) -> list[int]:
        told = situation.tools if self._tells_in_words else ()
        chat = messages(Situation(observation, with_tools(situation.instructions, told)))
        if self._tokenizer.chat_template is None:
            return self._encode("\n\n".join(m["content"] for m in chat if m["content"]) + "\n")
        tools = {"tools": list(situation.tools)} if situation.tools and self._shows_tools else {}
        return self._encode(
            self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False, **tools
            )
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: list[int]) -> str:
        """The text of these tokens, without the halves of characters at its ends."""
        return str(self._tokenizer.decode(ids)).strip("\N{REPLACEMENT CHARACTER}")


def _end_tokens(tokenizer: Any, lm: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's own first, then those of the model."""
    of_model = lm.generation_config.eos_token_id
    if of_model is None:
        of_model = lm.config.eos_token_id
    found: list[int] = []
    for named in (tokenizer.eos_token_id, of_model):
        found += [named] if isinstance(named, int) else named or []
    return list(dict.fromkeys(found))


class SeeingTurns(ChatTurns):
    """The chat template of a vision-language model. Its processor writes the tokens that stand for
    pictures, so a chat is rendered whole at every turn."""

    def __init__(self, processor: Any, lm: Any, tools: str = "auto") -> None:
        # in words: a processor's template is another one than its tokenizer's
        super().__init__(processor.tokenizer, lm, "none" if tools == "none" else "text")
        self._processor = processor

    def _render(self, situation: Situation, observation: str) -> list[int]:
        return self.whole(replace(situation, observation=observation, earlier=(), memory=""))

    def whole(self, situation: Situation) -> list[int]:
        """The tokens of the whole chat, those of its pictures among them."""
        return [int(token) for token in self._inputs(situation)["input_ids"][0]]

    def look(self, situations: Sequence[Situation]) -> dict[str, Any]:
        """The pictures of one situation, in the form that the model takes."""
        (situation,) = situations
        if not any(situation.pictures):
            return {}
        found = self._inputs(situation)
        ids = found.pop("input_ids")
        return {name: value for name, value in found.items() if value.shape != ids.shape}

    def _inputs(self, situation: Situation) -> dict[str, Any]:
        told = situation.tools if self._tells_in_words else ()
        situation = replace(situation, instructions=with_tools(situation.instructions, told))
        said = [
            {"role": message["role"], "content": message["content"]}
            for message in messages(situation)
            if message["content"]
        ]
        shown = with_pictures(said, situation.pictures, lambda _: {"type": "image"})
        # templates of such models read parts, and not all of them read a plain text too
        for message in shown:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        text = self._processor.apply_chat_template(
            shown, add_generation_prompt=True, tokenize=False
        )
        seen = [open_picture(data) for turn in situation.pictures for data in turn]
        return dict(
            self._processor(
                text=[text], images=seen or None, add_special_tokens=False, return_tensors="pt"
            )
        )


class SeeingEngine(LocalEngine):
    """Samples from a vision-language model, one situation at a time."""

    _tokenizer: SeeingTurns

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        return [
            super(SeeingEngine, self).act([self._fitting(s)], temperature)[0] for s in situations
        ]

    def encode(self, situation: Situation, action: str) -> Decision:
        return super().encode(self._fitting(situation), action)

    def _fitting(self, situation: Situation) -> Situation:
        """The situation without its earlier turns, and their pictures, where they have no room."""
        room = self._limits.context - self._limits.most_tokens
        if situation.earlier and self.length(situation) > room:
            return replace(situation, earlier=(), before=None)
        return situation

    def _whole(self, situation: Situation) -> np.ndarray:
        return np.array(self._tokenizer.whole(situation), np.int32)


def make_model(policy: PolicySettings, seed: int) -> TrainedModel:
    """The pretrained model; `seed` decides nothing here. Raises MissingPartError if it cannot be
    loaded, ConfigError if no token of the model would end an action."""
    model: CausalModel
    if sees(policy.model):
        if policy.learns:
            raise ConfigError(
                f"{policy.place('learns')}: policy.learns: {policy.model} sees pictures, and a "
                "vision-language model is not trained here yet",
                "set policy.learns=false",
            )
        model, processor = load_seeing(policy.model)
        turns: ChatTurns = SeeingTurns(processor, model.lm, policy.tools)
    else:
        arguments = arguments_of(policy)
        model, tokenizer = load(policy.model, arguments.device, arguments.dtype)
        turns = ChatTurns(tokenizer, model.lm, policy.tools)
        if arguments.lora_rank:
            adapt(model, arguments.lora_rank, arguments.lora_alpha)
    if not turns.ends:
        raise ConfigError(
            f"policy.model: {policy.model} names no token that ends an answer",
            "name one: eos_token in its tokenizer_config.json, or eos_token_id in its "
            "generation_config.json",
        )
    return TrainedModel(model, turns)


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None) -> LocalEngine:
    """Samples from `trained`, or from a copy of the pretrained model of its own."""
    is_own = trained is None
    trained = trained or make_model(policy, seed)
    limits = TokenLimits.of(policy)
    engine: LocalEngine
    if isinstance(trained.tokenizer, SeeingTurns):
        look = trained.tokenizer.look
        engine = SeeingEngine(trained, limits, seed, "hugging_face", policy.listed, look)
    else:
        engine = LocalEngine(trained, limits, seed, "hugging_face", policy.listed)
        if is_own and (megabytes := arguments_of(policy).prefix_mb):
            trained.model.prefixes = PrefixStore(megabytes << 20)
    engine.model_name = Path(policy.model).name
    return engine


KIND = EngineKind(make_engine, make_model, is_pretrained=True)
