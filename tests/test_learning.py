"""Learning: every rule meets a number worked out by hand or published, and the whole learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import DataObject, data, floats, integers, just, one_of, text
from hypothesis.strategies import lists as lists_of
from torch import nn

from experience.episode import Episode, Group
from experience.errors import RecordError, WeightsError
from experience.learning.advantages import (
    as_turn,
    best_turns,
    expert_returns,
    planned_turns,
)
from experience.learning.batch import TokenBatch, Turn, micro_batches
from experience.learning.credit import AdvantageEstimator
from experience.learning.learner import LearnerSettings
from experience.learning.objectives import PolicyGradient
from experience.learning.recipes.recipe import Recipe
from experience.learning.recipes.table import recipe
from experience.learning.sequences.batch import TokenCounts
from experience.learning.sequences.scoring import token_logprobs
from experience.learning.surrogates.likelihood import negative_log_likelihood
from experience.learning.surrogates.policy_gradient import Clip, clipped
from experience.learning.token_learner import TokenLearner
from experience.models.decoding import Sampled, sample
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights
from experience.options.option import Library
from experience.policy import Decision, VersionSpan
from experience.returns import discounted_returns, leave_one_out
from experience.step import state_key
from tests.conftest import make_step

TOKENS = ByteTokenizer()


def tiny(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(
        TransformerShape(ByteTokenizer.size, layers=2, width=32, heads=4, context=160)
    )


def advantages(
    groups: list[Group], spread: dict[str, float] | None = None, **cells: object
) -> tuple[list[Turn], dict[str, float]]:
    """The turns of groups as the recipe of these cells credits them."""
    estimator = AdvantageEstimator(recipe(cells))
    found = estimator(groups, Library())
    if spread is not None:
        spread.update(estimator.spread)
    return found


def test_leave_one_out_is_the_return_less_the_mean_of_the_others() -> None:
    assert leave_one_out(np.array([1.0, 0.0, 0.0])).tolist() == pytest.approx([1.0, -0.5, -0.5])


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(RecordError, match="baseline"):
        leave_one_out(np.array([1.0]))


def test_returns_stop_at_a_true_end_and_bootstrap_at_a_truncation() -> None:
    rewards = np.array([1.0, 2.0, 3.0])
    assert discounted_returns(rewards, np.array([0.5, 0.5, 0.0]), 10.0).tolist() == [2.75, 3.5, 3.0]
    assert discounted_returns(rewards, np.array([0.5, 0.5, 0.5]), 10.0).tolist() == [4.0, 6.0, 8.0]


def test_perplexity_is_the_exponential_of_the_mean_negative_log_likelihood() -> None:
    logp = torch.tensor([[0.5, 0.25, 0.125, 1e-9]]).log()
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert math.exp(negative_log_likelihood(logp, mask) / mask.sum()) == pytest.approx(4.0)


def test_the_clip_stops_the_gradient_of_a_ratio_that_went_far_enough() -> None:
    mask = torch.ones(1, 1)
    for ratio, advantage, moves in (
        (1.0, 1.0, True),
        (1.5, 1.0, False),
        (0.5, -1.0, False),
        (0.5, 1.0, True),
    ):
        logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
        (clipped(logp, torch.tensor([[advantage]]), Clip()) * mask).sum().backward()
        assert (logp.grad.abs().item() > 0) == moves


def test_the_loss_at_equal_policies_is_minus_the_mean_advantage() -> None:
    turns = [
        Turn(np.zeros(1, np.int32), np.zeros(3, np.int32), np.full(3, -1.0), a) for a in (1.0, 3.0)
    ]
    batch = TokenBatch.of(turns)
    loss, metrics = PolicyGradient(Recipe()).loss(
        torch.full((2, 3), -1.0), batch, TokenCounts.of([batch])
    )
    assert loss.item() == pytest.approx(-2.0)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "loss", "moves"),
    [(2.0, 2.0, True), (2.9, 2.9, True), (3.1, 3.0, False), (40.0, 3.0, False), (0.5, 0.8, False)],
)
def test_the_dual_clip_bounds_what_a_negative_advantage_can_do(
    ratio: float, loss: float, moves: bool
) -> None:
    """At an advantage of -1: max(rho, clip(rho)), and no more than 3."""
    batch = TokenBatch.of([Turn(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1), -1.0)])
    logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
    found, metrics = PolicyGradient(Recipe()).loss(logp, batch, TokenCounts.of([batch]))
    found.backward()
    assert found.item() == pytest.approx(loss) and (logp.grad.abs().item() > 0) == moves
    assert metrics["clipped"] == (not moves)


def scored(model: nn.Module, turns: list[Turn]) -> tuple[TokenBatch, torch.Tensor]:
    batch = TokenBatch.of(turns)
    logits = model(batch.tokens)
    return batch, token_logprobs(
        logits, batch.tokens, batch.temperature, batch.barred(logits.shape[-1])
    )


@settings(max_examples=40, deadline=None)
@given(data())
def test_a_fresh_rollout_is_scored_by_the_learner_exactly_as_it_was_sampled(
    draws: DataObject,
) -> None:
    """Any model, temperature, list, prompt and limit of tokens: a ratio of 1, and no choice where
    there was none."""
    model = tiny(draws.draw(integers(0, 99), "model"))
    temperature = draws.draw(one_of(just(0.0), floats(0.3, 4.0)), "temperature")
    words = text("abc ", min_size=1, max_size=5)
    lists = draws.draw(lists_of(lists_of(words, max_size=6), min_size=1, max_size=4), "lists")
    prompts = [TOKENS.prompt(draws.draw(text(max_size=40), "prompt")) for _ in lists]
    most = draws.draw(integers(6, 9), "most tokens")
    only = [[TOKENS.action(word) for word in words] for words in lists]
    found = sample(
        model,
        prompts,
        end=TOKENS.END,
        most_tokens=most,
        temperature=temperature,
        only=only,
        generator=torch.Generator().manual_seed(draws.draw(integers(0, 99), "seed")),
    )
    turns = [
        Turn(p, f.ids, f.logprobs, 1.0, temperature, f.allowed_ids, f.allowed_counts)
        for p, f in zip(prompts, found, strict=True)
    ]
    for answer, listed, turn in zip(found, lists, turns, strict=True):
        assert not listed or TOKENS.text(answer.ids) in listed
        batch, logp = scored(model, [turn])
        place = slice(len(turn.prompt) - 1, None)
        assert torch.allclose(logp[0, place], torch.from_numpy(answer.logprobs), atol=1e-4)
        choices = [count != 1 for count in answer.allowed_counts] or [True] * len(answer.ids)
        assert batch.mask[0, place].bool().tolist() == choices
        assert len(set(listed)) != 1 or not batch.mask.any(), (
            "where one action is listed, nothing is chosen"
        )
    batch, logp = scored(model, turns)
    _, metrics = PolicyGradient(Recipe()).loss(logp, batch, TokenCounts.of([batch]))
    assert metrics["kl"] < 1e-6 and metrics["clipped"] == 0


def test_a_listed_action_is_drawn_as_often_as_the_model_over_the_list_says() -> None:
    """The recorded log-probability is the frequency: 4,000 draws, three actions with a common
    beginning."""
    model, listed = tiny(), ["up", "use", "used"]
    found = sample(
        model,
        [TOKENS.prompt("what now?")] * 4000,
        end=TOKENS.END,
        most_tokens=8,
        temperature=0.7,
        generator=torch.Generator().manual_seed(1),
        only=[[TOKENS.action(a) for a in listed]] * 4000,
    )
    said = [TOKENS.text(f.ids) for f in found]
    recorded = {word: math.exp(f.logprobs.sum()) for word, f in zip(said, found, strict=True)}
    assert sum(recorded.values()) == pytest.approx(1.0, abs=1e-5)
    for word, probability in recorded.items():
        assert said.count(word) / 4000 == pytest.approx(probability, abs=0.03)


def test_forced_tokens_have_no_part_in_any_loss() -> None:
    """Of `up` and `use` only the second letter is chosen: the loss and its gradient are those of
    that one choice."""
    model = tiny()
    listed = [TOKENS.action(a) for a in ("up", "use")]
    (found,) = sample(
        model,
        [TOKENS.prompt("a")],
        end=TOKENS.END,
        most_tokens=8,
        temperature=1.0,
        generator=torch.Generator().manual_seed(1),
        only=[listed],
    )
    turn = Turn(
        TOKENS.prompt("a"),
        found.ids,
        found.logprobs,
        2.0,
        1.0,
        found.allowed_ids,
        found.allowed_counts,
    )
    batch, logp = scored(model, [turn])
    loss, _ = PolicyGradient(Recipe()).loss(logp, batch, TokenCounts.of([batch]))
    assert batch.mask.sum() == 1 and loss.item() == pytest.approx(-2.0)
    assert negative_log_likelihood(logp, batch.mask).item() == pytest.approx(
        -float(found.logprobs[1]), abs=1e-5
    )


@pytest.mark.parametrize("micro_batch_tokens", [64, 200, 8192])
def test_how_an_update_is_cut_into_micro_batches_changes_nothing(micro_batch_tokens: int) -> None:
    rng = np.random.default_rng(0)

    def turn() -> Turn:
        prompt, action = (
            rng.integers(0, 256, rng.integers(1, most)).astype(np.int32) for most in (60, 20)
        )
        return Turn(prompt, action, np.full(len(action), -5.5, np.float32), float(rng.normal()))

    turns, demos = [turn() for _ in range(12)], [turn() for _ in range(9)]

    def updated(most: int) -> tuple[dict[str, float], list[torch.Tensor]]:
        learner = TokenLearner(tiny(), LearnerSettings(micro_batch_tokens=most, gradient_norm=1e9))
        metrics = learner.trainer.update(turns, demos, 0.5)
        return metrics, [p.grad.clone() for p in learner.model.parameters()]

    metrics, gradients = updated(micro_batch_tokens)
    whole, expected = updated(1 << 20)
    assert metrics == pytest.approx(whole, rel=1e-4, abs=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-6)


class Forgetful(nn.Module):
    """A model with dropout, as many that come from elsewhere have."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.dropout = tiny(), nn.Dropout(0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.model(tokens))


def test_dropout_is_off_in_an_update_as_it_was_when_sampling() -> None:
    model, prompt = Forgetful(), TOKENS.prompt("a")
    (found,) = sample(
        model.model,
        [prompt],
        end=TOKENS.END,
        most_tokens=8,
        temperature=1.0,
        generator=torch.Generator().manual_seed(1),
    )
    metrics = TokenLearner(model.train(), LearnerSettings()).trainer.update(
        [Turn(prompt, found.ids, found.logprobs, 1.0)], [], 0.0
    )
    assert abs(metrics["kl"]) < 1e-6 and metrics["clipped"] == 0


def test_a_turn_longer_than_the_context_is_named_and_no_index_fails() -> None:
    turn = Turn(np.zeros(158, np.int32), np.zeros(9, np.int32), np.zeros(9, np.float32))
    with pytest.raises(RecordError, match="167 tokens does not fit into a context of 160"):
        scored(tiny(), [turn])


def test_batching_and_padding_change_no_log_probability() -> None:
    model, rng = tiny(), np.random.default_rng(0)
    turns = [
        Turn(
            rng.integers(0, 256, n).astype(np.int32),
            rng.integers(0, 256, 5).astype(np.int32),
            np.zeros(5, np.float32),
        )
        for n in (3, 9, 17, 30)
    ]
    together = TokenBatch.of(turns)
    logp = token_logprobs(model(together.tokens), together.tokens)
    for row, turn in enumerate(turns):
        alone = TokenBatch.of([turn])
        expected = token_logprobs(model(alone.tokens), alone.tokens)[alone.mask.bool()]
        assert torch.allclose(logp[row][together.mask[row].bool()], expected, atol=1e-5)


def test_micro_batches_hold_every_turn_once_and_respect_their_size() -> None:
    turns = [
        Turn(np.zeros(n, np.int32), np.zeros(2, np.int32), np.zeros(2, np.float32))
        for n in range(1, 60)
    ]
    runs = list(micro_batches(turns, 256))
    assert sum(map(len, runs)) == len(turns)
    assert all(len(r) == 1 or max(t.length for t in r) * len(r) <= 256 for r in runs)


def group_of(returns: list[float], env_id: str = "e") -> Group:
    episodes = []
    for i, value in enumerate(returns):
        step = make_step(
            0, bytes([i]) * 16, reward=value, ending="terminated", env_id=env_id, group_id="g"
        )
        episodes.append(Episode((step,), None))
    return Group("g", tuple(episodes))


def test_a_group_that_cannot_tell_good_from_bad_teaches_nothing() -> None:
    turns, metrics = advantages([group_of([1.0, 1.0, 1.0])])
    assert turns == []
    assert metrics["flat_groups"] == 1


def test_worlds_with_larger_rewards_do_not_drown_the_others() -> None:
    turns, _ = advantages([group_of([1.0, 0.0], "a"), group_of([100.0, 0.0], "b")])
    assert [round(t.advantage, 3) for t in turns] == [1.0, -1.0, 1.0, -1.0]


def test_a_step_that_is_not_token_exact_is_not_learned_from() -> None:
    step = make_step(0, decision=Decision("x", 0), reward=1.0, ending="terminated")
    other = make_step(0, b"t" * 16, reward=0.0, ending="terminated")
    turns, _ = advantages([Group("g", (Episode((step,), None), Episode((other,), None)))])
    assert len(turns) == 1


def test_tokens_that_nothing_stands_before_are_not_learned_from() -> None:
    """As a stranger's trajectory may give them: there is nothing that the first could be predicted
    from."""
    step = make_step(0, reward=1.0, ending="terminated")
    assert step.decision is not None
    bare = replace(step, decision=replace(step.decision, prompt_ids=np.empty(0, np.int32)))
    other = make_step(0, b"t" * 16, reward=0.0, ending="terminated")
    turns, _ = advantages([Group("g", (Episode((bare,), None), Episode((other,), None)))])
    assert len(turns) == 1 and as_turn(bare) is None
    TokenLearner(tiny(), LearnerSettings()).imitate([bare, other], 64)


def test_what_a_planner_chose_is_imitated_and_no_ratio_is_taken_of_it() -> None:
    """Its tokens are known, and they are no sample of the policy: two facts."""
    plain = make_step(0, reward=1.0, ending="terminated")
    assert plain.decision is not None
    planned = replace(plain, decision=replace(plain.decision, sampled=False), value_estimate=0.5)
    agreed = replace(planned, value_estimate=None)  # all that the planner tried was the same
    other = make_step(0, b"t" * 16, reward=0.0, ending="terminated")
    for step, samples, plans in ((plain, 2, 0), (planned, 1, 1), (agreed, 1, 0)):
        group = Group("g", (Episode((step,), None), Episode((other,), None)))
        assert len(advantages([group])[0]) == samples
        assert len(planned_turns([group])) == plans
        (best,) = best_turns([group], {})
        assert best.action is plain.decision.action_ids, (
            "the best episode is imitated whoever chose"
        )


def test_metrics_of_imagined_updates_stand_beside_the_real_ones() -> None:
    learner, lived = TokenLearner(tiny(), LearnerSettings(minibatches=1)), group_of([1.0, 0.0])
    thought = Group(
        "i",
        tuple(
            replace(
                e,
                steps=tuple(
                    replace(s, source="imagined", parent=(b"s" * 16, 0), model_version=1)
                    for s in e.steps
                ),
            )
            for e in lived.episodes
        ),
    )
    real, imagined = learner.improve([lived]), learner.improve([thought])
    assert {"kl", "turns", "gradient_norm"} <= real.keys()
    assert imagined.keys() == {f"imagined_{name}" for name in real}


def test_weights_travel_and_damaged_or_foreign_ones_are_refused() -> None:
    sent = Weights.of(tiny(1), 7)
    receiver = tiny(2)
    sent.put_into(receiver)
    assert Weights.of(receiver, 7).sha256 == sent.sha256
    with pytest.raises(WeightsError, match="SHA-256"):
        Weights(7, sent.data[:-1] + bytes([sent.data[-1] ^ 1]), sent.sha256).put_into(receiver)
    wide = Transformer(
        TransformerShape(ByteTokenizer.size, layers=2, width=64, heads=4, context=160)
    )
    with pytest.raises(WeightsError, match="another model"):
        sent.put_into(wide)


def test_a_policy_is_serialised_once_for_all_who_ask_and_again_when_it_changed() -> None:
    learner = TokenLearner(tiny(), LearnerSettings(minibatches=1))
    first = learner.policy()
    assert learner.policy() is first, "the same object: a pool sends it only once"
    learner.planner = {"value": b"1"}
    assert learner.policy() is not first
    assert learner.policy().weights.data is first.weights.data
    again = learner.publish()
    assert again.version == 1 and again.weights.data is first.weights.data
    learner.options = Library().dump()
    assert learner.policy().options and learner.policy().planner
    learner.improve([group_of([1.0, 0.0])])
    changed = learner.policy()
    assert changed.version == 1 and changed.weights.sha256 != first.weights.sha256
    assert changed.weights == Weights.of(learner.model, 1), "what changed is never sent as it was"
    learner.restore(learner.save() | {"policy.safetensors": first.weights.data}, [], [])
    assert learner.policy().weights.sha256 == first.weights.sha256


def test_a_learner_that_resumes_takes_the_same_next_step() -> None:
    groups = [group_of([1.0, 0.0, 0.5, float(n)]) for n in range(4)]

    def train(learner: TokenLearner, some: list[Group]) -> None:
        for group in some:
            learner.improve([group])
            learner.publish()

    one = TokenLearner(tiny(), LearnerSettings(minibatches=1))
    train(one, groups[:3])
    two = TokenLearner(tiny(9), LearnerSettings(minibatches=1))
    two.restore(one.save(), [], groups[:3])
    train(one, groups[3:])
    train(two, groups[3:])
    assert one.policy() == two.policy()


def test_imitation_then_policy_gradient_solve_a_task_that_imitation_alone_does_not() -> None:
    """Four buttons; the experts press at random.

    Reward tells which is right; only the gradient can find it.
    """
    torch.manual_seed(0)
    learner = TokenLearner(
        tiny(),
        LearnerSettings(learning_rate=2e-3, imitation_weight=0.5, batch_turns=16, minibatches=2),
    )
    prompt, rng = TOKENS.prompt("press the right one"), np.random.default_rng(0)

    def decided(text: str) -> Decision:
        action = TOKENS.action(text)
        return Decision(
            text,
            0,
            prompt,
            action,
            np.zeros(len(action), np.float32),
            (VersionSpan(0, len(action)),),
            True,
        )

    shown = [
        make_step(0, decision=decided(f"press {rng.integers(4)}"), source="demonstration")
        for _ in range(40)
    ]
    learner.imitate(shown, passes=160)
    generator = torch.Generator().manual_seed(0)

    def press(n: int) -> list[Sampled]:
        learner.model.eval()
        return sample(
            learner.model,
            [prompt] * n,
            end=TOKENS.END,
            most_tokens=10,
            temperature=1.0,
            generator=generator,
        )

    def success(n: int = 64) -> float:
        return float(
            np.mean([TOKENS.text(ids) == "press 2" for ids in (found.ids for found in press(n))])
        )

    before = success()
    for _ in range(60):
        episodes = []
        for i, found in enumerate(press(16)):
            decision = Decision(
                TOKENS.text(found.ids),
                learner.version,
                prompt,
                found.ids,
                found.logprobs,
                (VersionSpan(learner.version, len(found.ids)),),
                True,
                sampled=True,
            )
            reward = float(decision.text == "press 2")
            episodes.append(
                Episode(
                    (
                        make_step(
                            0,
                            bytes([i]) * 16,
                            decision=decision,
                            reward=reward,
                            ending="terminated",
                        ),
                    ),
                    None,
                )
            )
        learner.improve([Group("g", tuple(episodes))])
        learner.publish()
    assert before < 0.6
    assert success() > 0.8


def test_a_plan_is_followed_and_nothing_happens_without_one() -> None:
    tokenizer, model = ByteTokenizer(), tiny()
    learner = TokenLearner(model, LearnerSettings(batch_turns=8, imitation_rate=1e-2))
    said = [tokenizer.action(("left", "right")[i % 2]) for i in range(8)]
    plan = [
        Turn(tokenizer.prompt(f"at {i}"), ids, np.zeros(len(ids), np.float32))
        for i, ids in enumerate(said)
    ]
    before = learner.save()
    assert learner.imitate_plans([]) == {} and learner.save() == before
    losses = [learner.imitate_plans(plan)["plan_nll"] for _ in range(20)]
    assert losses[-1] < 0.3 * losses[0]


def test_turns_are_compared_with_the_groups_other_turns_in_the_same_state() -> None:
    def walk(stream: bytes, states: list[str], reward: float) -> Episode:
        last = len(states) - 1
        return Episode(
            tuple(
                make_step(
                    t,
                    stream,
                    obs_text=s,
                    state_key=state_key(s),
                    reward=reward if t == last else 0.0,
                    discount=0.5 if t < last else 0.0,
                )
                for t, s in enumerate(states)
            ),
            None,
        )

    # All start in "a", two come to "b", where one of them earns 1.
    group = Group(
        "g",
        (
            walk(b"1" * 16, ["a", "b"], 1.0),
            walk(b"2" * 16, ["a", "c"], 0.0),
            walk(b"3" * 16, ["a", "b"], 0.0),
        ),
    )
    turns, metrics = advantages([group], spread := {}, estimator="state")
    raw = [(0.5 + 0.5), (0.5 + 1.0), (-0.25 - 0.25), (-0.25 + 0.0), (-0.25 - 0.25), (-0.25 - 1.0)]
    scale = float(np.sqrt(np.mean(np.square(raw))))
    assert [t.advantage for t in turns] == pytest.approx([a / scale for a in raw], abs=1e-4)
    assert list(spread.values()) == [pytest.approx(scale, abs=1e-4)] and metrics["flat_groups"] == 0
    turns, metrics = advantages(
        [Group("h", (walk(b"1" * 16, ["a"], 1.0), walk(b"2" * 16, ["a"], 1.0)))], estimator="state"
    )
    assert turns == [] and metrics["flat_groups"] == 1, (
        "where all are alike there is nothing to learn"
    )


def test_failures_weigh_as_much_as_they_are_told_to() -> None:
    group = group_of([1.0, 0.0, 0.0, 0.0])
    whole, _ = advantages([group])
    asymmetric, _ = advantages([group], negative_weight=0.2)
    for a, b in zip(whole, asymmetric, strict=True):
        assert b.advantage == pytest.approx(a.advantage * (0.2 if a.advantage < 0 else 1.0))


def test_one_episode_a_task_is_imitated_and_none_where_all_are_alike() -> None:
    groups = [group_of([0.2, 1.0, 1.0, 0.0]), group_of([0.5, 0.5]), group_of([0.4, -0.1])]
    (env_id,) = {g.episodes[0].first.env_id for g in groups}
    assert len(best_turns(groups, {})) == 2
    assert len(best_turns(groups, {env_id: 0.9})) == 1, "half a success is not imitated"


def test_an_experts_bar_is_what_nine_of_ten_of_its_episodes_reach() -> None:
    shown = [
        make_step(t, bytes([t]) * 16, env_id="a" if t < 20 else "b", reward=float(t))
        for t in range(21)
    ]
    bar = expert_returns([*shown, make_step(0, b"u" * 16, env_id="a", reward=None)])
    assert bar == {"a": pytest.approx(1.9), "b": 20.0}
