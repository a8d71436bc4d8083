"""Engines: exact tokens where they can be had, honest marks where not, and patience with servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import Policy
from actors.engines import Situation, make_engine, parse_action
from experience.errors import EngineError, MissingPartError
from experience.learning.batch import TokenBatch, Turn
from experience.learning.losses import token_logprobs
from experience.models.hugging_face import locate
from experience.models.weights import Weights
from tests.conftest import free_port

ASK = [Situation("f(int): add 2, times 3", "Reply with one line: `submit CODE`, where CODE defines f."),
       Situation("vote red\nbutton blue #1\nbutton red #2", "Reply with one line: `click N`.")]
SMALL = Policy(layers=1, width=32, heads=4, context=128, max_tokens=12)


@pytest.mark.parametrize(("said", "done"), [
    ("click 1", "click 1"), ("  click 1\n", "click 1"), ("`click 1`", "click 1"),
    ("<think>hm</think>click 1", "click 1"),
    ("submit ```python\nf=1\n```", "submit f=1"), ("```\nclick 1\n```", "click 1")])
def test_an_action_is_found_in_what_a_model_says(said: str, done: str) -> None:
    assert parse_action(said) == done


def test_the_small_engine_gives_exact_tokens_and_takes_new_weights() -> None:
    one, two = make_engine(SMALL, 1), make_engine(SMALL, 2)
    two.load(Weights.of(one.model, 4))
    for decision in two.act(ASK, 1.0):
        assert decision.token_exact
        assert decision.policy_version == decision.version_spans[0].version == 4
        assert len(decision.logprobs) == len(decision.action_ids) > 0
    assert [d.text for d in one.act(ASK, 0.0)] == [d.text for d in two.act(ASK, 0.0)]


def test_a_model_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(MissingPartError, match=r"\.gguf"):
        locate("/nowhere/model")


@pytest.fixture(scope="module")
def smollm() -> Any:
    return make_engine(Policy(engine="hugging_face", model="smollm2", context=512, max_tokens=12), 0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_llm_gives_the_log_probabilities_that_the_learner_computes(smollm: Any, temperature: float) -> None:
    for decision in smollm.act(ASK, temperature):
        assert decision.token_exact
        batch = TokenBatch.of([Turn(decision.prompt_ids, decision.action_ids, decision.logprobs)])
        with torch.inference_mode():
            logp = token_logprobs(smollm.model(batch.tokens), batch.tokens)[batch.mask.bool()]
        assert np.allclose(logp.numpy(), decision.logprobs, atol=2e-3)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`transformers serve` with SmolLM2: a real OpenAI-compatible server on loopback."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port),
               "--device", "cpu"]
    log = open(f"/tmp/xp-serve-{port}.log", "w+")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.3)
    else:
        log.seek(0)
        pytest.fail(f"the server did not start: {log.read()[-2000:]}")
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait()
    Path(log.name).unlink()


def test_a_real_openai_server_acts_and_its_steps_are_marked_as_not_token_exact(server: str, tmp_path: Path) -> None:
    model = folder_of_smollm(tmp_path)
    engine = make_engine(Policy(engine="openai", model=model, base_url=server, learns=False, max_tokens=8, retries=1), 0)
    for decision in engine.act(ASK, 0.7):
        assert decision.text
        assert not decision.token_exact
        assert len(decision.action_ids) == 0
        assert decision.behaviour_id == f"openai:{model}"


def folder_of_smollm(tmp_path: Path) -> str:
    """SmolLM2 as a folder that the server can be asked for by name."""
    from transformers import AutoModelForCausalLM

    from experience.models.hugging_face import load

    model, tokenizer = load("smollm2")
    config = model.lm.config
    del config.quantization_config  # a GGUF file cannot be written back; its numbers in float32 can
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.lm.state_dict())
    plain.save_pretrained(tmp_path / "smollm2")
    tokenizer.save_pretrained(tmp_path / "smollm2")
    return str(tmp_path / "smollm2")


def test_a_server_that_is_down_is_tried_again_and_then_named() -> None:
    engine = make_engine(Policy(engine="openai", model="m", base_url=f"http://127.0.0.1:{free_port()}/v1", learns=False,
                                retries=1, timeout_seconds=2), 0)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        engine.act(ASK[:1], 0.0)
