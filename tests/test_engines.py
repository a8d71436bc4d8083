"""Engines: exact tokens where they can be had, honest marks where not, and patience with servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config.schema import Policy
from actors.engines.engine import Situation, parse_action
from actors.engines.registry import make_engine, make_model
from experience.errors import ConfigError, EngineError, MissingPartError, RecordError
from experience.learning.advantages import of_decision
from experience.learning.batch import TokenBatch
from experience.learning.learner import LearnerSettings
from experience.learning.sequences.scoring import token_logprobs
from experience.learning.token_learner import TokenLearner
from experience.models.decoding import sample
from experience.models.hugging_face import locate
from experience.models.weights import Weights
from tests.conftest import free_port
from tests.tiny_hugging_face import write_tiny_model

ASK = [
    Situation(
        "f(int): add 2, times 3", "Reply with one line: `submit CODE`, where CODE defines f."
    ),
    Situation("vote red\nbutton blue #1\nbutton red #2", "Reply with one line: `click N`."),
]
SMALL = Policy(layers=1, width=32, heads=4, context=128, max_tokens=12)


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ("click 1", "click 1"),
        ("  click 1\n", "click 1"),
        ("`click 1`", "click 1"),
        ("<think>hm</think>click 1", "click 1"),
        ("submit ```python\nf=1\n```", "submit f=1"),
        ("```\nclick 1\n```", "click 1"),
    ],
)
def test_an_action_is_found_in_what_a_model_says(said: str, done: str) -> None:
    assert parse_action(said) == done


def test_the_small_engine_gives_exact_tokens_and_takes_new_weights() -> None:
    trained = make_model(SMALL, 1)
    assert trained is not None
    one = make_engine(SMALL, 1, trained)
    two = make_engine(SMALL, 2)
    two.load(Weights.of(trained.model, 4))
    for decision in two.act(ASK, 1.0):
        assert decision.token_exact
        assert decision.policy_version == decision.version_spans[0].version == 4
        assert len(decision.logprobs) == len(decision.action_ids) > 0
    assert [d.text for d in one.act(ASK, 0.0)] == [d.text for d in two.act(ASK, 0.0)]


def test_a_model_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(MissingPartError, match=r"\.gguf"):
        locate("/nowhere/model")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def tiny_model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


def chat(name: str, seed: int = 0, **settings: Any) -> Any:
    return make_engine(
        Policy(engine="hugging_face", model=name, **{"context": 400, "max_tokens": 12} | settings),
        seed,
    )


LISTED = [replace(situation, actions=("press one", "press two", "wait")) for situation in ASK]


@pytest.mark.parametrize(
    ("temperature", "listed"), [(1.0, False), (0.6, False), (2.0, True), (0.0, False)]
)
def test_what_a_hugging_face_model_samples_is_scored_as_it_was_sampled(
    tiny_model: str, temperature: float, listed: bool
) -> None:
    """Its generation settings (penalty, top-k, top-p) and its dropout play no part in either."""
    engine = chat(tiny_model, listed=listed)
    decisions = engine.act([*LISTED, *ASK] * 3, temperature)
    engine._model.train()
    metrics = TokenLearner(engine._model, LearnerSettings(learning_rate=0.0)).trainer.update(
        [of_decision(d, 1.0) for d in decisions], [], 0.0
    )
    assert abs(metrics["kl"]) < 1e-6 and metrics["clipped"] == 0
    assert all(d.sampled == (temperature > 0) and d.temperature == temperature for d in decisions)
    said = {d.text for d in decisions}
    assert not listed or said & {"press one", "press two", "wait"}
    for decision in decisions:
        batch = TokenBatch.of([of_decision(decision)])
        with torch.inference_mode():
            logits = engine._model.eval()(batch.tokens)
        logp = token_logprobs(
            logits, batch.tokens, batch.temperature, batch.barred(logits.shape[-1])
        )
        assert np.allclose(
            logp[0, len(decision.prompt_ids) - 1 :].numpy(), decision.logprobs, atol=1e-4
        )


def test_a_listed_action_is_done_to_the_letter_whatever_a_models_answer_would_be_read_as(
    tiny_model: str,
) -> None:
    listed = ("'left'", " up ", "```\nx\n```", "`a`", "ends here\n")
    said = {
        d.text
        for d in chat(tiny_model, listed=True).act([replace(ASK[0], actions=listed)] * 24, 4.0)
    }
    assert said <= set(listed) and len(said) > 1


def test_more_than_the_three_likeliest_tokens_are_sampled(tiny_model: str) -> None:
    """The model's own settings allow the three likeliest only."""
    decisions = chat(tiny_model).act([ASK[0]] * 200, 2.0)
    assert len({int(d.action_ids[0]) for d in decisions}) > 3


def test_each_of_a_models_end_tokens_ends_an_action(tiny_model: str) -> None:
    decisions = chat(tiny_model).act(ASK * 200, 3.0)
    endings = {int(d.action_ids[-1]) for d in decisions if not d.action_cut}
    assert len(endings) == 2, "both <|end|> and <|stop|>"
    assert all(not endings & set(d.action_ids[:-1].tolist()) for d in decisions)
    assert all(len(d.action_ids) == 12 for d in decisions if d.action_cut)


def test_a_model_without_an_end_token_is_refused_at_the_start_with_what_to_do(
    tmp_path: Path,
) -> None:
    name = write_tiny_model(tmp_path, ends=False)
    with pytest.raises(ConfigError, match=r"no token that ends an answer\n.*eos_token"):
        chat(name).act(ASK, 1.0)


def test_without_an_end_token_a_continuation_is_as_long_as_it_may_be_and_a_listed_text_is_refused() -> (
    None
):
    trained = make_model(SMALL, 1)
    assert trained is not None
    prompts, generator = [np.arange(5), np.arange(9)], torch.Generator().manual_seed(0)
    found = sample(
        trained.model, prompts, end=(), most_tokens=7, temperature=1.0, generator=generator
    )
    assert [(len(s.ids), s.ended) for s in found] == [(7, False), (7, False)]
    with pytest.raises(RecordError, match="no end token"):
        sample(
            trained.model,
            prompts,
            end=3,
            most_tokens=7,
            temperature=1.0,
            generator=generator,
            only=[[np.array([1, 2])]] * 2,
        )


@pytest.mark.parametrize("which", ["small", "hugging_face"])
def test_samples_come_from_the_engines_own_generator_and_leave_the_global_one(
    which: str, tiny_model: str
) -> None:
    def made() -> Any:
        return make_engine(SMALL, 5) if which == "small" else chat(tiny_model, 5)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = [d.action_ids.tolist() for d in made().act(ASK * 4, 1.0)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = [d.action_ids.tolist() for d in made().act(ASK * 4, 1.0)]
    engine = made()
    engine._generator.manual_seed(6)
    assert one == two != [d.action_ids.tolist() for d in engine.act(ASK * 4, 1.0)]


def test_a_situation_with_a_draw_is_answered_the_same_whatever_is_asked_beside_it() -> None:
    engine = make_engine(SMALL, 1)
    asked = replace(ASK[0], draw=123)
    (alone,) = engine.act([asked], 1.0)
    among = engine.act([ASK[1], asked, replace(ASK[0], draw=5)], 1.0)
    assert among[1].action_ids.tolist() == alone.action_ids.tolist() != among[2].action_ids.tolist()


def test_a_long_prompt_keeps_its_rules_and_loses_the_middle_of_what_is_seen(
    tiny_model: str,
) -> None:
    engine = chat(tiny_model, context=200)
    seen = "first words é " + "middle é" * 100 + " last words"
    (decision,) = engine.act([Situation(seen, "These are the rules.")], 1.0)
    asked = engine._tokenizer._tokenizer.decode(decision.prompt_ids)
    assert asked.startswith("<|system|>These are the rules.<|end|><|user|>first words")
    assert asked.endswith("last words<|end|><|assistant|>") and " […] " in asked
    assert 180 <= len(decision.prompt_ids) <= 188 and decision.prompt_cut > 600
    (whole,) = engine.act([Situation("short", "These are the rules.")], 1.0)
    assert whole.prompt_cut == 0


def test_rules_that_leave_no_room_and_actions_that_are_too_long_are_refused_with_the_number(
    tiny_model: str,
) -> None:
    engine = chat(tiny_model, context=64)
    with pytest.raises(
        ConfigError, match=r"policy\.context.*rules alone take \d+ tokens.*52 are allowed"
    ):
        engine.act([Situation("x", "rules " * 30)], 1.0)
    for engine in (
        chat(tiny_model, max_tokens=8),
        make_engine(SMALL.model_copy(update={"max_tokens": 8}), 0),
    ):
        with pytest.raises(
            ConfigError,
            match=r"policy\.max_tokens: 8 are allowed, and the action 'abcdefgh' takes 9",
        ):
            engine.encode(ASK[0], "abcdefgh")


def test_a_prompt_or_action_that_was_cut_says_so() -> None:
    engine = make_engine(SMALL, 0)
    long, short = engine.act([Situation("x" * 200), Situation("x")], 1.0)
    assert (long.prompt_cut, len(long.prompt_ids), short.prompt_cut) == (202 - 116, 116, 0)
    for decision in engine.act(ASK * 20, 1.0):
        assert decision.action_cut == (decision.action_ids[-1] != 258)


@pytest.fixture(scope="module")
def smollm() -> Any:
    return make_engine(
        Policy(engine="hugging_face", model="smollm2", context=512, max_tokens=12), 0
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_llm_gives_the_log_probabilities_that_the_learner_computes(
    smollm: Any, temperature: float
) -> None:
    for decision in smollm.act(ASK, temperature):
        assert decision.token_exact
        batch = TokenBatch.of([of_decision(decision)])
        with torch.inference_mode():
            logp = token_logprobs(smollm._model(batch.tokens), batch.tokens, batch.temperature)[
                batch.mask.bool()
            ]
        assert np.allclose(logp.numpy(), decision.logprobs, atol=2e-3)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`transformers serve` with SmolLM2: a real OpenAI-compatible server on loopback."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    log = open(f"/tmp/xp-serve-{port}.log", "w+")
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    deadline = time.monotonic() + 300
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


def test_a_real_openai_server_acts_and_its_steps_are_marked_as_not_token_exact(
    server: str, tmp_path: Path
) -> None:
    model = folder_of_smollm(tmp_path)
    engine = make_engine(
        Policy(
            engine="openai", model=model, base_url=server, learns=False, max_tokens=8, retries=1
        ),
        0,
    )
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
    engine = make_engine(
        Policy(
            engine="openai",
            model="m",
            base_url=f"http://127.0.0.1:{free_port()}/v1",
            learns=False,
            retries=1,
            timeout_seconds=2,
        ),
        0,
    )
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        engine.act(ASK[:1], 0.0)
