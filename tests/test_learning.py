"""Learning: every rule meets a number worked out by hand or published, and the whole learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from experience.errors import RecordError, WeightsError
from experience.learning.batch import TokenBatch, Turn, micro_batches
from experience.learning.credit import advantages, best_turns, expert_returns, state_advantages
from experience.learning.learner import Learner, LearnerSettings
from experience.learning.losses import Clip, clipped_policy_gradient, negative_log_likelihood, token_logprobs
from experience.learning.returns import discounted_returns, leave_one_out
from experience.models.decoding import sample
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan
from experience.shards.replay import Episode, Group
from experience.step import state_key
from tests.conftest import make_step

TOKENS = ByteTokenizer()


def tiny(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerShape(ByteTokenizer.size, layers=2, width=32, heads=4, context=160))


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
    assert math.exp(negative_log_likelihood(logp, mask)) == pytest.approx(4.0)


def test_the_clip_stops_the_gradient_of_a_ratio_that_went_far_enough() -> None:
    mask = torch.ones(1, 1)
    for ratio, advantage, moves in ((1.0, 1.0, True), (1.5, 1.0, False), (0.5, -1.0, False), (0.5, 1.0, True)):
        logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
        loss, _ = clipped_policy_gradient(logp, torch.zeros(1, 1), torch.tensor([advantage]), mask, Clip())
        loss.backward()
        assert (logp.grad.abs().item() > 0) == moves


def test_the_loss_at_equal_policies_is_minus_the_mean_advantage() -> None:
    logp = torch.randn(2, 3)
    loss, metrics = clipped_policy_gradient(logp, logp, torch.tensor([1.0, 3.0]), torch.ones(2, 3))
    assert loss.item() == pytest.approx(-2.0)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)


def test_the_learner_gives_a_sampled_action_the_log_probability_it_was_sampled_with() -> None:
    model = tiny()
    prompts = [TOKENS.prompt("a short one"), TOKENS.prompt("one that is quite a bit longer")]
    sampled = sample(model, prompts, end=TOKENS.END, most_tokens=12, temperature=1.0,
                     generator=torch.Generator().manual_seed(1))
    for prompt, (ids, logprobs) in zip(prompts, sampled, strict=True):
        batch = TokenBatch.of([Turn(prompt, ids, logprobs)])
        again = token_logprobs(model(batch.tokens), batch.tokens)[batch.mask.bool()]
        assert torch.allclose(again, torch.from_numpy(logprobs), atol=1e-4)


def test_where_all_answers_are_listed_one_of_them_is_written_with_the_models_own_log_probability() -> None:
    model, listed = tiny(), [TOKENS.action(a) for a in ("up", "use", "used", "down")]
    prompts = [TOKENS.prompt("what now?"), TOKENS.prompt("say anything"), TOKENS.prompt("and now?")]
    for temperature in (1.0, 0.0):
        sampled = sample(model, prompts, end=TOKENS.END, most_tokens=8, temperature=temperature,
                         generator=torch.Generator().manual_seed(1), only=[listed, [], listed])
        said = [TOKENS.text(ids) for ids, _ in sampled]
        assert {said[0], said[2]} <= {"up", "use", "used", "down"} and said[1] not in {"up", "use", "used", "down"}
        batch = TokenBatch.of([Turn(prompts[0], *sampled[0])])
        again = token_logprobs(model(batch.tokens), batch.tokens)[batch.mask.bool()]
        assert torch.allclose(again, torch.from_numpy(sampled[0][1]), atol=1e-4)


def test_batching_and_padding_change_no_log_probability() -> None:
    model, rng = tiny(), np.random.default_rng(0)
    turns = [Turn(rng.integers(0, 256, n).astype(np.int32), rng.integers(0, 256, 5).astype(np.int32),
                  np.zeros(5, np.float32)) for n in (3, 9, 17, 30)]
    together = TokenBatch.of(turns)
    logp = token_logprobs(model(together.tokens), together.tokens)
    for row, turn in enumerate(turns):
        alone = TokenBatch.of([turn])
        expected = token_logprobs(model(alone.tokens), alone.tokens)[alone.mask.bool()]
        assert torch.allclose(logp[row][together.mask[row].bool()], expected, atol=1e-5)


def test_micro_batches_hold_every_turn_once_and_respect_their_size() -> None:
    turns = [Turn(np.zeros(n, np.int32), np.zeros(2, np.int32), np.zeros(2, np.float32)) for n in range(1, 60)]
    runs = list(micro_batches(turns, 256))
    assert sum(map(len, runs)) == len(turns)
    assert all(len(r) == 1 or max(t.length for t in r) * len(r) <= 256 for r in runs)


def group_of(returns: list[float], env_id: str = "e") -> Group:
    episodes = []
    for i, value in enumerate(returns):
        step = make_step(0, bytes([i]) * 16, reward=value, ending="terminated", env_id=env_id, group_id="g")
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


def test_weights_travel_and_damaged_or_foreign_ones_are_refused() -> None:
    sent = Weights.of(tiny(1), 7)
    receiver = tiny(2)
    sent.put_into(receiver)
    assert Weights.of(receiver, 7).sha256 == sent.sha256
    with pytest.raises(WeightsError, match="SHA-256"):
        Weights(7, sent.data[:-1] + bytes([sent.data[-1] ^ 1]), sent.sha256).put_into(receiver)
    wide = Transformer(TransformerShape(ByteTokenizer.size, layers=2, width=64, heads=4, context=160))
    with pytest.raises(WeightsError, match="another model"):
        sent.put_into(wide)


def test_a_learner_that_resumes_takes_the_same_next_step() -> None:
    groups = [group_of([1.0, 0.0, 0.5, float(n)]) for n in range(4)]

    def train(learner: Learner, some: list[Group]) -> None:
        for group in some:
            learner.improve([group])
            learner.publish()

    one = Learner(tiny(), LearnerSettings(minibatches=1))
    train(one, groups[:3])
    two = Learner(tiny(9), LearnerSettings(minibatches=1))
    two.restore(one.save(), [], groups[:3])
    train(one, groups[3:])
    train(two, groups[3:])
    assert one.policy() == two.policy()


def test_imitation_then_policy_gradient_solve_a_task_that_imitation_alone_does_not() -> None:
    """Four buttons; the experts press at random. Reward tells which is right; only the gradient can find it."""
    torch.manual_seed(0)
    learner = Learner(tiny(), LearnerSettings(learning_rate=2e-3, imitation_weight=0.5, batch_turns=16,
                                              minibatches=2))
    prompt, rng = TOKENS.prompt("press the right one"), np.random.default_rng(0)

    def decided(text: str) -> Decision:
        action = TOKENS.action(text)
        return Decision(text, 0, prompt, action, np.zeros(len(action), np.float32), (VersionSpan(0, len(action)),), True)

    shown = [make_step(0, decision=decided(f"press {rng.integers(4)}"), source="demonstration") for _ in range(40)]
    learner.imitate(shown, passes=160)
    generator = torch.Generator().manual_seed(0)

    def press(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        learner.model.eval()
        return sample(learner.model, [prompt] * n, end=TOKENS.END, most_tokens=10, temperature=1.0, generator=generator)

    def success(n: int = 64) -> float:
        return float(np.mean([TOKENS.text(ids) == "press 2" for ids, _ in press(n)]))

    before = success()
    for _ in range(60):
        episodes = []
        for i, (ids, logprobs) in enumerate(press(16)):
            decision = Decision(TOKENS.text(ids), learner.version, prompt, ids, logprobs,
                                (VersionSpan(learner.version, len(ids)),), True)
            reward = float(decision.text == "press 2")
            episodes.append(Episode((make_step(0, bytes([i]) * 16, decision=decision, reward=reward,
                                               ending="terminated"),), None))
        learner.improve([Group("g", tuple(episodes))])
        learner.publish()
    assert before < 0.6
    assert success() > 0.8


def test_a_plan_is_followed_and_nothing_happens_without_one() -> None:
    tokenizer, model = ByteTokenizer(), tiny()
    learner = Learner(model, LearnerSettings(batch_turns=8, imitation_rate=1e-2))
    said = [tokenizer.action(("left", "right")[i % 2]) for i in range(8)]
    plan = [Turn(tokenizer.prompt(f"at {i}"), ids, np.zeros(len(ids), np.float32)) for i, ids in enumerate(said)]
    before = learner.save()
    assert learner.follow([]) == {} and learner.save() == before
    losses = [learner.follow(plan)["plan_nll"] for _ in range(20)]
    assert losses[-1] < 0.3 * losses[0]


def test_turns_are_compared_with_the_groups_other_turns_in_the_same_state() -> None:
    def walk(stream: bytes, states: list[str], reward: float) -> Episode:
        last = len(states) - 1
        return Episode(tuple(make_step(t, stream, obs_text=s, state_key=state_key(s), reward=reward if t == last else 0.0,
                                       discount=0.5 if t < last else 0.0) for t, s in enumerate(states)), None)

    # All start in "a", two come to "b", where one of them earns 1.
    group = Group("g", (walk(b"1" * 16, ["a", "b"], 1.0), walk(b"2" * 16, ["a", "c"], 0.0), walk(b"3" * 16, ["a", "b"], 0.0)))
    turns, metrics = state_advantages([group], spread := {})
    raw = [(0.5 + 0.5), (0.5 + 1.0), (-0.25 - 0.25), (-0.25 + 0.0), (-0.25 - 0.25), (-0.25 - 1.0)]
    scale = float(np.sqrt(np.mean(np.square(raw))))
    assert [t.advantage for t in turns] == pytest.approx([a / scale for a in raw], abs=1e-4)
    assert list(spread.values()) == [pytest.approx(scale, abs=1e-4)] and metrics["flat_groups"] == 0
    turns, metrics = state_advantages([Group("h", (walk(b"1" * 16, ["a"], 1.0), walk(b"2" * 16, ["a"], 1.0)))], {})
    assert turns == [] and metrics["flat_groups"] == 1, "where all are alike there is nothing to learn"


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
    shown = [make_step(t, bytes([t]) * 16, env_id="a" if t < 20 else "b", reward=float(t)) for t in range(21)]
    bar = expert_returns([*shown, make_step(0, b"u" * 16, env_id="a", reward=None)])
    assert bar == {"a": pytest.approx(1.9), "b": 20.0}
