"""The card of a world: what it offers beyond Gymnasium, with one default for what is absent."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np

from actors import ROOT
from experience.world import (
    PLAIN_REWARDS,
    PLAIN_SIGNALS,
    WorldCard,
    actions_of,
    instructions_of,
    random_action,
)


def test_a_bundled_worlds_card_says_what_the_world_says() -> None:
    world = gymnasium.make("envs:Reactor-v0").unwrapped
    card = WorldCard.of(world)
    assert card.signals == type(world).signal_catalogue and "yield" in str(card.signals)
    assert card.rewards == type(world).reward_weights
    assert (card.env_version, card.sandbox_tier) == (world.env_version, world.sandbox_tier)
    assert card.goes_back and card.has_oracle and card.has_laboratory
    assert card.splits == ("train", "heldout")
    assert instructions_of(world) == world.instructions != ""


def test_a_plain_gymnasium_environment_measures_its_reward_and_offers_nothing_else() -> None:
    world = gymnasium.make("CartPole-v1").unwrapped
    card = WorldCard.of(world)
    assert card.signals == PLAIN_SIGNALS and card.rewards == PLAIN_REWARDS == {"env_reward": 1.0}
    assert (card.env_version, card.sandbox_tier) == ("", "")
    assert not (card.goes_back or card.has_oracle or card.has_laboratory)
    assert instructions_of(world) == "" and actions_of(world) == ()
    assert random_action(world, np.random.default_rng(0)) in ("0", "1")


class Foreign:
    """A stranger's environment: our names, other kinds."""

    instructions = 3
    actions = {"go": 1}
    signal_catalogue = "none"
    reward_weights = [1.0]
    env_version = 2
    sandbox_tier = None
    splits = ()
    goes_back = "no"
    oracle_action = "left"
    laboratory = True
    action_space = gymnasium.spaces.Discrete(2)


def test_attributes_of_our_names_and_another_kind_count_as_absent() -> None:
    plain = WorldCard.of(gymnasium.make("CartPole-v1").unwrapped)
    assert WorldCard.of(Foreign()) == plain
    assert (instructions_of(Foreign()), actions_of(Foreign())) == ("", ())


def test_an_action_at_random_is_the_worlds_own_before_one_of_its_list() -> None:
    class Lists:
        actions = ["only"]

    class Draws(Lists):
        def random_action(self, rng: np.random.Generator) -> str:
            return f"drawn {rng.integers(1)}"

    assert random_action(Lists(), np.random.default_rng(0)) == "only"
    assert random_action(Draws(), np.random.default_rng(0)) == "drawn 0"


def test_optional_attributes_of_a_world_are_read_in_one_place() -> None:
    names = ("signal_catalogue", "reward_weights", "sandbox_tier", "goes_back", "env_version")
    for path in Path(ROOT, "actors").rglob("*.py"):
        found = [name for name in names if f'"{name}",' in path.read_text()]
        assert not found or path.name == "card.py", (path, found)
