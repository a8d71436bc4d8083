"""Recipes: a row is data, every cell can be overridden, and what a row means is what is learned."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.config.schema import dump, load
from experience.episode import Episode, Group
from experience.errors import ConfigError
from experience.learning.learner import LearnerSettings
from experience.learning.recipes.recipe import Recipe
from experience.learning.recipes.table import RECIPES, as_text, recipe
from experience.learning.token_learner import TokenLearner
from experience.policy import Decision, VersionSpan
from tests.conftest import make_step
from tests.test_learning import group_of, tiny

PUBLISHED = {
    "dapo": """{like: grpo, estimator: mean, scale: group, clip_below: 0.2, clip_above: 0.28,
        clip_dual: 0.0, over: tokens, keep_flat: false, most_tokens: 0}""",
    "dr_grpo": """{estimator: mean, scale: none, keep_flat: true, over: constant,
        clip_above: 0.2, clip_dual: 0.0}""",
    "gspo": """{estimator: mean, scale: group, ratio: sequence, over: responses, keep_flat: true,
        clip_below: 3.0e-4, clip_above: 4.0e-4, clip_dual: 0.0}""",
    "cispo": "{estimator: mean, scale: group, surrogate: cispo, is_cap: 5.0}",
    "rloo": "{estimator: rloo, scale: none, surrogate: none, over: responses, keep_flat: true}",
    "reinforce_pp": """{estimator: none, scale: batch, clip_above: 0.2, clip_dual: 0.0,
        kl_weight: 0.01, keep_flat: true}""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_a_few_cells_in_a_configuration_without_code(
    name: str, tmp_path: Path
) -> None:
    """Written out as data it is the row of the table, and an update by it is the same."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"learning:\n  recipe: {PUBLISHED[name]}\n")
    config, _ = load([file])
    written = recipe(config.learning.recipe)
    cells, row = written.cells(), RECIPES[name].cells()
    about = {"name", "source"}
    assert {c: v for c, v in cells.items() if c not in about} == {
        c: v for c, v in row.items() if c not in about
    }
    one, other = (
        TokenLearner(tiny(), LearnerSettings(recipe=given, minibatches=2))
        for given in (written, name)
    )
    for learner in (one, other):
        metrics = learner.improve([group_of([1.0, 0.0, 0.3, 0.3])])
        assert metrics["gradient_norm"] > 0
    assert one.policy() == other.policy()


def test_a_name_and_a_cell_that_is_set_later_belong_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("learning:\n  recipe: dapo\n")
    config, origins = load([file], ["learning.recipe.clip_above=0.4"])
    assert recipe(config.learning.recipe).clip_above == 0.4
    assert recipe(config.learning.recipe).scale == "group", "the rest is dapo's"
    assert "override" in origins["learning.recipe.clip_above"]
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load([tmp_path / "again.yaml"])[0].learning.recipe == config.learning.recipe
    assert load([file], ["learning.recipe=rloo"])[0].learning.recipe == "rloo"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dappo", "did you mean 'dapo'"),
        ("{like: nothing_alike_at_all}", "there are: grpo"),
        ("{clip_abov: 1}", "clip_above"),
        ("{clip_above: high}", "is no float"),
        ("{keep_flat: 3}", "is no bool"),
        ("{constant_tokens: 1.5}", "is no int"),
        ("{estimator: best}", "is not one of none, mean, rloo"),
        ("{surrogate: clop}", "is not one of none, clip, cispo, sft"),
        ("{kl_weight: -1}", "out of range"),
        ("{trace: 1.5}", "from 0 to 1"),
        ("{decoupled: true, surrogate: none}", "needs a ratio"),
        ("{estimator: state, scale: group}", "needs one return an episode"),
        ("{over: constant, constant_tokens: 0}", "divides by 0"),
        ("{mask: icepop, mask_limit: 0.5}", "leaves out every ratio"),
        ("{most_tokens: 5, soft_tokens: 6}", "more than most_tokens"),
    ],
)
def test_a_wrong_recipe_is_a_configuration_error_that_says_what_there_is(
    given: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load([], [f"learning.recipe={given}"])
    assert said in str(raised.value) and "nothing was started" in str(raised.value)


def test_the_old_keys_name_the_cells_that_took_their_place() -> None:
    for old, new in (("objective=sft", "learning.recipe"), ("clip_above=1", "recipe.clip_above")):
        with pytest.raises(ConfigError, match=f"this key has moved\n  set .*{new}"):
            load([], [f"learning.{old}"])


def test_the_table_in_the_docs_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "learning.md"
    assert as_text() in page.read_text()


WORDS, LENGTH, BETA = 4, 3, 0.5
"""Sequences of 3 of 4 tokens: 64 in all, so that π* can be written down."""


class Softmax(nn.Module):
    """A policy of one logit a prefix: it can be any distribution over the sequences."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        size = WORDS**LENGTH
        self.table = nn.Parameter(torch.randn(size, WORDS, generator=generator))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens int64 [B, T], of which the first is the prompt."""
        seen = torch.zeros(tokens.shape, dtype=torch.int64)
        for t in range(1, tokens.shape[1]):
            seen[:, t] = seen[:, t - 1] * WORDS + tokens[:, t] + 1
        return self.table[seen.clamp(max=len(self.table) - 1)]


def probabilities(model: Softmax) -> np.ndarray:
    """Of all 64 sequences, float64 [64]."""
    every = torch.tensor([(0, *s) for s in itertools.product(range(WORDS), repeat=LENGTH)])
    with torch.no_grad():
        logp = model(every)[:, :-1].double().log_softmax(-1)
    chosen = logp.gather(-1, every[:, 1:, None])[..., 0].sum(1)
    return chosen.exp().numpy()


def lived(
    model: Softmax, rewards: np.ndarray, n: int, version: int, rng: np.random.Generator
) -> Group:
    """A group of answers of the present policy."""
    every = torch.tensor([(0, *s) for s in itertools.product(range(WORDS), repeat=LENGTH)])
    with torch.no_grad():
        logits = model(every)[:, :-1].log_softmax(-1)
    logprobs = logits.gather(-1, every[:, 1:, None])[..., 0].numpy()
    p = np.exp(logprobs.sum(1).astype(float))
    decisions = [
        Decision(
            "", version, np.zeros(1, np.int32), tokens[1:].numpy().astype(np.int32), logp,
            (VersionSpan(version, LENGTH),), True, sampled=True,
        )
        for tokens, logp in zip(every, logprobs, strict=True)
    ]  # fmt: skip
    episodes = []
    # Systematic sampling: each answer as often as its probability says, with little noise.
    ends = np.cumsum(p / p.sum())
    drawn = np.searchsorted(ends, (np.arange(n) + rng.random()) / n).clip(max=len(p) - 1)
    for number, index in enumerate(drawn):
        step = make_step(
            0, number.to_bytes(16, "little"), decision=decisions[index],
            reward=float(rewards[index]), ending="terminated",
        )  # fmt: skip
        episodes.append(Episode((step,), None))
    return Group(f"g{version}", tuple(episodes))


def distance_to_the_optimum(cells: dict, updates: int = 200) -> float:
    """Total variation between the learned policy and π* ∝ π_ref·e^{r/β}.

    β weighs a divergence a token; the reward comes once a sequence: the term of a sequence is the
    mean over its tokens, so that β·LENGTH is the weight of the sequence's divergence.
    """
    model, rng = Softmax(), np.random.default_rng(0)
    reference = probabilities(model)
    rewards = rng.normal(size=WORDS**LENGTH)
    learner = TokenLearner(
        model,  # type: ignore[arg-type]
        LearnerSettings(
            learning_rate=0.05, minibatches=1, imitation_weight=0.0, gradient_norm=1e9,
            micro_batch_tokens=1 << 20, recipe=cells,
        ),
    )  # fmt: skip
    for update in range(updates):
        rate = max(1 - update / updates, 0.02)
        learner.improve([lived(model, rewards, 384, update, rng)], rate)
        learner.publish()
    best = reference * np.exp(rewards / BETA)
    return float(0.5 * np.abs(probabilities(model) - best / best.sum()).sum())


KL = {
    "like": "ppo_kl", "estimator": "rloo", "scale": "none", "surrogate": "none",
    "keep_flat": True, "kl_weight": BETA,
}  # fmt: skip


@pytest.mark.timeout(300)
def test_a_policy_with_a_divergence_from_its_reference_reaches_the_closed_form() -> None:
    assert distance_to_the_optimum(KL) < 0.02


def test_without_the_divergence_it_goes_elsewhere() -> None:
    assert distance_to_the_optimum(KL | {"kl_weight": 0.0}, updates=60) > 0.2


def test_the_table_names_every_recipe_and_only_cells_that_differ() -> None:
    assert recipe("grpo").cells() | {"source": ""} == Recipe().cells()
    lines = as_text().splitlines()
    assert len(lines) == 2 + len(RECIPES)
    assert "clip_below: 0.0003, clip_above: 0.0004" in next(x for x in lines if "`gspo`" in x)
