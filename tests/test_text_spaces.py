"""Every space of Gymnasium as text and back, exactly."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from actors.making import make_world
from envs.text import described, parsed, read, shown, written
from envs.text.numerals import array_of, numerals
from envs.text.world import Text
from envs.text.writing import Style
from experience.errors import ConfigError, EnvironmentFailure
from experience.shards.storage.pictures import png

ODD = "aß 語\n\t\"'{[:,*🙂é\\\x00\u2028"
POINT = spaces.Box(-1, 1, (2,))
NESTED = spaces.Sequence(
    spaces.Tuple((spaces.Text(3, charset="\n a"), spaces.OneOf((POINT, spaces.Dict(q=POINT)))))
)
SPACES = {
    "discrete": spaces.Discrete(4),
    "discrete from -7": spaces.Discrete(3, start=-7),
    "multidiscrete": spaces.MultiDiscrete([3, 4], start=[-4, 9]),
    "multidiscrete 2-d": spaces.MultiDiscrete([[3, 4], [5, 60_000_000]]),
    "multibinary": spaces.MultiBinary(3),
    "multibinary 3-d": spaces.MultiBinary((2, 3, 4)),
    "box of one number": spaces.Box(-1, 1, ()),
    "box without numbers": spaces.Box(-1, 1, (0,)),
    "box": spaces.Box(-1, 1, (3,)),
    "box without bounds": spaces.Box(-np.inf, np.inf, (4,)),
    "box with one bound": spaces.Box(0, np.inf, (2, 3)),
    "box 3-d float64": spaces.Box(-1, 1, (2, 3, 4), np.float64),
    "box 4-d": spaces.Box(-1, 1, (2, 2, 2, 9)),
    "box float16": spaces.Box(-1, 1, (3,), np.float16),
    "box int64": spaces.Box(-(2**62), 2**62, (5,), np.int64),
    "box uint64": spaces.Box(0, 2**64 - 1, (3,), np.uint64),
    "box of truths": spaces.Box(0, 1, (3, 3), bool),
    "box large": spaces.Box(-1, 1, (40, 20)),
    "box of runs": spaces.Box(0, 1, (30, 20), np.int8),
    "pixels": spaces.Box(0, 255, (40, 30, 3), np.uint8),
    "frames": spaces.Box(0, 255, (4, 64, 64), np.uint8),
    "text": spaces.Text(9),
    "text unicode": spaces.Text(12, charset=ODD, min_length=0),
    "dict": spaces.Dict(which=spaces.Discrete(3), where=POINT, grid=spaces.MultiBinary((2, 2))),
    "dict odd keys": spaces.Dict({key: spaces.Discrete(2) for key in ("a: b", '"', " x", "ü", "")}),
    "dict of texts": spaces.Dict(a=spaces.Text(5, charset=ODD, min_length=0), b=spaces.Text(3)),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Tuple(()), spaces.Dict({}))),
    "one of": spaces.OneOf((spaces.Discrete(3), POINT, spaces.Text(4))),
    "sequence": spaces.Sequence(POINT),
    "sequence stacked": spaces.Sequence(POINT, stack=True),
    "sequence of dicts, stacked": spaces.Sequence(
        spaces.Dict(a=spaces.Discrete(2), b=POINT), stack=True
    ),
    "sequence of texts": spaces.Sequence(spaces.Text(5, charset="a\n ", min_length=0)),
    "graph": spaces.Graph(spaces.Box(-1, 1, (3,)), spaces.Discrete(4)),
    "graph without edges": spaces.Graph(spaces.Discrete(5), None),
    "graph of arrays": spaces.Graph(POINT, spaces.Box(-1, 1, (2, 2))),
    "nested": spaces.Dict(g=spaces.Graph(spaces.Discrete(3), spaces.Text(3)), s=NESTED),
}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in every number, type and shape."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        floats = one.dtype.kind == "f"
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=floats)
    return bool(one == other)


@pytest.mark.parametrize("name", SPACES)
def test_every_sample_of_every_space_is_read_back_as_it_was(name: str) -> None:
    space = SPACES[name]
    space.seed(0)
    for _ in range(10 if "pixels" in name or "frames" in name else 60):
        value = space.sample()
        assert same(read(space, shown(space, value)), value), shown(space, value)
        line = written(space, value)
        assert "\n" not in line and line.isprintable() and line == line.strip() != ""
        assert same(read(space, line), value), line


@pytest.mark.parametrize("name", SPACES)
def test_different_values_are_different_texts(name: str) -> None:
    space = SPACES[name]
    space.seed(1)
    values = [space.sample() for _ in range(40)]
    for style in (shown, written):
        texts = [style(space, value) for value in values]
        for number, value in enumerate(values):
            equal = [same(value, other) for other in values]
            assert equal == [texts[number] == text for text in texts]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_has_the_fewest_digits_that_give_it_back(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (20_000, np.dtype(dtype).itemsize), np.uint8)
    array = bits.view(dtype).ravel()  # of every size, some of them NaN, infinite or subnormal
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).max], dtype)
    array = np.concatenate([array, odd])
    back = array_of(numerals(array), array.shape, dtype)
    assert np.array_equal(back, array, equal_nan=True)
    assert np.array_equal(np.signbit(back[-3:]), np.signbit(array[-3:])), "-0 is not 0"
    assert numerals(np.array([0.1, 1, 1e-7], np.float32)) == ["0.1", "1", "1e-07"]


def test_what_lies_outside_its_bounds_is_still_shown_as_it_is() -> None:
    space = spaces.Dict(x=spaces.Box(-1, 1, (3,), np.float32), n=spaces.Discrete(3))
    value = {"x": np.array([np.nan, np.inf, -7.5], np.float32), "n": 12}
    assert shown(space, value) == "x: nan inf -7.5\nn: 12"
    assert same(parsed(space, shown(space, value)), value)


def test_whole_numbers_keep_all_their_digits() -> None:
    space = spaces.Box(0, 2**31, (2,), np.int64)
    assert shown(space, np.array([12345678, 12349999])) == "12345678 12349999"
    rounded = Style(digits=4)
    assert shown(space, np.array([12345678, 12349999]), rounded) == "12345678 12349999"
    assert shown(POINT, np.array([0.123456, -0.5], np.float32), rounded) == "0.1235 -0.5"


def test_cells_of_a_grid_and_long_runs_are_laid_out_for_a_reader() -> None:
    grid = np.zeros((2, 3, 3), np.uint8)
    grid[0, 1] = [10, 0, 1]
    assert shown(spaces.Box(0, 255, (2, 3, 3), np.uint8), grid) == (
        "0,0,0 10,0,1 0,0,0\n0,0,0 0,0,0 0,0,0"
    )
    wide = np.zeros((3, 100), np.int16)
    wide[1, 50] = 7
    space = spaces.Box(0, 9, (3, 100), np.int16)
    assert shown(space, wide) == "0*100\n0*50 7 0*49\n0*100"


def test_parts_have_a_line_or_an_indented_block_each() -> None:
    graph = spaces.Graph(spaces.Discrete(9), spaces.Discrete(9))
    space = spaces.Dict(goal=spaces.Text(20), map=spaces.MultiBinary((2, 2)), net=graph)
    net = gymnasium.spaces.GraphInstance(
        np.array([4, 5]), np.array([7]), np.array([[1, 0]], np.int32)
    )
    assert shown(space, {"goal": "go", "map": np.eye(2, dtype=np.int8), "net": net}) == (
        "goal: go\nmap:\n  1 0\n  0 1\nnet:\n  nodes:\n    0: 4\n    1: 5\n  edges:\n    1 -> 0: 7"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("multidiscrete", "-3, 10"),
        ("multidiscrete", "[-3, 10]"),
        ("multidiscrete", "(-3.0 10)"),
        ("dict", '{"which": 1, "where": [0, 0.5], "grid": [0, 1, 1, 0]}'),
        ("dict", "where: 0 0.5\nwhich: 1\ngrid:\n  0 1\n  1 0"),
        ("one of", '[2, "hey"]'),
        ("one of", "0: 2"),
        ("graph without edges", '{"nodes": [1, 2]}'),
        ("text unicode", "語ß"),
        ("text unicode", '"語ß"'),
    ],
)
def test_what_people_and_models_write_is_read(name: str, text: str) -> None:
    assert SPACES[name].contains(read(SPACES[name], text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("discrete", "1 1"),
        ("multidiscrete", "-3.5 10"),
        ("multidiscrete", "-3 10 10"),
        ("multidiscrete", "10*99999999999"),
        ("box", "0 0 nan"),
        ("box", "0 0 2"),
        ("box without bounds", "0 0 0 1e99"),
        ("box uint64", "0 0 -1"),
        ("box of truths", "0 0 0 0 0 0 0 0 2"),
        ("dict", '{"which": 1}'),
        ("dict", '{"which": "1", "where": [0, 0.5], "grid": [0, 1, 1, 0]}'),
        ("dict", '{"which": 1, "where": [[0], [0.5]], "grid": [0, 1, 1, 0]}'),
        ("dict", "which 1"),
        ("dict", "  which: 1"),
        ("one of", "[-1, 0]"),
        ("one of", "[3, 0]"),
        ("tuple", "[0, []]"),
        ("graph", '{"nodes": [[0, 0, 0]], "edges": [[0, 1, 0]]}'),
        ("graph without edges", '{"nodes": [1], "edges": [[0, 0, 1]]}'),
        ("text", "not alphanumeric"),
        ("sequence", "[" * 100_000),
    ],
)
def test_what_is_no_action_is_refused_with_what_to_write(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="write an action: ") as refused:
        read(SPACES[name], text)
    assert described(SPACES[name]) in str(refused.value) and len(str(refused.value)) < 700


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(np.array([-1, 0]), np.array([1, 5])), "2 numbers: from -1 to 1, from 0 to 5"),
        (spaces.Box(-np.inf, np.inf, (3,)), "3 numbers of any size"),
        (spaces.Box(0, 9, (2, 2), np.int32), "4 whole numbers in 2x2 from 0 to 9"),
        (spaces.MultiDiscrete([3, 4]), "2 whole numbers: from 0 to 2, from 0 to 3"),
        (spaces.MultiBinary(3), "3 numbers, each 0 or 1"),
    ],
)
def test_an_action_is_described_with_each_numbers_own_bounds(
    space: spaces.Space[Any], words: str
) -> None:
    assert described(space) == words


class Shows(gymnasium.Env[Any, Any]):
    """Shows samples of a space, and pays how many actions of the other it was given."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, name: str, render_mode: str | None = None) -> None:
        self.observation_space = self.action_space = SPACES[name]
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.given = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.given += 1
        return self.observation_space.sample(), 1.0, False, False, {}

    def render(self) -> Any:
        return np.full((4, 4, 3), self.given, np.uint8)


class Lies(Shows):
    """Shows something else than its space says."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return {"nothing": 1}, {}


gymnasium.register(id="Shows-v0", entry_point=Shows, disable_env_checker=True)
gymnasium.register(id="Lies-v0", entry_point=Lies, disable_env_checker=True)


@pytest.mark.parametrize("name", SPACES)
def test_random_actions_of_every_space_are_read_by_the_world_itself(name: str) -> None:
    world = Text("Shows-v0", name=name, observation_characters=200_000)
    world.reset(seed=0)
    rng = np.random.default_rng(0)
    for turn in range(10):
        action = world.random_action(rng)
        seen, reward, _, _, info = world.step(action)
        assert reward == 1.0 and "invalid_action" not in info["signals"], (turn, action)
        assert "cut here" not in seen


def test_pixels_are_pictures_of_the_step_and_the_text_names_them() -> None:
    world = Text("Shows-v0", name="pixels")
    seen, info = world.reset(seed=3)
    assert seen == "(pixels 40x30x3, shown as the picture observation)"
    assert info["images"] == {"observation": png(world._seen_inside)}
    world = Text("Shows-v0", name="frames")
    seen, info = world.reset(seed=3)
    assert seen == "(pixels 4x64x64, shown as the 4 pictures observation.0 to observation.3)"
    assert info["images"]["observation.3"] == png(world._seen_inside[3])


def test_codes_of_characters_are_shown_as_these_where_a_part_is_named() -> None:
    byte = spaces.Box(0, 255, (2, 6), np.uint8)
    space = spaces.Dict(map=byte, hp=spaces.Discrete(9))
    value = {"map": np.array([[35, 46, 64, 32, 0, 0], [34, 233, 0, 7, 92, 1]], np.uint8), "hp": 3}
    seen = shown(space, value, Style(codes=frozenset({"observation.map"})))
    assert seen.split("\n") == [
        "map:",
        '  "#.@ "',
        '  "\\"\\u00e9\\u0000\\u0007\\\\\\u0001"',
        "hp: 3",
    ]
    rows = [json.loads(line).encode("latin-1").ljust(6, b"\0") for line in seen.split("\n")[1:3]]
    assert b"".join(rows) == value["map"].tobytes(), "nothing is lost"
    SPACES["a map"] = space
    try:
        assert Text("Shows-v0", name="a map", codes=["map"]).reset(seed=0)[0].count('"') >= 4
        with pytest.raises(ConfigError, match=r"codes: 'hp' is no part .*\n.*there are: map"):
            Text("Shows-v0", name="a map", codes=["hp"])
    finally:
        del SPACES["a map"]


def test_a_rendering_is_a_picture_of_the_step_where_it_is_asked_for() -> None:
    world = Text("Shows-v0", name="discrete", pictures=True)
    assert world.reset(seed=0)[1]["images"] == {"rendering": png(np.zeros((4, 4, 3), np.uint8))}
    info = world.step("1")[4]
    assert info["images"] == {"rendering": png(np.ones((4, 4, 3), np.uint8))}
    with pytest.raises(ConfigError, match=r"Blind-v0 renders no pixels"):
        Text("Blind-v0", pictures=True)


class Blind(Shows):
    metadata = {"render_modes": []}

    def __init__(self) -> None:
        super().__init__("discrete")


gymnasium.register(id="Blind-v0", entry_point=Blind, disable_env_checker=True)


def test_a_text_that_does_not_fit_says_that_it_was_cut() -> None:
    world = Text("Shows-v0", name="box large", observation_characters=3000)
    seen, _ = world.reset(seed=0)
    whole = shown(world.inner.observation_space, world._seen_inside)
    text, _, said = seen.rpartition("\n")
    assert said == f"(cut here: these are the first {len(text)} of {len(whole)} characters)"
    assert whole.startswith(f"{text}\n") and 1000 < len(seen) <= 2000
    assert "write an action" in world.step("nonsense")[0], "the note has room"
    with pytest.raises(ConfigError, match="observation_characters = 100"):
        Text("CartPole-v1", observation_characters=100)


def test_an_observation_of_another_form_than_its_space_is_a_failure_of_that_world() -> None:
    with pytest.raises(EnvironmentFailure, match=r"Lies-v0 showed .*'nothing': 1"):
        Text("Lies-v0", name="dict").reset(seed=0)


def test_instructions_say_what_to_reply_what_is_rounded_and_what_actions_are_called() -> None:
    world = Text("CartPole-v1", digits=3)
    assert world.instructions.split("\n") == [
        "Reply with one whole number from 0 to 1",
        "Numbers are shown rounded to 3 significant digits",
    ]
    assert all(len(word.strip("-").lstrip("0.")) <= 3 for word in world.reset(seed=0)[0].split())
    example = Text("Shows-v0", name="dict").instructions.partition("example ")[2]
    line = example[: example.index("} (") + 1]
    assert SPACES["dict"].contains(read(SPACES["dict"], line)) and json.loads(line)


def test_a_world_used_directly_is_told_the_line_that_shows_it_as_text() -> None:
    gymnasium.register(id="Types-v0", entry_point=Types, disable_env_checker=True)
    with pytest.raises(ConfigError) as refused:
        make_world("Types-v0", {"speed": 2})
    assert "Types-v0 shows Text and takes Dict" in str(refused.value)
    line = yaml.safe_load(refused.value.hint.partition(": ")[2])
    world = make_world(line["id"], line["arguments"])
    assert world.reset(seed=0)[0] and world.unwrapped.inner.unwrapped.speed == 2


class Types(Shows):
    """Shows text, and takes a dictionary."""

    def __init__(self, speed: int) -> None:
        super().__init__("dict")
        self.speed = speed
        self.observation_space = SPACES["text"]


class SeededAsOfOld(Shows):
    """Ignores the seed of `reset`, as NetHack does."""

    def seed(
        self, core: int | None = None, disp: int | None = None, lgen: int | None = None
    ) -> None:
        assert core == disp is not None and lgen is None
        self.core = core

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=self.core)


def test_an_environment_with_a_seed_method_of_the_older_contract_is_seeded_by_it() -> None:
    gymnasium.register(id="Old-v0", entry_point=SeededAsOfOld, disable_env_checker=True)
    world, other = Text("Old-v0", name="box"), Text("Old-v0", name="box")
    assert world.reset(seed=4)[0] == other.reset(seed=4)[0] != other.reset(seed=5)[0]


def test_only_actions_of_numbers_need_no_sandbox() -> None:
    tiers = {name: Text("Shows-v0", name=name).sandbox_tier for name in SPACES}
    with_text = {name for name, tier in tiers.items() if tier == "none"}
    assert with_text == {name for name in SPACES if "text" in name} | {"one of", "nested"}
