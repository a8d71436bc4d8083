"""What a turn costs as its history grows: the engine against `generate` with the whole prompt.

    python -m benchmarks.engines.turns --agents 16 --turns 8 --out turns.json

Both answer the same prompts greedily, with as many tokens each turn; the texts must be equal. The
peer is `transformers.generate` on the batch of whole prompts, as most agent programs call it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from experience.models.decoding import sample
from experience.models.hugging_face import CausalModel, load
from experience.models.prefixes import PrefixStore
from experience.text.strict_json import dumps

Answers = list[np.ndarray]


def converse(
    agents: int,
    turns: int,
    answer: Callable[[list[np.ndarray]], Answers],
    seen_tokens: int,
    vocabulary: int,
) -> tuple[list[float], list[Answers]]:
    """(CPU seconds of each turn, answers of each turn) of conversations whose prompts only grow."""
    rng = np.random.default_rng(0)
    prompts = [
        rng.integers(vocabulary - 1, size=4 * seen_tokens).astype(np.int32) for _ in range(agents)
    ]
    seconds, found = [], []
    for _ in range(turns):
        # of the process, which what else runs on the machine does not lengthen as much
        begun = time.process_time()
        answers = answer(prompts)
        seconds.append(time.process_time() - begun)
        found.append(answers)
        new = [
            rng.integers(vocabulary - 1, size=seen_tokens).astype(np.int32) for _ in range(agents)
        ]
        prompts = [np.concatenate(p) for p in zip(prompts, answers, new, strict=True)]
    return seconds, found


def by_engine(model: CausalModel, tokens: int) -> Callable[[list[np.ndarray]], Answers]:
    last = model.lm.config.vocab_size - 1  # never the likeliest: all answers have one length

    def answer(prompts: list[np.ndarray]) -> Answers:
        generator = torch.Generator()
        found = sample(model, prompts, end=[last], most_tokens=tokens, temperature=0.0,
                       generator=generator)  # fmt: skip
        return [one.ids for one in found]

    return answer


def by_generate(model: CausalModel, tokens: int) -> Callable[[list[np.ndarray]], Answers]:
    def answer(prompts: list[np.ndarray]) -> Answers:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, longest - len(prompt) :] = 1
        with torch.inference_mode():
            out = model.lm.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens,
                pad_token_id=0,
            )  # fmt: skip
        return [row[longest:].numpy().astype(np.int32) for row in out]

    return answer


def random_llama() -> CausalModel:
    """A Llama of 8 layers with random weights, for machines on which a real one takes too long."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=8192, hidden_size=256, intermediate_size=768,
                        num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
                        max_position_embeddings=2048, tie_word_embeddings=True)  # fmt: skip
    return CausalModel(LlamaForCausalLM(shape).eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="or random: a small Llama")
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8, help="of each answer")
    parser.add_argument("--seen", type=int, default=48, help="new tokens of each turn")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    model = random_llama() if asked.model == "random" else load(asked.model)[0]
    model.lm.generation_config.eos_token_id = None
    size = model.lm.config.vocab_size
    plain = converse(asked.agents, asked.turns, by_generate(model, asked.tokens), asked.seen, size)
    model.prefixes = PrefixStore(4 << 30)
    ours = converse(asked.agents, asked.turns, by_engine(model, asked.tokens), asked.seen, size)
    equal = [
        np.array_equal(a, b)
        for theirs, own in zip(plain[1], ours[1], strict=True)
        for a, b in zip(theirs, own, strict=True)
    ]
    steps = asked.agents * asked.turns
    result = {
        "arguments": {name: str(value) for name, value in vars(asked).items()},
        "generate_cpu_seconds_a_turn": [round(s, 3) for s in plain[0]],
        "engine_cpu_seconds_a_turn": [round(s, 3) for s in ours[0]],
        "steps_a_cpu_second": [round(steps / sum(plain[0]), 2), round(steps / sum(ours[0]), 2)],
        "ratio": round(sum(plain[0]) / sum(ours[0]), 2),
        "ratio_last_turn": round(plain[0][-1] / ours[0][-1], 2),
        "equal_greedy_answers": f"{sum(equal)} of {len(equal)}",
    }
    print(dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(dumps(result, indent=1))


if __name__ == "__main__":
    main()
