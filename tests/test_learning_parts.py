"""Small parts of learning, models and decoding: each against a number or an exact error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from experience.episode import Episode, Group
from experience.errors import MissingPartError, RecordError, WeightsError
from experience.learning.advantages import as_sample, as_turn, expert_returns, planned_turns
from experience.learning.batch import TokenBatch, TokenCounts, Turn, as_arrays, micro_batches
from experience.learning.demonstrations import Demonstrations
from experience.learning.null_learner import NullLearner
from experience.learning.token_learner import Minibatches, imitation_schedule
from experience.learning.value import explained_variance
from experience.models.decoding import allowed_tokens, decoder_logprobs, fit, sample
from experience.models.hugging_face import locate
from experience.models.table import Table
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import PolicyBundle, Weights, pack
from experience.policy import Decision, VersionSpan
from experience.step import Step
from tests.conftest import make_step

TINY = TransformerShape(ByteTokenizer.size, layers=1, width=16, heads=2, context=64)


def tiny(seed: int = 0) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Transformer(TINY)


def turn(prompt: int, action: int, advantage: float = 0.0) -> Turn:
    return Turn(
        np.arange(prompt, dtype=np.int32),
        np.arange(action, dtype=np.int32),
        np.full(action, -0.5, np.float32),
        advantage,
    )


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.05), (9, 0.5 * 0.919), (19, 0.829), (50, 0.55), (100, 0.1)]
)
def test_imitation_rises_for_twenty_steps_and_falls_to_a_tenth(step: int, share: float) -> None:
    assert imitation_schedule(step, 100) == pytest.approx(share)


def test_real_turns_make_the_minibatches_that_are_wanted_and_imagined_ones_take_their_size() -> (
    None
):
    """10 real turns in 4: a size of 2. Then 9 imagined ones make 4, and 1 makes one."""
    cuts, rng = Minibatches(4), np.random.default_rng(0)
    assert [len(part) for part in cuts.cut(10, False, rng)] == [3, 3, 2, 2]
    assert cuts.real_size == 2
    assert [len(part) for part in cuts.cut(9, True, rng)] == [3, 2, 2, 2]
    assert [len(part) for part in cuts.cut(1, True, rng)] == [1]
    assert cuts.real_size == 2, "imagined turns do not change it"


def test_minibatches_hold_every_turn_once_and_one_is_empty_where_there_are_none() -> None:
    cuts, rng = Minibatches(4), np.random.default_rng(0)
    assert sorted(np.concatenate(cuts.cut(11, False, rng)).tolist()) == list(range(11))
    (empty,) = cuts.cut(0, False, rng)
    assert len(empty) == 0 and cuts.real_size == 2
    assert len(cuts.cut(2, False, rng)) == 2, "no more minibatches than turns"


def test_a_null_learner_counts_versions_and_learns_nothing() -> None:
    learner = NullLearner()
    first = learner.policy()
    assert learner.policy() is first, "the same object until something changes"
    assert learner.publish().version == 1
    group = Group("g", (Episode((make_step(0),), make_step(1, closing=True)),))
    assert learner.improve([group]) == learner.imitate([], 1.0) == learner.imitate_plans([]) == {}
    assert learner.policy().weights.data == b""
    again = NullLearner()
    again.restore(learner.save(), [], [])
    assert again.policy() == learner.policy() and again.version == 1


def test_a_bundle_stays_the_same_object_while_nothing_in_it_changes() -> None:
    weights = Weights.read(1, b"w")
    bundle = PolicyBundle(weights, b"o", {"m": b"p"})
    assert bundle.updated(Weights.read(1, b"w"), b"o", {"m": b"p"}) is bundle
    assert bundle.updated(weights, b"other", {"m": b"p"}) is not bundle
    assert bundle.updated(weights, b"o", {"m": b"q"}).planner == {"m": b"q"}
    assert weights.as_version(1) is weights
    assert weights.as_version(2) == Weights(2, b"w", weights.sha256)


def test_weights_of_another_shape_are_refused_by_a_tensor_that_differs() -> None:
    wide = TransformerShape(ByteTokenizer.size, layers=1, width=32, heads=2, context=64)
    deep = TransformerShape(ByteTokenizer.size, layers=2, width=16, heads=2, context=64)
    weights = Weights.of(tiny(), 3)
    with pytest.raises(WeightsError, match=r"version 3: \S+ is \(.*16.* the model has \(.*32"):
        weights.put_into(Transformer(wide))
    with pytest.raises(WeightsError, match=r"tensors \['blocks\.1\."):
        weights.put_into(Transformer(deep))
    other = tiny(1)
    weights.put_into(other)
    assert Weights.of(other, 3) == weights


def test_bytes_that_are_no_safetensors_are_refused_though_their_hash_is_right() -> None:
    with pytest.raises(WeightsError, match="not safetensors"):
        Weights.read(1, b"nonsense").tensors()
    with pytest.raises(WeightsError, match="SHA-256"):
        Weights(1, pack({"a": torch.zeros(1)}), "0" * 64).tensors()
    with pytest.raises(WeightsError, match="not a table"):
        Table.read(Weights.of(tiny(), 1))


def test_a_prompt_without_room_keeps_its_first_and_its_last_tokens() -> None:
    prompt = np.arange(10)
    assert fit(prompt, 10) is prompt
    assert fit(prompt, 5).tolist() == [0, 1, 7, 8, 9]
    assert fit(prompt, 4).tolist() == [0, 1, 8, 9]


def test_barred_tokens_have_no_probability_and_the_others_share_it() -> None:
    """Of logits 0, ln 3 and 5 the last is barred: ¼ and ¾. At temperature 0 it is scored at 1."""
    logits = torch.tensor([[0.0, math.log(3.0), 5.0]])
    barred = torch.tensor([[False, False, True]])
    for temperature in (1.0, 0, torch.tensor([[0.0]])):
        found = decoder_logprobs(logits, temperature, barred)[0].exp().tolist()
        assert found == pytest.approx([0.25, 0.75, 0.0])
    half = decoder_logprobs(logits, 0.5, barred)[0].exp().tolist()
    assert half == pytest.approx([0.1, 0.9, 0.0])


def test_the_tokens_that_were_allowed_are_those_that_keep_a_listed_text_possible() -> None:
    """Of ab, ac and b: first a or b, then b or c, then the end alone."""
    listed = [np.array(ids) for ids in ([1, 2, 9], [1, 3, 9], [2, 9])]
    ids, counts = allowed_tokens(np.array([1, 3, 9]), listed)
    assert (ids.tolist(), counts.tolist()) == ([1, 2, 2, 3, 9], [2, 2, 1])
    ids, counts = allowed_tokens(np.array([1, 9]), listed)
    assert (len(ids), len(counts)) == (0, 0), "1 alone is no listed text"


def test_a_listed_text_that_could_not_be_written_is_refused_before_anything_is_sampled() -> None:
    def write(text: list[int]) -> None:
        sample(
            tiny(),
            [np.array([1], np.int32)],
            end=9,
            most_tokens=2,
            temperature=1.0,
            generator=torch.Generator().manual_seed(0),
            only=[[np.array(text)]],
        )

    with pytest.raises(RecordError, match="3 tokens, and at most 2"):
        write([1, 2, 9])
    for endless in ([1, 2], []):
        with pytest.raises(RecordError, match="no end token"):
            write(endless)


def test_a_model_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no model at"):
        locate(str(tmp_path / "nothing"))
    assert locate(str(tmp_path)) == tmp_path


def acted(
    text: str = "go", *, reward: float | None = 0.0, prompt: int = 3, **changes: object
) -> Step:
    ids = ByteTokenizer().action(text)
    known: dict[str, object] = {"sampled": True, "token_exact": True, "temperature": 0.7}
    decision = Decision(
        text,
        0,
        np.arange(prompt, dtype=np.int32),
        ids,
        np.zeros(len(ids), np.float32),
        (VersionSpan(0, len(ids)),),
        **(known | changes),  # type: ignore[arg-type]
    )
    return make_step(0, decision=decision, reward=reward)


def test_a_sample_keeps_its_temperature_and_an_imitated_turn_needs_none() -> None:
    sampled = as_sample(acted(), 0.25)
    assert sampled is not None and (sampled.temperature, sampled.advantage) == (0.7, 0.25)
    greedy = acted(sampled=False, temperature=None)
    imitated = as_turn(greedy)
    assert imitated is not None and imitated.temperature == 1.0
    assert as_sample(greedy, 0.25) is None, "no ratio of policies can be taken"
    assert as_turn(acted(prompt=0)) is None and as_turn(make_step(1, closing=True)) is None


def test_what_a_planner_chose_has_a_value_and_is_no_sample() -> None:
    planned = acted(sampled=False)
    rows = [
        acted(),
        planned,
        make_step(1, decision=planned.decision, value_estimate=0.5),
        make_step(2, decision=acted().decision, value_estimate=0.5),
        make_step(
            3,
            decision=planned.decision,
            value_estimate=0.5,
            source="imagined",
            parent=(b"s" * 16, 0),
            model_version=1,
        ),
    ]
    group = Group("g", (Episode(tuple(rows), make_step(9, closing=True)),))
    assert len(planned_turns([group])) == 1


def test_an_experts_return_leaves_out_episodes_with_an_unknown_reward() -> None:
    def shown(number: int, reward: float | None) -> Step:
        return make_step(0, number.to_bytes(16, "little"), reward=reward)

    rows = [shown(number, float(number)) for number in range(11)]
    assert expert_returns(rows) == {"envs:Test-v0": 1.0}, "the tenth percentile of 0 to 10"
    assert expert_returns([*rows, shown(99, None)]) == {"envs:Test-v0": 1.0}
    assert expert_returns([shown(99, None)]) == {}


def test_the_newest_successes_are_remembered_and_all_of_the_experts() -> None:
    known, rng = Demonstrations(2), np.random.default_rng(0)
    assert known.sample(3, rng) == []
    known.take([acted("expert")] * 3)
    known.add([turn(1, n) for n in (1, 2, 3)])
    lengths = {len(s.turns[0].action) for s in known.sample(200, rng)}
    assert len(known) == 3 and lengths == {2, 3, len("expert") + 1}, "the oldest is forgotten"
    known.take([])
    assert len(known) == 0 and {len(s.turns[0].action) for s in known.sample(50, rng)} == {2, 3}


def test_micro_batches_are_of_similar_lengths_and_a_turn_that_is_too_long_is_alone() -> None:
    """At most 8 padded tokens: 2+2+2 fit in 3·2, a 4 beside them would make 4·4; 9 is too long."""
    lengths = [
        [t.length for t in part]
        for part in micro_batches([turn(1, n - 1) for n in (9, 2, 4, 2, 4, 2)], 8)
    ]
    assert lengths == [[2, 2, 2], [4, 4], [9]]


def test_padding_counts_in_no_mean() -> None:
    """Actions of 1 and 3 tokens; prompts of 2 and 4, whose first token nothing predicts."""
    batch = TokenBatch.of([turn(2, 1), turn(4, 3)])
    assert tuple(batch.tokens.shape) == (2, 7)
    assert batch.mask.tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert batch.observed.tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert TokenCounts.of([batch, batch]) == TokenCounts(8.0, 8.0, 4.0)
    assert TokenCounts.of([TokenBatch.of([turn(2, 0)])]) == TokenCounts(1.0, 1.0)
    assert batch.barred(5) is None
    assert as_arrays(turns=[turn(2, 1)], none=[]).keys() >= {"turns_tokens", "turns_mask"}


def test_explained_variance_is_one_less_the_share_of_the_error() -> None:
    """Returns 0 and 2 vary by 1; errors of ½ leave ¼ of it; the mean explains nothing."""
    returns = np.array([0.0, 2.0])
    assert explained_variance(np.array([0.5, 1.5]), returns) == 0.75
    assert explained_variance(np.array([1.0, 1.0]), returns) == 0.0
    assert explained_variance(np.array([2.0, 0.0]), returns) == -3.0


def test_explained_variance_is_unknown_where_returns_are_equal_or_not_finite() -> None:
    assert explained_variance(np.zeros(2), np.ones(2)) is None
    assert explained_variance(np.zeros(2), np.array([0.0, np.nan])) is None
    assert explained_variance(np.array([np.inf, 0.0]), np.array([0.0, 1.0])) is None
