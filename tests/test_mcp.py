"""Worlds over MCP, with the real library on both ends: one of ours served, a server's tools acted
on as a world."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

pytest.importorskip("mcp", reason="./xp setup worlds")

ROOT = Path(__file__).resolve().parent.parent
SERVER = [sys.executable, "-m", "actors", "env", "serve", "envs:Reasoning-v0"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("reasoning_gym", reason="./xp setup worlds")
    monkeypatch.chdir(ROOT)
    made = gymnasium.make("envs:Mcp-v0", command=SERVER, task="begin an episode").unwrapped
    yield made
    made.close()


def test_our_world_is_a_server_and_a_servers_tools_are_a_world(world: Any) -> None:
    world.reset(seed=0)
    assert "new_episode" in world.instructions and "answer" in world.instructions
    seen, *_ = world.step('new_episode {"seed": 3}')
    question = json.loads(seen)["seen"]
    ours = gymnasium.make("envs:Reasoning-v0").unwrapped
    assert ours.reset(seed=3)[0] == question, "the same task as in this process"
    seen, *_ = world.step("answer " + json.dumps({"text": ours.oracle_action().partition(" ")[2]}))
    told = json.loads(seen)
    assert told["reward"] == 1.0 and told["terminated"] and told["signals"]["score"] == 1.0


def test_what_a_server_does_not_take_is_told(world: Any) -> None:
    world.reset(seed=0)
    seen, _, _, _, info = world.step('answer {"text": "1"}')
    assert "new_episode first" in seen and info["signals"]["tool_errors"] == 1.0
    for nonsense in ("dance {}", "answer [1]", "answer {"):
        _, _, _, _, info = world.step(nonsense)
        assert "invalid_action" in info["signals"]


def test_a_server_that_cannot_be_started_is_an_environment_failure() -> None:
    from experience.errors import EnvironmentFailure

    with pytest.raises(EnvironmentFailure, match="could not be reached"):
        gymnasium.make("envs:Mcp-v0", command=[sys.executable, "-c", "print('no server')"])
