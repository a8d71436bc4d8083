"""The cache of a conversation's beginning: a turn costs its new tokens, and gives the same text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.config.schema import Policy
from actors.engines.engine import Exchange, Situation
from actors.engines.local import LocalEngine
from actors.engines.registry import make_engine
from experience.learning.advantages import of_decision
from experience.learning.batch import Turn
from experience.learning.learner import LearnerSettings
from experience.learning.trainer import Trainer
from experience.models.prefixes import Prefix, PrefixStore
from experience.models.weights import Weights
from experience.policy import Decision
from tests.tiny_hugging_face import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def engine_of(tiny: str, prefix_mb: int) -> LocalEngine:
    policy = Policy(engine="hugging_face", model=tiny, context=500, max_tokens=12,
                    arguments={"prefix_mb": prefix_mb})  # fmt: skip
    engine = make_engine(policy, 0)
    assert isinstance(engine, LocalEngine)
    return engine


def turn(
    engine: LocalEngine, talks: list[list[Exchange]], last: list[Decision], seen: str, heat: float
) -> list[Decision]:
    """The next turn of each conversation, some of which see more than others."""
    asked = []
    for number, talk in enumerate(talks):
        observation = seen * (number + 1)
        before = None
        if last:
            before = np.concatenate([last[number].prompt_ids, last[number].action_ids])
        asked.append(
            Situation(observation, "Find the key.", earlier=tuple(talk), before=before, draw=number)
        )
    found = engine.act(asked, heat)
    for situation, decision, talk in zip(asked, found, talks, strict=True):
        talk.append(Exchange(situation.observation, decision.text, decision.action_ids))
    return found


def talked(engine: LocalEngine, heat: float, turns: int = 4) -> list[list[Decision]]:
    talks: list[list[Exchange]] = [[], [], []]
    found: list[list[Decision]] = []
    for number in range(turns):
        found.append(turn(engine, talks, found[-1] if found else [], f"door {number}. ", heat))
    return found


def flat(turns: list[list[Decision]]) -> list[Decision]:
    return [decision for together in turns for decision in together]


def store_of(engine: LocalEngine) -> PrefixStore:
    store = engine._model.prefixes
    assert isinstance(store, PrefixStore)
    return store


@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_a_conversation_with_a_kept_cache_is_the_conversation_without(
    tiny: str, heat: float
) -> None:
    kept, plain = engine_of(tiny, 64), engine_of(tiny, 0)
    with_cache, without = talked(kept, heat), talked(plain, heat)
    for ours, theirs in zip(flat(with_cache), flat(without), strict=True):
        assert ours.action_ids.tolist() == theirs.action_ids.tolist()
        assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
    assert store_of(kept).reused > 0


def test_a_turn_reads_its_new_tokens_and_the_last_of_the_old(tiny: str) -> None:
    engine = engine_of(tiny, 64)
    found = talked(engine, 0.0)
    # of each later turn, all that was read before: the last sampled token was not
    expected = sum(len(d.prompt_ids) + len(d.action_ids) - 1 for d in flat(found[:-1]))
    first_turns = store_of(engine).reused - expected
    assert 0 <= first_turns <= 2 * len(found[0][0].prompt_ids)


def test_new_weights_read_nothing_that_old_weights_have_seen(tiny: str) -> None:
    engine, other = engine_of(tiny, 64), engine_of(tiny, 0)
    talked(engine, 0.0)
    weights = Weights.of(other._model, 1)
    scaled = {name: tensor * 1.5 for name, tensor in weights.tensors().items()}
    with torch.no_grad():
        for name, tensor in other._model.named_parameters():
            tensor.copy_(scaled[name])
    reused = store_of(engine).reused
    engine.load(Weights.of(other._model, 1))
    asked = [Situation("door 0. ", "Find the key.", draw=0)]
    ours, theirs = engine.act(asked, 0.0)[0], other.act(asked, 0.0)[0]
    assert store_of(engine).reused == reused
    assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-6)


def mismatch(engine: LocalEngine, decisions: list[Decision]) -> float:
    """What the run's metric `engine_mismatch` is made of."""
    turns: list[Turn] = [of_decision(decision) for decision in decisions]
    return float(np.abs(Trainer(engine._model, LearnerSettings()).scorer.differences(turns)).mean())


def test_a_stale_cache_planted_on_purpose_shows_as_a_mismatch(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(tiny, 64)
    sound = mismatch(engine, flat(talked(engine, 1.0)))
    monkeypatch.setattr("experience.models.hugging_face.salt_of", lambda model: 0)
    talks: list[list[Exchange]] = [[], [], []]
    last = turn(engine, talks, [], "door. ", 1.0)
    with torch.no_grad():
        for tensor in engine._model.parameters():
            tensor.mul_(1.5)
    stale = mismatch(engine, turn(engine, talks, last, "key. ", 1.0))
    assert sound < 1e-5 < 1e-2 < stale


def test_a_wrong_chat_template_planted_on_purpose_shows_as_a_mismatch(tiny: str) -> None:
    """The engine samples after other tokens than those that it tells."""
    engine = engine_of(tiny, 0)
    right = engine.act([Situation("door. ", "Find the key.", draw=n) for n in range(8)], 1.0)
    engine._tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    told = engine.act([Situation("door. ", "Find the key.", draw=n) for n in range(8)], 1.0)
    wrong = [replace(d, prompt_ids=r.prompt_ids) for d, r in zip(told, right, strict=True)]
    assert mismatch(engine, right) < 1e-5 < 1e-3 < mismatch(engine, wrong)


def entry(*tokens: int) -> Prefix:
    ids = np.array(tokens, np.int32)
    part = torch.zeros(1, len(tokens), 4)
    return Prefix(ids, [(part, part)])


def test_the_store_keeps_within_its_bytes_and_drops_what_was_used_least() -> None:
    store = PrefixStore(3 * entry(*range(32)).bytes)
    talks = [np.arange(start, start + 33, dtype=np.int32) for start in (0, 100, 200, 300)]
    for talk in talks[:3]:
        store.keep(1, entry(*talk[:32]))
    assert store.find(1, talks[0]).length == 32
    store.keep(1, entry(*talks[3][:32]))
    lengths = [store.find(1, talk).length for talk in talks]
    assert lengths == [32, 0, 32, 32]


def test_a_longer_conversation_stands_in_the_place_of_its_beginning() -> None:
    store = PrefixStore(1 << 20)
    store.keep(1, entry(*range(20)))
    store.keep(1, entry(*range(40)))
    assert len(store._kept) == 1
    assert store.find(1, np.arange(60, dtype=np.int32)).length == 40


def test_one_token_of_a_known_prompt_is_still_read() -> None:
    store = PrefixStore(1 << 20)
    store.keep(1, entry(*range(40)))
    assert store.find(1, np.arange(40, dtype=np.int32)).length == 39


def test_the_prompt_of_a_turn_is_encoded_once(tiny: str) -> None:
    """It is measured, then answered: both from one encoding."""
    engine = engine_of(tiny, 0)
    first = engine.act([Situation("door", "Find it.", draw=0)], 0.0)[0]
    encoded = []
    original = engine._tokenizer.further

    def counted(answer: np.ndarray, observation: str) -> np.ndarray:
        encoded.append(observation)
        return original(answer, observation)

    engine._tokenizer.further = counted
    before = np.concatenate([first.prompt_ids, first.action_ids])
    earlier = (Exchange("door", first.text, first.action_ids),)
    asked = Situation("key", "Find it.", earlier=earlier, before=before)
    measured = engine.length(asked)
    assert len(engine.act([asked], 0.0)[0].prompt_ids) == measured
    assert encoded == ["key"]
