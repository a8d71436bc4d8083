"""Any Gymnasium environment as text, and games for two."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.bridges.science_world import in_order, numbered
from envs.bridges.text_world import GAMES, Household
from envs.text import Text, read, shown
from experience.errors import MissingPartError


@pytest.mark.parametrize("text", ["", "x", "9", "-1", "1.5", "1 1", "nan", "1e99"])
def test_an_action_outside_the_space_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="one whole number from 0 to 3"):
        read(spaces.Discrete(4), text)


def test_a_strangers_environment_earns_its_own_rewards() -> None:
    world, plain = Text("CartPole-v1"), gymnasium.make("CartPole-v1")
    world.tasks = lambda split, rng: 5  # type: ignore[method-assign]
    seen, _ = world.reset(seed=0)
    state, _ = plain.reset(seed=5)
    for step in range(30):
        assert seen == shown(plain.observation_space, state)
        seen, reward, terminated, _, info = world.step(str(step % 2))
        state, theirs, over, _, _ = plain.step(step % 2)
        assert (reward, terminated) == (theirs, over) and info["signals"]["env_reward"] == theirs
        if over:
            break


def test_a_strangers_environment_is_named_with_its_own_arguments_where_worlds_are_made() -> None:
    world = gymnasium.make("envs:Text-v0", world="FrozenLake-v1", is_slippery=False).unwrapped
    seen, _ = world.reset(seed=0)
    assert (seen, world.actions) == ("0", ("0", "1", "2", "3"))
    assert world.step("1")[0] == "4", "on ice that is not slippery down is down"


def test_science_worlds_lists_are_sorted_and_numbers_of_meanings_follow() -> None:
    doors = [
        " You also see: A door to the hall (that is open), A door to the barn (that is open).",
        " You also see: A door to the barn (that is open), A door to the hall (that is open).",
    ]
    assert in_order(f"room\n\tb\n\ta\n\n{doors[0]}") == in_order(f"room\n\ta\n\tb\n\n{doors[1]}")
    one, other = (
        numbered("which?\n0:\tmix red\n1:\tmix blue"),
        numbered("which?\n0:\tmix blue\n1:\tmix red"),
    )
    assert one[0] == other[0] == "which?\n0:\tmix blue\n1:\tmix red"
    assert (one[1]["0"], other[1]["0"]) == ("1", "0"), "0 is blue, whatever its own number is"
    assert numbered("you wait") == ("you wait", {})


def test_a_strangers_world_goes_back_by_doing_again_what_was_done() -> None:
    world, other = Text("CartPole-v1"), Text("CartPole-v1")
    world.reset(seed=1)
    world.step("0")
    other.reset(seed=9)
    saved = world.snapshot()
    ways = [world.step("0")[0], world.step("1")[0]]
    assert other.restore(saved)[0] == world.restore(saved)[0]
    assert [world.step("0")[0], world.step("1")[0]] == ways and other.step("1")[0] != ways[0]


def test_what_cuts_a_strangers_episode_off_does_not_end_it() -> None:
    world = Text("MountainCar-v0", max_turns=999)
    world.reset(seed=0)
    for _ in range(200):
        _, _, terminated, truncated, _ = world.step("1")
    assert truncated and not terminated, "200 steps are its own limit"


def test_in_self_play_each_sides_reward_goes_to_who_moved() -> None:
    pytest.importorskip("pettingzoo", reason="./xp setup worlds")
    pytest.importorskip("pygame", reason="./xp setup worlds")
    world = gymnasium.make("envs:Duel-v0", opponent="self").unwrapped
    seen, _ = world.reset(seed=0)
    players = []
    for move in "03142":  # the first player fills the top row... of columns: 0 3 6 / 1 4 7 / 2 5 8
        players.append(seen.split(",")[0])
        seen, reward, terminated, _, info = world.step(move)
    assert players == ["player_1", "player_2", "player_1", "player_2", "player_1"]
    assert terminated and reward == 1.0 and info["signals"]["player"] == 0.0


@pytest.mark.parametrize("game", GAMES)
def test_every_game_of_the_house_can_be_won_in_time(game: str) -> None:
    try:
        world = Household(game)
    except MissingPartError as missing:
        pytest.skip(" ".join(str(missing).split()))
    # One in fifty of the game's own paths to the coin takes longer than the episode.
    for seed in range(200):
        world.reset(seed=seed, options={"split": "heldout"})
        assert 0 < len(world._gold) <= world.max_turns
    ended, earned = False, 0.0
    while not ended:
        _, reward, ended, truncated, _ = world.step(world.oracle_action())
        earned += float(reward)
        assert not truncated
    world.close()
    assert earned >= world.oracle_target


@pytest.mark.parametrize("text", ["", "[]", "3", '{"which": 1}', '{"which": 9, "where": [0, 0]}'])
def test_a_composed_action_outside_the_space_is_refused(text: str) -> None:
    space = spaces.Dict(which=spaces.Discrete(3), where=spaces.Box(-1, 1, (2,)))
    with pytest.raises(
        ValueError, match=r"one line of JSON, for example .*which: one whole number"
    ):
        read(space, text)


class Composed(gymnasium.Env):
    """Pays the action's number, and keeps what it was given."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Dict(which=spaces.Discrete(3), where=spaces.Box(-1, 1, (2,)))

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):  # type: ignore[no-untyped-def]
        assert isinstance(action["where"], np.ndarray) and action["where"].dtype == np.float32
        return 0, float(action["which"]), False, False, {}


def test_random_actions_of_a_composed_space_are_not_refused() -> None:
    gymnasium.register(id="Composed-v0", entry_point=Composed)
    world = Text("Composed-v0")
    world.reset(seed=0)
    for _ in range(10):
        _, _, _, _, info = world.step(world.random_action(np.random.default_rng(1)))
        assert "invalid_action" not in info["signals"]


def test_each_key_of_a_dictionary_is_one_line() -> None:
    space = spaces.Dict(at=spaces.Discrete(9), speed=spaces.Box(-1, 1, (2,)))
    value = {"at": 4, "speed": np.array([0.5, -0.25], np.float32)}
    assert shown(space, value) == "at: 4\nspeed: 0.5 -0.25"
