"""The words of the record and its arithmetic: steps, signals, rewards, returns, groups, samplers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import experience
from experience.episode import Episode, EpisodeReader, Group, ending_of
from experience.errors import ConfigError, RecordError, ShardError
from experience.policy import Decision, VersionSpan
from experience.replay.choosing import Facts
from experience.replay.groups import GroupQueue
from experience.returns import discounted_returns, lambda_returns, leave_one_out
from experience.reward import RewardModel, check_weights, weighted_sum
from experience.shards.record.columns import COLUMNS
from experience.shards.record.decode import first_decoding, to_steps
from experience.shards.record.encode import to_batch
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.reference import page
from experience.shards.record.schema import (
    PLAIN,
    check_schema,
    conform,
    schema,
    signal_names,
    signal_values,
)
from experience.shards.sampling.samplers import Prioritised, Recency, SumTree, Uniform
from experience.signal import Signal, SignalKind, as_number, read_signals
from experience.step import Boundary, Step, discount_after, state_key
from experience.text.strict_json import dumps, exact
from experience.world import WorldCard, actions_of, instructions_of, random_action
from tests.conftest import CATALOGUE, make_step
from tests.stored import StoredReplay

STREAM = b"s" * 16


# Steps and decisions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream_id": b"short"}, "are 16 bytes"),
        ({"work_id": b""}, "are 16 bytes"),
        ({"ending": "env_error", "reward": 0.0}, "'env_error' carries a reward of 0.0"),
        ({"reward": float("nan")}, "is not finite"),
        ({"source": "imagined"}, "names its parent and its model"),
    ],
)
def test_a_step_that_breaks_the_records_rules_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecordError, match=said):
        make_step(1, **changes)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"action_ids": np.array([1], np.int32)}, "1 action tokens but 0 log-probabilities"),
        ({"token_exact": True, "version_spans": (VersionSpan(1, 2),)}, "spans do not cover"),
        ({"sampled": True}, "its tokens are not known"),
        ({"allowed_ids": np.array([1, 2], np.int32)}, "2 allowed tokens and 0 counts"),
    ],
)
def test_a_decision_whose_tokens_do_not_agree_is_refused(known: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        Decision("press 1", 3, **known)


def test_a_step_says_what_it_is() -> None:
    acted, closing = make_step(1), make_step(2, closing=True)
    assert acted.is_training and not acted.is_closing and not acted.is_choice
    assert closing.is_closing and not closing.is_training
    assert replace(acted, option_id=1, option_step=0).is_choice
    assert not replace(acted, split="heldout").is_training
    assert not replace(acted, source="demonstration").is_training


def test_a_discount_is_zero_at_a_terminated_world_and_only_there() -> None:
    assert [discount_after(e, 0.9) for e in ("none", "terminated", "truncated")] == [0.9, 0.0, 0.9]


def test_equal_states_share_a_key_of_64_bits() -> None:
    assert state_key("a") == state_key("a") != state_key("b") and 0 <= state_key("a") < 2**64


# Signals and rewards


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.array([2]), 2.0),
        (np.bool_(False), 0.0),
        (np.array([1, 2]), None),
        ("1", None),
        (None, None),
        (10**400, None),
    ],
)
def test_a_number_of_python_or_numpy_is_a_number(value: Any, number: float | None) -> None:
    assert as_number(value) == number


def test_signals_are_read_with_their_unit_and_evidence_and_unknown_is_none() -> None:
    read = read_signals({"signals": {"done": (1, "db"), "cost": None}}, CATALOGUE)
    assert read == (
        Signal("done", 1.0, "fraction", "env_state", "db"),
        Signal("cost", None, "count", "env_state"),
    )
    assert read_signals({}, CATALOGUE) == ()


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ([1], "is one list"),
        ({"dune": 1}, "'dune' is not in the environment's signal catalogue"),
        ({"done": "much"}, "'done' is 'much'"),
        ({"done": float("nan")}, "'done' is nan"),
        ({"done": [1, "db"]}, "'done' is"),
    ],
)
def test_a_signal_that_is_no_finite_number_is_refused(signals: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read_signals({"signals": signals}, CATALOGUE)


def test_a_reward_is_unknown_if_a_weighted_signal_is_and_a_missing_one_adds_nothing() -> None:
    weights = {"done": 2.0, "cost": -1.0}
    assert weighted_sum({"done": 1.0, "cost": 0.5}, weights) == 1.5
    assert weighted_sum({"done": 1.0}, weights) == 2.0
    assert weighted_sum({"done": 1.0, "cost": None}, weights) is None
    assert weighted_sum({"other": None}, weights) == 0.0


def test_a_reward_model_is_named_by_its_weights_in_whatever_order() -> None:
    one = RewardModel({"a": {"x": 1.0, "y": 2.0}, "b": {}})
    two = RewardModel({"b": {}, "a": {"y": 2.0, "x": 1.0}})
    assert one.version == two.version != RewardModel({"a": {"x": 1.0}}).version
    assert one.of_values("b", {"x": 5.0}) == 0.0 and one.of_values("c", {"x": 5.0}) is None


def test_a_weight_of_no_signal_or_of_no_finite_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no signal is called 'dona'.*did you mean 'done'"):
        check_weights("here", {"dona": 1.0}, CATALOGUE)
    with pytest.raises(ConfigError, match="the weight of 'done' is inf"):
        RewardModel({"a": {"done": float("inf")}}).check(CATALOGUE)


# Returns, by hand


def test_leave_one_out_compares_each_with_the_mean_of_the_others() -> None:
    assert leave_one_out(np.array([1.0, 2.0, 6.0])).tolist() == [-3.0, -1.5, 4.5]
    with pytest.raises(RecordError, match="has no baseline"):
        leave_one_out(np.array([1.0]))


def test_discounted_returns_bootstrap_unless_the_world_ended() -> None:
    rewards = np.array([1.0, 2.0, 3.0])
    assert discounted_returns(rewards, np.array([0.5, 0.5, 0.5]), 8.0).tolist() == [3.75, 5.5, 7.0]
    assert discounted_returns(rewards, np.array([0.5, 0.5, 0.0]), 8.0).tolist() == [2.75, 3.5, 3.0]
    with pytest.raises(RecordError, match="3 rewards but 1 discounts"):
        discounted_returns(rewards, np.ones(1))


def test_lambda_returns_lie_between_one_step_td_and_monte_carlo() -> None:
    rewards, discounts = np.array([1.0, 1.0]), np.array([0.5, 0.5])
    values = np.array([4.0, 2.0])
    assert lambda_returns(rewards, discounts, values, 0.0).tolist() == [3.0, 2.0]
    assert lambda_returns(rewards, discounts, values, 1.0).tolist() == [2.0, 2.0]
    assert lambda_returns(rewards, discounts, values, 0.5).tolist() == [2.5, 2.0]
    assert lambda_returns(np.empty(0), np.empty(0), np.empty(0), 1.0).tolist() == []
    with pytest.raises(RecordError, match="2 rewards, 2 discounts, 1 values"):
        lambda_returns(rewards, discounts, values[:1], 1.0)


# Episodes and groups


def test_the_closing_row_says_how_an_episode_ended_and_a_crash_left_none() -> None:
    acted = make_step(0, ending="truncated")
    closing = make_step(1, closing=True, ending="terminated")
    assert ending_of(acted, closing) == "terminated"
    assert ending_of(acted, replace(closing, ending="none")) == "truncated"
    assert ending_of(acted, None) is None and ending_of(None, closing) == "terminated"


def test_a_stream_is_cut_at_closing_rows_resets_and_restarts() -> None:
    reader = EpisodeReader()
    rows = [
        make_step(0),
        make_step(1, closing=True, ending="terminated"),
        make_step(2, boundary=Boundary.RESET),
        make_step(3, boundary=Boundary.WORKER_RESTART),
        make_step(4),
    ]
    cut = [episode for row in rows for episode in reader.take(row)]
    assert [[s.t for s in e.rows] for e in cut] == [[0, 1], [2]]
    assert [[s.t for s in e.rows] for e in reader.rest()] == [[3, 4]]
    assert cut[0].transitions == [(rows[0], rows[1])] and cut[1].transitions == []
    assert cut[1].failed and not cut[0].failed


def test_a_return_with_an_unknown_reward_is_unknown() -> None:
    closing = make_step(2, closing=True, ending="terminated")
    known = Episode((make_step(0, reward=0.5), make_step(1, reward=0.25)), closing)
    assert known.total_reward == 0.75
    assert replace(known, steps=(make_step(0, reward=None),)).total_reward is None
    assert Episode((), closing).total_reward == 0.0 and Episode((), closing).failed


def an_episode(
    number: int, reward: float | None = 1.0, group: str = "g", version: int = 3, **how: Any
) -> list[Step]:
    stream = number.to_bytes(16, "big")
    acted = make_step(0, stream, group_id=group, reward=reward, work_id=stream)
    assert acted.decision
    acted = replace(acted, decision=replace(acted.decision, policy_version=version))
    ending = how.pop("ending", "terminated")
    closing = make_step(1, stream, closing=True, group_id=group, work_id=stream, ending=ending)
    return [replace(row, **how) for row in (acted, closing)]


def queue_of(size: int, max_lag: int, episodes: Sequence[list[Step]], store: Path) -> GroupQueue:
    """A queue that was given the episodes, in this order."""
    replay = StoredReplay(store, 2, 2)
    queue = GroupQueue(size, max_lag, Facts(replay.index.records))
    for number, rows in enumerate(episodes):
        replay.add(rows)
        queue.add(rows[0].group_id, rows[0].work_id, number)
    return queue


def test_a_group_is_the_same_whoever_was_faster(tmp_path: Path) -> None:
    for order in ((1, 2, 3), (3, 1, 2)):
        queue = queue_of(3, 2, [an_episode(n) for n in order], tmp_path / str(order[0]))
        (group,) = queue.take(3)
        assert [order[number] for number in group.numbers] == [1, 2, 3]
        assert queue.take(3) == [] and queue.consumed == [("g", True)] and queue.mean_lag == 0


def test_whatever_leaves_a_group_is_counted_by_its_reason(tmp_path: Path) -> None:
    episodes = list[list[Step]]()
    for group, how in (
        ("old", {"version": 0}),
        ("unknown", {"reward": None}),
        ("failed", {"ending": "timeout", "reward": None}),
    ):
        version = how.get("version", 3)
        for work, told in ((1, how), (2, {"version": version})):
            rows = an_episode(work, group=group, **told)  # type: ignore[arg-type]
            stream = uuid.UUID(int=len(episodes)).bytes
            episodes.append([replace(row, stream_id=stream) for row in rows])
    queue = queue_of(2, 1, episodes, tmp_path)
    assert len(queue) == 3 and queue.take(3) == []
    dropped = queue.dropped
    assert (dropped.stale, dropped.unknown_reward, dropped.failed, dropped.alone) == (2, 1, 1, 2)
    assert queue.consumed == [("old", False), ("failed", False), ("unknown", False)]


def test_a_group_without_a_decision_has_version_zero() -> None:
    assert Group("g", (Episode((), make_step(0, closing=True)),)).oldest_version == 0


def test_a_restored_replay_gives_out_no_group_twice_and_draws_what_it_would_have_drawn(
    tmp_path: Path,
) -> None:
    rows = [row for n in range(1, 5) for row in an_episode(n, group=f"g{n % 2}")]
    first = StoredReplay(tmp_path, 2, 2)
    first.add(rows)
    (learned,) = first.window(3, most=1)
    saved = first.save()
    first.journal.close()
    again = StoredReplay(tmp_path, 2, 2)
    assert [g.group_id for g in again.restore(saved)] == [learned.group_id]
    assert [g.group_id for g in again.window(3)] == [g.group_id for g in first.window(3)] == ["g0"]
    assert [s.stream_id for s in again.sample_steps(9)] == [
        s.stream_id for s in first.sample_steps(9)
    ]


def test_a_checkpoint_of_another_store_is_refused_unless_retention_explains_it(
    tmp_path: Path,
) -> None:
    full, empty = (StoredReplay(tmp_path / name, 2, 2) for name in ("full", "empty"))
    full.add([row for n in (1, 2) for row in an_episode(n)])
    full.window(3)
    with pytest.raises(ShardError, match="1 groups that were learned from are not in the store"):
        empty.restore(full.save())
    assert empty.restore(full.save(), rows_removed=True)[:] == []
    with pytest.raises(ShardError, match="no real training episode"):
        empty.sample_roots(1, 3)
    with pytest.raises(ShardError, match="no training episode of real has 2 turns yet"):
        empty.windows(1, 2)


def test_held_out_episodes_are_given_by_version_world_and_behaviour(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, 2, 2)
    replay.add([row for n in (1, 2) for row in an_episode(n, version=n, split="heldout")])
    assert replay.evaluated_versions() == [1, 2]
    assert len(replay.held_out(1)) == len(replay.held_out(1, "envs:Test-v0", "small")) == 1
    assert replay.held_out(1, "envs:Other-v0") == replay.held_out(1, behaviour="random") == []
    assert replay.recent_returns("envs:Test-v0") == []


# Samplers


def test_a_sum_tree_draws_in_proportion_and_never_what_weighs_nothing() -> None:
    tree, rng = SumTree(), np.random.default_rng(0)
    tree.set(np.array([0, 1, 2, 5]), np.array([1.0, 0.0, 3.0, 4.0]))
    assert tree.total == 8.0 and tree[np.array([2, 3])].tolist() == [3.0, 0.0]
    drawn = np.bincount(tree.draw(8000, rng), minlength=8) / 1000
    assert drawn == pytest.approx([1, 0, 3, 0, 0, 4, 0, 0], abs=0.3)
    tree.set(np.array([2, 100]), np.array([0.0, 5.0]))
    assert tree.total == 10.0, "it grew, and kept what it held"
    tree.set(np.array([], np.int64), np.array([]))
    assert set(tree.draw(500, rng).tolist()) == {0, 5, 100}


def test_recency_halves_a_weight_with_every_half_life() -> None:
    sampler, rng = Recency(10.0), np.random.default_rng(0)
    assert sampler.weight(np.array([99, 89, 79]), 100).tolist() == [1.0, 0.5, 0.25]
    drawn = sampler.propose(20_000, 100, rng)
    assert drawn.min() >= 0 and drawn.max() == 99
    newest, older = (np.sum((drawn >= a) & (drawn < a + 10)) for a in (90, 80))
    assert newest / older == pytest.approx(2.0, rel=0.1)


def test_uniform_weighs_every_row_alike() -> None:
    drawn = Uniform().propose(1000, 4, np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3}
    assert Uniform().weight(np.array([0, 3]), 4).tolist() == [1.0, 1.0]


def test_a_row_that_was_never_judged_has_the_greatest_priority() -> None:
    sampler = Prioritised(alpha=1.0)
    assert sampler.weight(np.arange(2), 2).tolist() == [1.0, 1.0]
    sampler.judge(np.array([0, 1, 0]), np.array([9.0, 0.5, 4.0]))
    assert sampler.weight(np.arange(4), 4).tolist() == [4.0, 0.5, 9.0, 9.0], "the later one holds"
    assert sampler.importance(np.array([1, 0]), 1.0).tolist() == [1.0, 0.125]


def test_priorities_are_restored_by_stream_and_t_not_by_number() -> None:
    def identify(order: list[int]) -> Any:
        t = np.array(order, np.int64)
        return lambda rows: (np.full(len(rows), STREAM, "V16"), t[rows])

    sampler = Prioritised(alpha=1.0)
    sampler.weight(np.arange(3), 3)
    sampler.judge(np.arange(3), np.array([2.0, 3.0, 5.0]))
    again = Prioritised(alpha=1.0)
    again.restore(sampler.save(identify([0, 1, 2])), identify([2, 0, 1, 3]), 4)
    assert again.weight(np.arange(4), 4).tolist() == [5.0, 2.0, 3.0, 5.0]


# Rows on disk


def batch_of(*steps: Step) -> pa.RecordBatch:
    return to_batch(steps, schema(CATALOGUE), PromptDeltas())


def test_steps_come_back_from_a_batch_as_they_were() -> None:
    steps = [make_step(0), make_step(1, reward=None, subject="ada"), make_step(2, closing=True)]
    for before, after in zip(steps, to_steps(batch_of(*steps), PromptDeltas()), strict=True):
        assert replace(after, decision=None) == replace(before, decision=None)
        if before.decision and after.decision:
            assert after.decision.prompt_ids.tolist() == before.decision.prompt_ids.tolist()
            assert after.decision.logprobs.tolist() == before.decision.logprobs.tolist()


@pytest.mark.parametrize(
    ("decoder", "exactly", "said"),
    [
        ("temperature=0.7", True, {"sampled": True, "temperature": 0.7}),
        ("temperature=0", True, {"sampled": False, "temperature": 0.0}),
        ("temperature=1", False, {"sampled": False, "temperature": 1.0}),
        ("temperature=1, listed", True, {"sampled": False, "temperature": None}),
        ("epsilon=0.1", True, {"sampled": True, "temperature": None}),
        ("", True, {"sampled": False, "temperature": None}),
    ],
)
def test_a_row_of_the_first_format_tells_its_decoding_by_its_decoder(
    decoder: str, exactly: bool, said: dict[str, Any]
) -> None:
    assert first_decoding(decoder, exactly) == said


def test_a_file_of_an_older_format_reads_as_if_its_new_columns_were_null() -> None:
    old = batch_of(make_step(0)).drop_columns(["subject", "sampled", "temperature"])
    whole = conform(old)
    assert whole.schema.equals(PLAIN) and whole.column("subject").null_count == 1
    (step,) = to_steps(old, PromptDeltas())
    assert step.subject == "" and step.decision and step.decision.sampled


def test_a_foreign_file_is_never_half_understood() -> None:
    ours = schema(CATALOGUE)
    check_schema(ours, "here")
    t = ours.get_field_index("t")
    for wrong, said in (
        (ours.append(pa.field("more", pa.int8())), "column 'more' is not in xp.step"),
        (ours.append(ours.field(t)), "or is there twice"),
        (ours.remove(t), "column t is missing"),
        (ours.set(t, pa.field("t", pa.int32(), nullable=False)), "column t is int32, int64"),
        (ours.with_metadata({}), "its signal catalogue cannot be read"),
        (ours.with_metadata({"signals": "[1]"}), "its signal catalogue cannot be read"),
    ):
        with pytest.raises(ShardError, match=said):
            check_schema(wrong, "here")


def test_a_signal_is_found_by_its_name_and_the_first_of_two_holds() -> None:
    twice = (Signal("done", 0.1, "fraction", "env_state"), Signal("done", 0.9, "", "env_state"))
    unknown = (Signal("cost", None, "count", "env_state"),)
    rows = [make_step(n, signals=s) for n, s in enumerate((twice, unknown, ()))]
    batch = batch_of(*rows)
    names = [name for name, _, _ in signal_names(batch.schema)]
    done, cost, other = signal_values(batch, names, ["done", "cost", "other"])
    assert done.to_pylist() == [0.1, None, None]
    assert cost.to_pylist() == other.to_pylist() == [None] * 3


def test_the_page_of_columns_names_each_with_its_type() -> None:
    said = page()
    for column in COLUMNS:
        assert f"| `{column.name}` | `{column.type}` | " in said, column.name
    assert said.count("\n## ") == len({column.group for column in COLUMNS})


# Worlds and texts


class Silent:
    """A world that offers nothing beyond Gymnasium, and two attributes of another kind."""

    instructions = 3
    actions = (1, 2)
    signal_catalogue = None


class Talkative:
    instructions = "press"
    actions = ["a", "b"]
    splits = ("train",)
    goes_back = True
    signal_catalogue = CATALOGUE

    def oracle_action(self) -> str:
        return "a"


def test_an_attribute_of_another_kind_counts_as_absent() -> None:
    card = WorldCard.of(Silent())
    assert instructions_of(Silent()) == "" and actions_of(Silent()) == ()
    assert card.signals == {"env_reward": SignalKind("1", "env_state")}
    assert card.splits == ("train", "heldout") and not card.goes_back and not card.has_oracle


def test_what_a_world_offers_is_read_once_in_its_card() -> None:
    card = WorldCard.of(Talkative())
    assert card.signals == CATALOGUE and card.splits == ("train",)
    assert card.goes_back and card.has_oracle and not card.has_laboratory
    drawn = {random_action(Talkative(), np.random.default_rng(n)) for n in range(20)}
    assert drawn == {"a", "b"}


def test_json_is_strict_whatever_a_world_said() -> None:
    value = {"a": float("nan"), "b": [np.float64("inf")], 3: None, ("x",): 1}
    assert json.loads(dumps(value)) == {"a": None, "b": [None], "3": None, "('x',)": 1}
    assert exact(float("inf")) == "inf" and float(exact(float("-inf"))) == float("-inf")
    assert exact(0.1) == 0.1


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(experience.__all__) <= set(dir(experience))
    assert experience.Step is Step
    with pytest.raises(AttributeError, match="has no attribute 'Rollout'"):
        _ = experience.Rollout
