"""Text: perplexity, n-grams, pre-training and scaling laws, against numbers known exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.commands.language import corpus_at, perplexity, plan, pretrain, shapes_of
from actors.config.schema import load
from actors.engines.registry import make_model
from experience.errors import ConfigError, WeightsError
from experience.learning.learner import LearnerSettings
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.pretraining.budget import Speed
from experience.pretraining.budget import plan as plan_budget
from experience.pretraining.ngrams import NGrams
from experience.pretraining.perplexity import (
    ModelPredictor,
    measure,
    measure_model,
    of_probabilities,
)
from experience.pretraining.scaling import PUBLISHED, Law, Measured, fit
from experience.pretraining.text import Corpus, corpus_of, corpus_of_steps, windows
from experience.pretraining.training import pretrain as pretrain_model
from tests.conftest import make_step


def test_perplexity_of_six_probabilities_is_the_published_one() -> None:
    found = of_probabilities([0.2, 0.1, 0.3, 0.05, 0.25, 0.15])  # of product 1.125e-5
    assert round(found.nats, 4) == 1.8992
    assert round(found.perplexity, 2) == 6.68
    assert found.bits_a_byte == pytest.approx(1.8992 / math.log(2), abs=1e-4)


def test_what_was_held_impossible_has_infinite_perplexity() -> None:
    assert of_probabilities([0.5, 0.0]).perplexity == math.inf
    assert of_probabilities([0.5, 0.25, 0.125]).perplexity == pytest.approx(4.0)


def letters(*texts: str) -> list[np.ndarray]:
    """Texts as small numbers, after a mark of 9."""
    return [np.array([9, *(ord(c) - ord("a") for c in text)], np.int32) for text in texts]


def test_a_trigram_counts_and_does_not_generalise() -> None:
    counts = NGrams(3, 10, smoothed=False).count(letters("abab"))
    assert counts.probability(0, [0, 1]) == 1.0  # "ab" was followed by "a"
    assert counts.probability(2, [0, 1]) == 0.0
    assert measure(counts, letters("abc")).perplexity == math.inf


def test_witten_bell_is_the_number_worked_out_by_hand() -> None:
    """After "a": b twice and c once, so T = 2, c(h) = 3. In all: a 2, b 2, c 1: T = 3, n = 5.
    P(b) = (2 + 3/10)/8 = 0.2875; P(b | a) = (2 + 2·0.2875)/5 = 0.515"""
    counts = NGrams(2, 10).count([np.array([9, 0, 1], np.int32), np.array([0, 1], np.int32)])
    counts = NGrams(2, 10).count([np.array(t, np.int32) for t in ([9, 0, 1], [9, 0, 1], [0, 2])])
    assert counts.probability(1, [0]) == pytest.approx(0.515)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_smoothed_probabilities_add_up_to_one(order: int) -> None:
    counts = NGrams(order, 10).count(letters("abacabad", "cab"))
    for context in ([9, 0, 1], [0, 1], [5, 5, 5], []):
        assert sum(counts.probability(w, context) for w in range(10)) == pytest.approx(1.0)


def test_each_token_but_the_first_is_predicted_once() -> None:
    cut = windows([np.arange(10), np.arange(1), np.arange(4)], 4)
    assert [w.tolist() for w in cut] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [0, 1, 2, 3]]


def test_measuring_many_windows_at_once_is_measuring_each() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerShape(ByteTokenizer.size, 1, 16, 2, 16))
    documents = corpus_of([bytes([97 + i] * (5 + 9 * i)) for i in range(10)]).documents
    at_once, each = (
        measure_model(model, documents, 16),
        measure(ModelPredictor(model, 16), documents),
    )
    assert at_once.logprob == pytest.approx(each.logprob, rel=1e-5)
    assert (at_once.tokens, at_once.bytes) == (each.tokens, each.bytes) == (455, 455)


def test_agents_turns_are_a_corpus_as_their_tokens_were_stored() -> None:
    steps = [make_step(t) for t in range(10)] + [make_step(11, split="heldout")]
    corpus = corpus_of_steps(steps)
    decision = steps[3].decision
    assert decision is not None
    assert len(corpus.documents) == 10
    assert corpus.documents[3].tolist() == [*decision.prompt_ids, *decision.action_ids]
    with pytest.raises(ConfigError, match="ten at least"):
        corpus_of_steps(steps[:9])


def test_pretraining_learns_a_periodic_text_and_is_the_same_each_time() -> None:
    corpus = corpus_of([b"abcd" * 8] * 20)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Transformer(TransformerShape(ByteTokenizer.size, 1, 16, 2, 33))
        settings = LearnerSettings(imitation_rate=2e-2, batch_turns=2)
        found.append(pretrain_model(model, corpus, 10_000, settings, 33))
    assert found[0].nats < 0.3 < math.log(4)
    assert found[0].nats == found[1].nats
    assert found[0].tokens >= 10_000
    assert found[0].corpus == Corpus(corpus.documents).sha256


LAW = Law(2.0, 50.0, 300.0, 0.5, 0.4)


def measured(noise: float = 0.0) -> Measured:
    sizes, lengths = np.meshgrid([2e2, 8e2, 3e3, 1.2e4, 5e4], [2.5e4, 1e5, 4e5, 1.6e6])
    n, d = sizes.ravel(), lengths.ravel()
    nats = np.array([LAW.loss(*at) for at in zip(n, d, strict=True)])
    rng = np.random.default_rng(0)
    return Measured(n, d, nats * np.exp(noise * rng.normal(size=len(n))), d * (1e-6 + 1e-9 * n))


def test_the_law_is_found_again_from_losses_that_follow_it() -> None:
    found = fit(measured())
    assert vars(found) == pytest.approx(vars(LAW), rel=1e-6)


def test_one_run_that_went_wrong_hardly_moves_the_law() -> None:
    """The Huber loss counts what is far off linearly."""
    data = measured()
    data.nats[7] *= 1.3
    assert fit(data).floor == pytest.approx(LAW.floor, rel=0.01)


def test_the_best_split_of_compute_is_where_the_loss_is_lowest() -> None:
    flops = 6e9
    n, d = LAW.best(flops)
    assert 6 * n * d == pytest.approx(flops)
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert LAW.loss(n * factor, d / factor) > LAW.loss(n, d)


def test_the_published_law_gives_the_published_loss_of_chinchilla() -> None:
    """70 B parameters and 1.4 T tokens: 1.69 + 406.4/N^0.34 + 410.7/D^0.28"""
    assert PUBLISHED.loss(70e9, 1.4e12) == pytest.approx(1.69 + 0.0838 + 0.1630, abs=1e-3)


def test_a_plan_names_its_spread_and_what_it_was_fitted_on() -> None:
    found = plan_budget(measured(0.002), seconds=2.0)
    assert found.floor[0] <= found.law.floor <= found.floor[1]
    assert found.parameters[0] <= found.choice.parameters <= found.parameters[1]
    assert (found.runs, found.beyond) == (20, 1.0)
    spent = Speed.of(measured()).tokens(found.choice.parameters, 2.0)
    assert spent == pytest.approx(found.choice.tokens, rel=1e-6)


def test_a_plan_far_outside_of_what_was_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"times outside .*\n.*--beyond"):
        plan_budget(measured(), flops=1e18)
    assert plan_budget(measured(), flops=1e18, beyond=1e9).beyond > 1000
    with pytest.raises(ConfigError, match="one budget"):
        plan_budget(measured())
    with pytest.raises(ConfigError, match="do not tell a law"):
        fit(measured().some(np.arange(5)))


def test_the_speed_of_runs_is_found_again() -> None:
    found = Speed.of(measured())
    assert (found.a_token, found.each) == (pytest.approx(1e-6), pytest.approx(1e-9))


SMALL = [
    "policy.layers=1",
    "policy.width=16",
    "policy.heads=2",
    "policy.context=64",
    "policy.max_tokens=8",
]


def test_text_becomes_weights_that_a_run_begins_with(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\n\n".join([b"the same sentence again and again. " * 15] * 12))
    config, _ = load([], [*SMALL, "learning.imitation_rate=0.01", "learning.batch_turns=4"])
    ((shaped, tokens),) = shapes_of(config, [], [4000])
    out = tmp_path / "base.safetensors"
    done = pretrain(str(text), shaped, tokens, out, lambda said: None)
    assert json.loads((tmp_path / "base.json").read_text())["nats"] == done.nats
    measured_again = perplexity(str(out), str(text), config, everything=False)
    assert measured_again.nats == pytest.approx(done.nats, rel=1e-6)
    begun, _ = load([], [*SMALL, f"policy.model={out}"])
    trained = make_model(begun.policy, 7)
    assert trained is not None
    again = measure_model(trained.model, corpus_at(str(text)).held_out, 64)
    assert again.nats == pytest.approx(done.nats, rel=1e-6)
    other, _ = load([], [*SMALL, "policy.width=32", f"policy.model={out}"])
    with pytest.raises(WeightsError, match="the model has"):
        make_model(other.policy, 7)
    trigram = perplexity("ngram:3", str(text), config, everything=False)
    assert 1.0 < trigram.perplexity < done.nats * 100


def test_records_of_two_texts_are_never_planned_by_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no records"):
        plan(tmp_path, 1.0, None, 4.0)
    data = measured()
    for i in range(len(data)):
        record = {
            "form": "xp-pretraining-1",
            "layers": 1,
            "corpus": "a" * 64,
            "parameters": data.parameters[i],
            "tokens": data.tokens[i],
            "nats": data.nats[i],
            "seconds": data.seconds[i],
        }
        (tmp_path / f"{i}.json").write_text(json.dumps(record))
    found, _ = plan(tmp_path, 1 / 30, None, 4.0)
    assert found.choice.loss == pytest.approx(plan_budget(data, seconds=2.0).choice.loss)
    (tmp_path / "0.json").write_text(json.dumps(record | {"corpus": "b" * 64}))
    with pytest.raises(ConfigError, match="2 corpora"):
        plan(tmp_path, 1 / 30, None, 4.0)
