"""Low-rank adapters: what is learned, what is pushed, and what other programs read of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as read_safetensors

from actors import ROOT
from actors.config.schema import Policy
from actors.engines.engine import Situation
from actors.engines.registry import make_engine, make_model
from experience.errors import ConfigError, WeightsError
from experience.learning.batch import Turn
from experience.learning.learner import LearnerSettings
from experience.learning.trainer import Trainer
from experience.models.hugging_face import load, load_tokenizer, write_folder
from experience.models.lora import adapt, write_adapter
from experience.models.weights import Weights
from tests.tiny_hugging_face import write_tiny_model

TOKENS = torch.tensor([[5, 9, 2, 77, 30, 8]])


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return write_tiny_model(tmp_path / "tiny")


def adapted(name: str, rank: int = 4) -> torch.nn.Module:
    model, _ = load(name)
    adapt(model, rank, 8.0)
    return model


def changed(model: torch.nn.Module) -> torch.nn.Module:
    """The adapter after what could be an update."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in model.named_parameters():
        if name.endswith("lora_B"):
            tensor.data.normal_(0, 0.1, generator=generator)
    return model


def test_a_new_adapter_changes_nothing_and_a_trained_one_does(tiny: str) -> None:
    plain, _ = load(tiny)
    model = adapted(tiny)
    assert torch.equal(model(TOKENS), plain(TOKENS))
    assert not torch.allclose(changed(model)(TOKENS), plain(TOKENS), atol=1e-3)


def test_every_process_begins_with_the_same_adapter(tiny: str) -> None:
    torch.manual_seed(1)
    first = Weights.of(adapted(tiny), 0)
    torch.manual_seed(2)
    assert Weights.of(adapted(tiny), 0) == first


def test_learning_moves_the_adapter_alone(tiny: str) -> None:
    model = adapted(tiny)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    trainer = Trainer(model, LearnerSettings(learning_rate=1e-2))
    ids = TOKENS[0].numpy().astype("int32")
    trainer.update([], [Turn(ids[:3], ids[3:], ids[3:] * 0.0)] * 4, 1.0)
    after = dict(model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.endswith(("lora_A", "lora_B")) for name in moved)


def test_weights_of_an_adapted_model_are_its_adapter_and_make_another_the_same(tiny: str) -> None:
    model = changed(adapted(tiny))
    weights = Weights.of(model, 3)
    assert all(name.endswith(("lora_A", "lora_B")) for name in weights.tensors())
    assert len(weights.data) < len(Weights.of(load(tiny)[0], 3).data) / 3
    other = adapted(tiny)
    weights.put_into(other)
    assert torch.equal(other(TOKENS), model(TOKENS))


def test_an_engine_and_its_learner_share_an_adapter(tiny: str) -> None:
    policy = Policy(engine="hugging_face", model=tiny, context=64, max_tokens=8,
                    arguments={"lora_rank": 4})  # fmt: skip
    trained = make_model(policy, 0)
    assert trained is not None
    pushed = Weights.of(changed(trained.model), 7)
    engine = make_engine(policy, 1)
    asked = [Situation("go?", "Say yes.", draw=5)]
    before = engine.act(asked, 1.0)[0]
    engine.load(pushed)
    after = engine.act(asked, 1.0)[0]
    assert (before.policy_version, after.policy_version) == (0, 7)
    assert before.logprobs.tolist() != after.logprobs.tolist()


def test_a_whole_model_and_damaged_bytes_are_no_adapter(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a whole model"):
        write_adapter(Weights.of(load(tiny)[0], 1), tmp_path / "a", 8.0)
    good = Weights.of(adapted(tiny), 1)
    with pytest.raises(WeightsError, match="SHA-256"):
        write_adapter(Weights(1, good.data[:-4] + b"\1\1\1\1", good.sha256), tmp_path / "a", 8.0)
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


def test_an_adapter_file_has_the_names_and_shapes_of_peft(tiny: str, tmp_path: Path) -> None:
    write_adapter(Weights.of(adapted(tiny), 1), tmp_path, 8.0)
    found = read_safetensors((tmp_path / "adapter_model.safetensors").read_bytes())
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    assert found[name].shape == (4, 64)


def test_peft_reads_an_adapter_back_and_computes_the_same(tiny: str, tmp_path: Path) -> None:
    python = ROOT / ".peers/vllm/bin/python"
    if not python.exists():
        pytest.skip("no peft here: ./xp setup vllm")
    model = changed(adapted(tiny))
    write_adapter(Weights.of(model, 1), tmp_path / "adapter", 8.0)
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M; "
        "from peft import PeftModel; "
        "m = PeftModel.from_pretrained(M.from_pretrained(sys.argv[1]), sys.argv[2]); "
        f"torch.save(m(torch.tensor({TOKENS.tolist()})).logits.detach(), sys.argv[3])"
    )
    words = [str(python), "-c", code, tiny, str(tmp_path / "adapter"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-800:]
    assert torch.allclose(torch.load(tmp_path / "out"), model(TOKENS), atol=1e-5)


def test_a_model_written_as_a_folder_is_the_same_model(tiny: str, tmp_path: Path) -> None:
    model, tokenizer = load(tiny)
    write_folder(model, tokenizer, tmp_path / "copy", "float32")
    again, _ = load(str(tmp_path / "copy"))
    assert torch.equal(again(TOKENS), model(TOKENS))
    text = "a room, <|end|> and a key"
    known = load_tokenizer(str(tmp_path / "copy"))
    assert known.encode(text) == tokenizer.encode(text)
