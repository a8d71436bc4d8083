"""Sequences: an episode whose prompts continue each other is read once, and teaches the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experience.errors import RecordError
from experience.learning.batch import Role, TokenBatch, TokenCounts, TokenSequence, Turn, join
from experience.learning.learner import LearnerSettings
from experience.learning.machine.precision import Precision
from experience.learning.sequences.scoring import score
from experience.learning.trainer import Trainer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights
from tests.tiny_hugging_face import write_tiny_model

RNG = np.random.default_rng(0)


def ids(n: int) -> np.ndarray:
    return RNG.integers(0, 256, n).astype(np.int32)


def conversation(stream: bytes, turns: int, advantage: float = 1.0) -> list[Turn]:
    """Turns whose prompts each begin with all that was read and written before."""
    found: list[Turn] = []
    before = ids(0)
    for t in range(turns):
        prompt, action = np.concatenate([before, ids(7)]), ids(5)
        logprobs = np.full(5, -5.5, np.float32)
        found.append(
            Turn(prompt, action, logprobs, advantage + t, 0.7 + 0.1 * t, stream=stream, t=t)
        )
        before = np.concatenate([prompt, action])
    return found


def model(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerShape(259, layers=2, width=32, heads=4, context=128))


def test_turns_that_continue_each_other_are_one_sequence_whatever_their_order() -> None:
    turns = conversation(b"a", 4)
    (whole,) = join([turns[2], turns[0], turns[3], turns[1]])
    assert whole.turns == tuple(turns) and whole.length == turns[-1].length


def test_an_edited_history_begins_another_sequence_and_no_turn_is_lost() -> None:
    first, second, third = conversation(b"a", 3)
    changed = third.prompt.copy()
    changed[0] += 1
    edited = replace(third, prompt=changed)
    assert [s.turns for s in join([first, second, edited])] == [(first, second), (edited,)]


def test_two_agents_that_interleave_in_one_stream_are_two_sequences() -> None:
    one, two = conversation(b"a", 3), conversation(b"a", 3)
    mixed = []
    for n, (mine, other) in enumerate(zip(one, two, strict=True)):
        mixed += [replace(mine, t=2 * n), replace(other, t=2 * n + 1)]
    found = join(mixed)
    assert [len(s.turns) for s in found] == [3, 3]


def test_a_turn_of_another_stream_or_picture_or_without_a_stream_is_never_attached() -> None:
    first, second = conversation(b"a", 2)
    for other in (
        replace(second, stream=b"b"),
        replace(second, stream=b""),
        replace(second, pictures=(b"p",)),
    ):
        assert len(join([first, other])) == 2


def test_every_token_of_a_sequence_has_its_role_and_its_turns_values() -> None:
    first = Turn(
        ids(2), ids(2), np.array([-1, -2], np.float32), 1.0, stream=b"a",
        allowed_ids=np.array([9], np.int32), allowed_counts=np.array([0, 1], np.int32),
        versions=np.array([3, 4], np.int32),
    )  # fmt: skip
    prompt = np.concatenate([first.prompt, first.action, ids(1)])
    second = Turn(prompt, ids(1), np.array([-3], np.float32), -2.0, 0.5, stream=b"a", t=1)
    batch = TokenBatch.of(join([first, second]))
    assert batch.roles.tolist() == [
        [Role.PROMPT, Role.PROMPT, Role.SAMPLED, Role.FORCED, Role.INSERTED, Role.SAMPLED]
    ]
    assert batch.mask.tolist() == [[0, 1, 0, 0, 1]]
    assert batch.observed.tolist() == [[1, 0, 0, 1, 0]]
    assert batch.logp_behaviour.tolist() == [[0, -1, -2, 0, -3]]
    assert batch.advantages.tolist() == [[0, 1, 1, 0, -2]]
    assert batch.version.tolist() == [[-1, 3, 4, -1, -1]]
    assert batch.turn.tolist() == [[0, 0, 0, 0, 1]]
    assert batch.temperature.tolist() == [[1, 1, 1, 0.5, 0.5]]
    assert batch.share.sum().item() == pytest.approx(2.0), "each turn is a response of its own"
    with pytest.raises(RecordError, match=r"read batch\.advantages"):
        _ = batch.advantage


@pytest.mark.parametrize("recipe", ["grpo", "rloo", "cispo", "decoupled", "sft", "dr_grpo"])
def test_sequences_have_the_loss_and_the_gradient_of_their_turns_one_by_one(recipe: str) -> None:
    turns = [
        turn
        for n in range(3)
        for turn in conversation(bytes([n]), 4, advantage=float(n) - 1.5)
    ]  # fmt: skip

    def learned(parts: list[Turn] | list[TokenSequence]) -> tuple[float, list[torch.Tensor]]:
        trainer = Trainer(model(), LearnerSettings(recipe=recipe, gradient_norm=1e9))
        lived = [
            part if isinstance(part, TokenSequence) else TokenSequence((part,)) for part in parts
        ]
        if trainer.recipe.decoupled:
            lived = trainer.scorer.proximal(lived)
        batch = [trainer.scorer.batch(lived)]
        counts = TokenCounts.of(batch)
        logp = score(trainer.model, batch[0])
        loss = sum(t.weight * t.objective.loss(logp, batch[0], counts)[0] for t in trainer.terms)
        loss.backward()
        return loss.item(), [p.grad for p in trainer.model.parameters() if p.grad is not None]

    (loss, gradients), (expected, wanted) = learned(join(turns)), learned(turns)
    assert len(join(turns)) == 3
    assert loss == pytest.approx(expected, abs=1e-6)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, other, atol=1e-6)


@pytest.mark.parametrize("most_logits", [259, 5000])
def test_logits_made_some_at_a_time_give_the_same_loss_and_gradients(most_logits: int) -> None:
    """Listed tokens too, which bar the others."""
    limited = Turn(
        ids(4), np.array([5, 6], np.int32), np.zeros(2, np.float32),
        allowed_ids=np.array([5, 7, 6, 8, 9], np.int32), allowed_counts=np.array([2, 3], np.int32),
    )  # fmt: skip
    batch = TokenBatch.of([*join(conversation(b"a", 3)), limited])

    def scored(most: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        one = model()
        logp = score(one, batch, most_logits=most)
        kept = torch.where((batch.mask + batch.observed) > 0, logp, 0.0)
        kept.square().sum().backward()
        return kept, [p.grad for p in one.parameters() if p.grad is not None]

    (logp, gradients), (expected, wanted) = scored(most_logits), scored(1 << 30)
    assert torch.allclose(logp, expected, atol=1e-5)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-4)


def test_activations_made_again_change_no_bit_and_half_precision_little() -> None:
    batch = TokenBatch.of(join(conversation(b"a", 3)))

    def learned(precision: Precision) -> list[torch.Tensor]:
        one = model()
        score(precision.of(one), batch).sum().backward()
        return [p.grad for p in one.parameters() if p.grad is not None]

    plain = learned(Precision("float32"))
    again = learned(Precision("float32", checkpointing=True))
    half = learned(Precision("bfloat16"))
    for gradient, same, near in zip(plain, again, half, strict=True):
        assert torch.equal(gradient, same)
        assert not torch.equal(gradient, near)
        assert (gradient - near).norm() < 0.05 * gradient.norm()


def test_weights_that_need_no_gradient_are_not_trained_and_moments_are_kept_for_the_others() -> (
    None
):
    """As a policy with an adapter has it."""

    def frozen(seed: int) -> Trainer:
        one = model(seed).requires_grad_(False)
        one.blocks[0].requires_grad_(True)
        return Trainer(one, LearnerSettings())

    trainer = frozen(0)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    turns = conversation(b"a", 3)
    trainer.update(turns, [], 0.0)
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, before[name]) == (not name.startswith("blocks.0"))
    again = frozen(0)
    again.restore(trainer.save() | {"policy.safetensors": Weights.of(trainer.model, 0).data})
    for one in (trainer, again):
        one.update(turns, [], 0.0)
    for a, b in zip(trainer.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_hugging_face_model_is_scored_some_logits_at_a_time_and_without_kept_activations(
    kind: str, tmp_path: Path
) -> None:
    from experience.models.hugging_face import load

    batch = TokenBatch.of(join(conversation(b"a", 3)))
    write_tiny_model(tmp_path, kind)

    def learned(most: int, again: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        one, _ = load(str(tmp_path))
        logp = score(Precision("float32", again).of(one), batch, most_logits=most)
        kept = torch.where((batch.mask + batch.observed) > 0, logp, 0.0)
        kept.sum().backward()
        assert one.hidden(batch.tokens) is not None
        return kept, [p.grad for p in one.parameters() if p.grad is not None]

    (logp, gradients), (expected, wanted) = learned(1000, True), learned(1 << 30, False)
    assert torch.allclose(logp, expected, atol=1e-5)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, other, rtol=1e-3, atol=1e-4)


def test_a_model_that_caps_its_logits_is_not_read_by_its_head_alone(tmp_path: Path) -> None:
    from experience.models.hugging_face import load

    write_tiny_model(tmp_path)
    one, _ = load(str(tmp_path))
    plain = one.lm.forward

    def capped(**given: object) -> object:
        answer = plain(**given)
        answer.logits = 0.1 * torch.tanh(answer.logits / 0.1)
        return answer

    one.lm.forward = capped
    batch = TokenBatch.of(join(conversation(b"a", 2)))
    assert one.hidden(batch.tokens) is None
    assert score(one, batch, most_logits=10).min() > -6.0, "the capped logits are scored"
