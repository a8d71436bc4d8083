"""A Hugging Face model in this process: chat prompts, exact tokens, true sampling log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from actors.engines import Situation, messages, parse_action
from experience.models.hugging_face import load
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


class HuggingFaceEngine:
    behaviour_id = "hugging_face"

    def __init__(self, name: str, context: int, most_tokens: int, seed: int) -> None:
        self.model, self._tokenizer = load(name)
        self.version = 0
        self._context, self._most_tokens = context, most_tokens
        torch.manual_seed(seed)

    def load(self, weights: Weights) -> None:
        weights.put_into(self.model)
        self.version = weights.version

    def encode(self, situation: Situation, action: str) -> tuple[np.ndarray, np.ndarray]:
        ids = [*self._tokenizer.encode(action, add_special_tokens=False), self._tokenizer.eos_token_id]
        return self._prompt(situation), np.array(ids, np.int32)

    def _prompt(self, situation: Situation) -> np.ndarray:
        """The chat template's tokens; where they are too many, the start of the observation gives way."""
        text = self._tokenizer.apply_chat_template(messages(situation), add_generation_prompt=True, tokenize=False)
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=False), np.int32)
        return ids[-(self._context - self._most_tokens):]

    @torch.inference_mode()
    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        prompts = [self._prompt(s) for s in situations]
        longest = max(map(len, prompts))
        end = self._tokenizer.eos_token_id
        tokens = torch.full((len(prompts), longest), end)
        seen = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt):] = torch.from_numpy(prompt.astype(np.int64))
            seen[row, longest - len(prompt):] = 1
        self.model.eval()
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else \
            {"do_sample": False}
        written = self.model.lm.generate(input_ids=tokens, attention_mask=seen, max_new_tokens=self._most_tokens,
                                         pad_token_id=end, eos_token_id=end, output_logits=True,
                                         return_dict_in_generate=True, **how)
        ids = written.sequences[:, longest:]
        logits = torch.stack(written.logits, 1).float() / (temperature or 1.0)
        logp = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        return [self._decision(prompt, ids[row], logp[row], temperature) for row, prompt in enumerate(prompts)]

    def _decision(self, prompt: np.ndarray, ids: torch.Tensor, logp: torch.Tensor, temperature: float) -> Decision:
        ends = torch.nonzero(ids == self._tokenizer.eos_token_id)
        length = int(ends[0, 0]) + 1 if len(ends) else len(ids)
        action = ids[:length].numpy().astype(np.int32)
        text = self._tokenizer.decode(action, skip_special_tokens=True)
        return Decision(text=parse_action(text), policy_version=self.version, prompt_ids=prompt, action_ids=action,
                        logprobs=logp[:length].numpy().astype(np.float32), token_exact=True,
                        version_spans=(VersionSpan(self.version, length),), decoder=f"temperature={temperature:g}",
                        behaviour_id=self.behaviour_id)
