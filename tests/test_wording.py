"""Two wordings of each bundled world: terse is what it always was, plain can be read by a stranger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import gymnasium
import numpy as np
import pytest

from actors.collecting.hosts.look import look_at
from actors.config.schema import load
from actors.engines.engine import Situation
from actors.making import make_world
from benchmarks.worlds.readable import measure
from envs.authoring import Outcome, Range, ToolWorld, action
from envs.contract import INVALID
from envs.wording import PLAIN_CHARACTERS
from experience.policy import Decision
from experience.signal import SignalKind
from tests.golden import terse

_SLOW = (
    "Repo-v0",
    "Materials-v0",
    "Battery-v0",
    "Science-v0",
    "Coach-v0",
    "Intranet-v0",
    "Coq-v0",
    "Arena-v0",
    "Household-v0",
    "Reasoning-v0",
)
"""Worlds of which some episodes take seconds."""
WORLDS = [
    pytest.param(name, marks=pytest.mark.long) if name in _SLOW else name for name in terse.names()
]
_LISTED = ("KeyDoor-v0", "Recall-v0", "Arena-v0", "Duel-v0", "Text-v0")
"""Worlds of a few moves, whose example is a move like all others."""


@lru_cache(maxsize=64)
def told(name: str, wording: str) -> terse.Told:
    return terse.lived(name, {"wording": wording} if wording else {})


@pytest.mark.parametrize("name", WORLDS)
def test_terse_words_are_what_small_models_have_learned(name: str) -> None:
    known = json.loads(terse.FILE.read_text())
    found = told(name, "").words  # first: it skips where a part is not installed
    assert found == known[name]


@pytest.mark.parametrize("name", WORLDS)
def test_plain_words_change_what_is_seen_and_nothing_else(name: str) -> None:
    plain, before = told(name, "plain"), told(name, "")
    assert plain.states == before.states
    assert plain.tasks == before.tasks
    assert plain.signals == before.signals
    assert plain.endings == before.endings
    np.testing.assert_array_equal(plain.rewards, before.rewards)
    assert plain.instructions != before.instructions
    assert all(a != b for a, b in zip(plain.seen, before.seen, strict=True))


@pytest.fixture(scope="module")
def made() -> Iterator[Any]:
    worlds: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in worlds:
            worlds[name] = gymnasium.make(f"envs:{name}", wording="plain").unwrapped
        return worlds[name]

    yield make
    for world in worlds.values():
        world.close()


@pytest.mark.parametrize("name", WORLDS)
def test_a_stranger_is_told_rewards_limits_and_how_to_reply(name: str, made: Any) -> None:
    world = made(name)
    assert "Reply" in world.instructions
    assert f"at most {world.max_turns} turns" in world.instructions
    assert "characters" in world.instructions
    paid = {signal for signal, weight in world.reward_weights.items() if weight}
    assert world.instructions.count("\n- +") + world.instructions.count("\n- -") == len(paid)
    assert "times the signal" not in world.instructions  # each signal has words of its own
    assert len(world.instructions) < 4000


@pytest.mark.parametrize("name", WORLDS)
def test_the_example_of_the_first_turn_is_accepted_and_is_not_the_answer(
    name: str, made: Any
) -> None:
    world = made(name)
    for split, seed in terse.LIVED:
        if split not in world.splits:
            continue
        seen, _ = world.reset(seed=seed, options={"split": split})
        example = seen.rpartition("\n")[2]
        assert seen.endswith(f"in the form of this example:\n{example}")
        assert len(seen) > len(world.observe())
        if name not in _LISTED and not example.startswith("simulate "):  # an oracle only declares
            assert example != _answer(world)
        _, reward, terminated, _, info = world.step(example)
        assert INVALID not in info["signals"], example
        if name not in _LISTED:
            assert not reward > 0.1  # ScienceWorld gives 0.08 for the first action, whatever it is
            assert not terminated or name in ("HumanEval-v0", "Reasoning-v0", "Click-v0")


def _answer(world: Any) -> str:
    try:
        return str(world.oracle_action())
    except NotImplementedError:
        return ""


@pytest.mark.parametrize("name", WORLDS)
def test_a_refusal_says_what_was_wrong_in_sentences_and_shows_a_valid_line(
    name: str, made: Any
) -> None:
    world = made(name)
    world.reset(seed=3, options={"split": world.splits[-1]})
    seen, *_, info = world.step("nonsense 1")
    if INVALID not in info["signals"]:
        pytest.fail(f"{name} takes nonsense for an action")
    said = seen.partition('Your last answer, "nonsense 1", was refused: ')[2]
    reason, _, rest = said.partition("\n\n")
    assert re.fullmatch(r"it cost a turn and changed nothing\. [A-Z].*\.", reason, re.DOTALL)
    example = rest.rpartition("\n")[2]
    *_, after = world.step(example)
    assert INVALID not in after["signals"], example


class _Guess(ToolWorld[int]):
    """A world as its author wrote it who never thought of wordings."""

    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "hit": SignalKind("fraction", "env_state"),
        "paid": SignalKind("EUR", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"hit": 1.0, "paid": -0.5}
    goes_back = True

    def __init__(self, most: int = 9) -> None:
        super().__init__()
        self.most = most

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1, self.most))

    def begin(self) -> None:
        self.tries = 0

    def observe(self) -> str:
        return f"a number below {self.most}; {self.tries} tries"

    @action
    def guess(self, number: Annotated[int, Range(1, 9)], how: Literal["loud", "low"]) -> Outcome:
        """Say a number."""
        self.tries += 1
        return {"hit": float(number == self.task), "paid": 0.1}, number == self.task

    @action
    def stop(self) -> Outcome:
        """Give up."""
        return {}, True

    def oracle_action(self) -> str:
        return f"guess {self.task} low"


class _Long(_Guess):
    observation_characters: ClassVar[int] = 50

    def observe(self) -> str:
        return "x" * 5000


def test_an_authors_world_takes_the_argument_and_speaks_plainly_without_a_line_of_its_own() -> None:
    world = _Guess(most=5, wording="plain")  # type: ignore[call-arg]
    assert world.most == 5
    assert (
        "guess NUMBER HOW: Say a number. NUMBER: a whole number from 1 to 9; HOW: loud or low."
        in (world.instructions)
    )
    assert "+1 times the signal hit." in world.instructions
    assert "-0.5 times the signal paid, in EUR." in world.instructions
    seen, info = world.reset(seed=1)
    assert seen.startswith("a number below 5; 0 tries\n\nTurn 1 of 4. ")
    assert info["state"] == "a number below 5; 0 tries"
    assert world.observation_space.contains(seen)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("guess 12 low", "NUMBER must be a whole number from 1 to 9, not 12."),
        ("guess two low", "NUMBER must be a whole number from 1 to 9, not 'two'."),
        ("guess 2 soft", "HOW must be loud or low, not soft."),
        ("guess 2", "The action guess is written: guess NUMBER HOW. Here HOW is missing."),
        ("stop 1 2", "The action stop is written: stop. Here 2 values were given."),
        ("shout", "The first word must be one of: guess, stop."),
        ('{"name": 3}', 'A tool call is written {"name": ..., "arguments": {...}}'),
    ],
)
def test_a_refused_tool_is_explained_in_a_sentence(wrong: str, why: str) -> None:
    world = _Guess(wording="plain")  # type: ignore[call-arg]
    world.reset(seed=1)
    assert f"changed nothing. {why}" in world.step(wrong)[0]


def test_a_wording_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="wording 'pretty': choose terse or plain"):
        _Guess(wording="pretty")  # type: ignore[call-arg]


def test_a_snapshot_keeps_the_state_and_not_the_wording() -> None:
    plain = _Guess(wording="plain")  # type: ignore[call-arg]
    plain.reset(seed=1)
    plain.step("guess 9 low")
    terse_world = _Guess()
    terse_world.reset(seed=2)
    seen, _ = terse_world.restore(plain.snapshot())
    assert seen == "a number below 9; 1 tries"
    assert terse_world.instructions == _Guess.instructions
    assert plain.restore(plain.snapshot())[0].startswith(seen)


def test_a_state_that_is_too_long_is_cut_before_the_turn_and_the_example() -> None:
    world = _Long(wording="plain")  # type: ignore[call-arg]
    seen, _ = world.reset(seed=0)
    assert len(seen) == 50 + PLAIN_CHARACTERS
    assert seen.rpartition("\n")[2] == world.example()


def test_after_the_end_no_example_is_shown() -> None:
    world = _Guess(wording="plain")  # type: ignore[call-arg]
    world.reset(seed=0)
    assert world.step("stop")[0].endswith("\n\nThe episode is over.")


_CHAT = ("policy.engine=hugging_face", "policy.model=smollm2")
_WORLDS = 'worlds=[{id: "envs:KeyDoor-v0", arguments: {size: 4}}, {id: "a_strangers:World-v0"}]'


def test_bundled_worlds_speak_plainly_to_engines_that_chat_and_strangers_get_no_argument() -> None:
    config, _ = load([], [*_CHAT, _WORLDS])
    assert [w.arguments for w in config.worlds] == [{"size": 4, "wording": "plain"}, {}]
    config, _ = load([], [_WORLDS])
    assert [w.arguments for w in config.worlds] == [{"size": 4}, {}]
    server = ("policy.engine=openai", "policy.model=m", "policy.learns=false")
    config, _ = load([], [*server, "policy.base_url=http://127.0.0.1:9/v1"])
    assert config.worlds[0].arguments == {"wording": "plain"}


def test_a_configuration_that_names_a_wording_is_obeyed_whatever_the_engine() -> None:
    chosen = "worlds.0.arguments.wording="
    assert load([], [*_CHAT, f"{chosen}terse"])[0].worlds[0].arguments == {"wording": "terse"}
    assert load([], [f"{chosen}plain"])[0].worlds[0].arguments == {"wording": "plain"}


def test_a_run_makes_its_worlds_in_the_wording_of_its_configuration() -> None:
    config, _ = load([], [*_CHAT, 'worlds=[{id: "envs:KeyDoor-v0", demonstrations: 0}]'])
    opened = look_at(config.worlds[0], 60)
    assert opened.view.instructions.startswith("You walk on a square grid.")
    world = make_world(config.worlds[0].id, config.worlds[0].arguments)
    assert "The key is " in world.reset(seed=0)[0]
    world.close()


class _Copies:
    """An engine that answers with the example of each prompt, and every third time with nonsense."""

    version = 0

    def __init__(self) -> None:
        self.asked = 0

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        self.asked += 1
        text = situations[0].observation.rpartition("\n")[2]
        return [Decision("nonsense" if self.asked % 3 == 0 else text, 0)]


def test_the_program_counts_the_answers_that_a_world_takes_for_actions() -> None:
    read = measure("KeyDoor-v0", "plain", _Copies(), range(5), turns=6)  # type: ignore[arg-type]
    assert read.answers == 30
    assert read.valid == pytest.approx(2 / 3)
    assert read.returns.mean == pytest.approx(-0.1)
    assert read.returns.half == pytest.approx(0.0)
    assert read.row().startswith("| KeyDoor-v0 | plain | 30 | 0.67 | -0.10 ± 0.00 | ")
