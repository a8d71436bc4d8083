"""Our own small byte-level transformer, in this process, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from actors.engines import Situation
from experience.models.decoding import fit, sample
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan


class SmallEngine:
    """Prompts are the bare observation: a model this small is taught the worlds' grammar by demonstrations. `listed`:
    where a world lists its actions, it writes one of them and nothing else."""

    behaviour_id = "small"

    def __init__(self, shape: TransformerShape, most_tokens: int, seed: int, listed: bool = False) -> None:
        torch.manual_seed(seed)
        self.model = Transformer(shape)
        self.model.eval()
        self.tokenizer = ByteTokenizer()
        self.version = 0
        self._most_tokens, self._listed = most_tokens, listed
        self._generator = torch.Generator().manual_seed(seed)

    def load(self, weights: Weights) -> None:
        weights.put_into(self.model)
        self.version = weights.version

    def encode(self, situation: Situation, action: str) -> tuple[np.ndarray, np.ndarray]:
        return self._prompt(situation), self.tokenizer.action(action)

    def _prompt(self, situation: Situation) -> np.ndarray:
        return fit(self.tokenizer.prompt(situation.observation), self.model.shape.context - self._most_tokens)

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        prompts = [self._prompt(s) for s in situations]
        only = [[self.tokenizer.action(a) for a in s.actions] for s in situations] if self._listed else ()
        decoder = f"temperature={temperature:g}" + " listed" * self._listed
        sampled = sample(self.model, prompts, end=self.tokenizer.END, most_tokens=self._most_tokens,
                         temperature=temperature, generator=self._generator, only=only)
        return [Decision(text=self.tokenizer.text(ids), policy_version=self.version, prompt_ids=prompt, action_ids=ids,
                         logprobs=logprobs, version_spans=(VersionSpan(self.version, len(ids)),), token_exact=True,
                         decoder=decoder, behaviour_id=self.behaviour_id)
                for prompt, (ids, logprobs) in zip(prompts, sampled, strict=True)]
