"""A tiny Hugging Face model with random weights, written to a folder as any other is: for tests."""

from __future__ import annotations

from pathlib import Path

import torch

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ("<|end|>", "<|stop|>", "<|system|>", "<|user|>", "<|assistant|>")


def write_tiny_model(folder: Path, kind: str = "llama", seed: int = 0, *, ends: bool = True) -> str:
    """A llama or gpt2 (with dropout) of two layers over bytes. Its settings for generation ask for
    a repetition penalty, top-k, top-p and a temperature, and name two end tokens; or none, where it
    is not to have `ends`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        additional_special_tokens=list(MARKS),
        **({"eos_token": MARKS[0]} if ends else {}),
    )
    tokenizer.chat_template = TEMPLATE
    size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=size,
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=512,
                )
            )
            if kind == "llama"
            else GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=size,
                    n_embd=32,
                    n_layer=2,
                    n_head=4,
                    n_positions=512,
                    resid_pdrop=0.5,
                    attn_pdrop=0.5,
                )
            )
        )
        for weight in model.parameters():
            weight.data.mul_(4.0)  # so that some tokens are likelier than others
    marks = [tokenizer.convert_tokens_to_ids(mark) for mark in MARKS[:2]]
    settings = {
        "do_sample": True,
        "repetition_penalty": 1.7,
        "top_k": 3,
        "top_p": 0.6,
        "temperature": 0.3,
        "eos_token_id": marks if ends else None,
        "pad_token_id": marks[0],
    }
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    if not ends:
        model.config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_tiny_seeing_model(folder: Path, seed: int = 0) -> str:
    """A LLaVA of random weights over bytes: a picture of 32 x 32 pixels is four tokens."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS, "<image>"]})
    image = tokenizer.convert_tokens_to_ids("<image>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **sizes, num_attention_heads=2, image_size=32, patch_size=16, projection_dim=32
        ),
        text_config=LlamaConfig(
            **sizes,
            vocab_size=len(tokenizer),
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        ),
        image_token_index=image,
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        for weight in model.parameters():
            weight.data.mul_(4.0)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(MARKS[0])
    side = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=side, crop_size=side),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}"
            "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
            "{% endfor %}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}"
        ),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
