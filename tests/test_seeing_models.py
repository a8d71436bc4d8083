"""Vision-language models of Hugging Face: pictures go through the model's own processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.config.schema import Policy, load
from actors.engines.engine import Exchange, Situation
from actors.engines.hugging_face_engine import SeeingEngine, make_engine, make_model
from envs.small.click import Click
from experience.errors import ConfigError
from experience.models.hugging_face import sees
from tests.tiny_hugging_face import write_tiny_model, write_tiny_seeing_model

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_seeing_model(tmp_path_factory.mktemp("seeing"))


def policy(folder: str, *words: str) -> Policy:
    wanted = [
        "policy.engine=hugging_face",
        f"policy.model={folder}",
        "policy.max_tokens=6",
        "policy.context=200",
        "policy.learns=false",
    ]
    return load([], [*wanted, *words])[0].policy


@pytest.fixture(scope="module")
def engine(folder: str) -> SeeingEngine:
    found = make_engine(policy(folder), 0, None)
    assert isinstance(found, SeeingEngine) and found.sees
    return found


def scene(seed: int) -> Situation:
    world = Click()
    text, info = world.reset(seed=seed)
    return Situation(text, "Click.", images=info["images"], draw=seed)


def test_a_model_sees_if_its_class_and_its_folder_say_so(folder: str, tmp_path: Path) -> None:
    assert sees(folder)
    assert not sees(write_tiny_model(tmp_path))


def test_the_picture_is_in_the_prompt_as_tokens_and_decides_what_is_answered(
    engine: SeeingEngine,
) -> None:
    asked = scene(1)
    other = replace(asked, images=scene(2).images)
    blind = replace(asked, images={})
    one, two, three = engine.act([asked, other, blind], 1.0)
    assert np.array_equal(one.prompt_ids, two.prompt_ids)
    assert len(one.prompt_ids) == len(three.prompt_ids) + 4
    assert one.token_exact and not np.allclose(one.logprobs[0], two.logprobs[0], atol=1e-6)


def test_log_probabilities_are_those_of_the_model_with_its_picture(engine: SeeingEngine) -> None:
    asked = scene(3)
    (decision,) = engine.act([asked], 1.0)
    ids = np.concatenate([decision.prompt_ids, decision.action_ids]).astype(np.int64)
    with torch.inference_mode():
        shown = engine._tokenizer.look([asked])
        lm = engine._model.lm
        logits = lm(input_ids=torch.from_numpy(ids)[None], **shown).logits[0].float()
    logp = logits.log_softmax(-1)[len(decision.prompt_ids) - 1 : -1]
    chosen = logp[np.arange(len(decision.action_ids)), ids[len(decision.prompt_ids) :]]
    assert np.allclose(chosen.numpy(), decision.logprobs, atol=1e-3)


def test_earlier_pictures_are_seen_again_and_left_out_with_their_turns_without_room(
    engine: SeeingEngine,
) -> None:
    first = scene(1)
    earlier = Exchange(first.observation, "click 1 2", np.empty(0, np.int32), first.images)
    asked = replace(scene(2), earlier=(earlier,))
    (decision,) = engine.act([asked], 0.0)
    image = engine._tokenizer._processor.tokenizer.convert_tokens_to_ids("<image>")
    assert int((decision.prompt_ids == image).sum()) == 8
    many = replace(asked, earlier=(earlier,) * 9)
    (decision,) = engine.act([many], 0.0)
    assert int((decision.prompt_ids == image).sum()) == 4


def test_a_model_that_sees_is_not_trained_yet_and_says_so(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"policy.learns: .* is not trained here yet"):
        make_model(policy(folder, "policy.learns=true"), 0)
