"""Our worlds behind OpenEnv's own server: a thread for each session's world, a deadline, and null
for what is unknown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

from experience.errors import EnvironmentFailure
from tests.conftest import free_port
from tests.test_bridges import peer, served

JARS = "tests.served_worlds:Jars-v0"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    python = peer("openenv")
    process = served([python, "-m", "envs.bridges.open_env", JARS, str(port), "3"], port)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def world(url: str) -> Iterator[Any]:
    made = gymnasium.make("envs:OpenEnv-v0", url=url).unwrapped
    made.reset(seed=0)
    yield made
    made.close()


def test_an_unknown_reward_reaches_openenvs_client_as_null(world: Any) -> None:
    _, reward, *_, info = world.step("weigh")
    assert reward != reward and info["signals"] == {"env_reward": None}
    assert world._answer["observation"]["metadata"]["signals"] == {"weight": None}
    assert world.step("look")[1] == 0.0, "this one was measured"


def test_a_world_that_hangs_is_told_in_words_while_other_sessions_go_on(
    world: Any, url: str
) -> None:
    failed: list[EnvironmentFailure] = []

    def hang() -> None:
        try:
            world.step("wait 60")
        except EnvironmentFailure as failure:
            failed.append(failure)

    hanging = threading.Thread(target=hang)
    hanging.start()
    other = gymnasium.make("envs:OpenEnv-v0", url=url).unwrapped
    other.reset(seed=1)
    assert other.step("look")[0].endswith("look: red")
    other.close()
    assert not failed, "the other session did not wait for the one that hangs"
    began = time.monotonic()
    hanging.join(30)
    assert time.monotonic() - began < 20
    assert "step did not answer within 3 s" in str(failed[0])
    world.reset(seed=2)
    assert world.step("look")[0].endswith("look: red"), "the session has a new world"
