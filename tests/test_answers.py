"""A world that answers with what is no answer ends that episode, and nothing else."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest

from actors.collecting.hosts.hosted_world import HostedWorld
from actors.collecting.hosts.messages import Act, Answered, Arrived, Reset, Wants
from actors.collecting.work import Work
from actors.config.schema import load
from experience.answers import read_reset
from experience.shards.catalog import Catalog
from experience.step import Step
from tests.alone import SMALLEST_POLICY, Alone

WORLD = "tests.answering_world:Answers-v0"


def lived(how: str, folder: Path, world: str = WORLD) -> list[list[Step]]:
    """Three episodes, each as its rows in their order; the second one is answered as `how` says."""
    told = f"[{{id: '{world}', groups: 1, demonstrations: 0, arguments: {{how: {how}}}}}]"
    config = load(
        [],
        [
            f"worlds={told}",
            *SMALLEST_POLICY,
            "collecting.slots=1",
            "collecting.group_size=2",
        ],
    )[0]
    one = Alone(config, folder)
    one.order(
        [Work.named(f"{n}", env_id=world, lane="random", seed=n, split="heldout") for n in range(3)]
    )
    deadline = time.monotonic() + 300
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    rows = sorted((s for block in Catalog(folder).follow() for s in block), key=lambda s: s.t)
    return [[s for s in rows if s.episode == n] for n in range(3)]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nan", "its reward is nan; a reward is a finite number"),
        ("infinite", "its reward is -inf"),
        ("none", "its reward is None"),
        ("a text", "its reward is '1.0'"),
        ("an array of two", "its reward is array([1., 1.])"),
        ("complex", "its reward is 1j"),
        ("too large", "a reward is a finite number"),
        ("nan signal", "signal 'done' is nan; a signal is a finite number, or None"),
        ("infinite signal", "signal 'done' is inf"),
        ("a text as signal", "signal 'done' is '1.0'"),
        ("a list of signals", "signals are a mapping of names to numbers"),
        ("a signal of three", "signal 'done' is (1.0, 'why', 'more')"),
        ("an unknown signal", "'won' is not in the environment's"),
        ("a sum beyond numbers", "is inf"),
        ("unreadable evidence", "is no text that can be kept"),
        ("four values", "step gave 4 values (str, float, bool, dict)"),
        ("one value", "step gave one str"),
        ("three values", "step gave 3 values"),
        ("info is a list", "step gave 5 values (str, float, bool, bool, list)"),
        ("info is nothing", "(observation, reward, terminated, truncated, info: dict)"),
        ("no text", "its observation is None; agents read text"),
        ("unreadable text", "its observation"),
        ("terminated is nothing", "terminated is None; it is true or false"),
        ("truncated is two", "truncated is array([1., 1.])"),
        ("images is a list", "images are bytes by name"),
        ("unreadable state", "state"),
        ("reset gives no tuple", "reset gave one str"),
        ("reset gives three", "Gymnasium's reset gives (observation, info: dict)"),
        ("reset gives no info", "reset gave 2 values (str, NoneType)"),
        ("reset gives no text", "its observation is 7"),
    ],
)
def test_an_answer_that_is_none_ends_its_episode_alone_and_says_what_was_expected(
    how: str, says: str, tmp_path: Path
) -> None:
    before, wrong, after = lived(how, tmp_path)
    assert [s.ending for s in (before[-1], after[-1])] == ["terminated"] * 2 and len(before) == len(
        after
    ) == 3
    assert {s.ending for s in wrong[-2:] if s.step_in_episode} <= {"env_error"} and wrong[
        -1
    ].ending == "env_error"
    assert all(s.reward is None for s in wrong if s.ending == "env_error")
    error = wrong[-1].info["error"]
    assert WORLD in error and says in error


@pytest.mark.parametrize(
    "how",
    [
        "float32",
        "an array of none",
        "bool",
        "numpy bool",
        "int8",
        "a numpy signal",
        "terminated is numpy's",
    ],
)
def test_a_number_of_numpys_is_a_number(how: str, tmp_path: Path) -> None:
    _, taken, _ = lived(how, tmp_path)
    assert [s.ending for s in taken] == ["none", "terminated", "terminated"]
    assert taken[0].reward == taken[1].reward is not None


@pytest.mark.parametrize(
    "how",
    [
        "nan",
        "none",
        "four values",
        "one value",
        "three values",
        "info is a list",
        "reset gives no tuple",
    ],
)
def test_gymnasiums_own_wrappers_change_nothing_in_that(how: str, tmp_path: Path) -> None:
    world = "tests.answering_world:CheckedAnswers-v0"
    before, wrong, after = lived(how, tmp_path, world)
    assert [e[-1].ending for e in (before, wrong, after)] == [
        "terminated",
        "env_error",
        "terminated",
    ]


def test_an_array_is_kept_as_the_picture_that_it_is() -> None:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for shown in (
        picture,
        picture[:, :, :1],
        picture[:, :, 0],
        np.dstack([picture, picture])[..., :4],
    ):
        info = {"images": {"screenshot": shown, "page": b"as it is"}}
        _, kept = read_reset("w", ("start", info))
        assert kept["images"]["page"] == b"as it is"
        read = np.asarray(Image.open(io.BytesIO(kept["images"]["screenshot"])))
        assert np.array_equal(read, shown.squeeze())


def test_a_split_that_is_none_of_the_worlds_is_the_worlds_own_affair(tmp_path: Path) -> None:
    config = load([], ["worlds=[{id: 'tests.strange_world:Strange-v0', arguments: {how: split}}]"])[
        0
    ]
    one = Alone(config, tmp_path / "shards")
    one.order([Work.named("w", env_id=config.worlds[0].id, lane="random", seed=1, split="heldout")])
    deadline = time.monotonic() + 100
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    rows = [row for block in Catalog(tmp_path / "shards").follow() for row in block]
    assert len(rows) == 4 and {row.split for row in rows} == {"heldout"}


def test_a_strangers_own_keys_of_info_are_left_out_and_each_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = HostedWorld("tests.own_keys_world:OwnKeys-v0", {})
    arrived = world.reply(Reset(0, "train", Wants()))
    answered = [world.reply(Act("on", Wants())) for _ in range(3)]
    assert isinstance(arrived, Arrived) and arrived.info == {}
    for reply in answered:
        assert isinstance(reply, Answered)
        assert reply.step.info == {} and reply.step.signals[0].value == 1.0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert "tests.own_keys_world:OwnKeys-v0: info['signals'] is one list" in "\n".join(said)
    assert "info['split'] is 'validation', and no split" in "\n".join(said)
