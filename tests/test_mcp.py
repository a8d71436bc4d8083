"""Worlds over MCP, with the real library on both ends: one of ours served, a server's tools acted
on as a world."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

pytest.importorskip("mcp", reason="./xp setup worlds")

from mcp import ClientSession, StdioServerParameters, stdio_client

from experience.errors import EnvironmentFailure
from tests.served_worlds import Jars

ROOT = Path(__file__).resolve().parent.parent
JARS = "tests.served_worlds:Jars-v0"
SERVE = ["-m", "envs", "serve", JARS]


class Client:
    """The official client, and what its calls are answered with."""

    def __init__(self, session: ClientSession, instructions: str | None) -> None:
        self.session = session
        self.instructions = instructions

    async def call(self, name: str, **arguments: Any) -> tuple[str, bool]:
        answer = await self.session.call_tool(name, arguments)
        text = "".join(getattr(part, "text", "") for part in answer.content)
        return text, bool(answer.is_error)


def with_client(talk: Any, *options: str) -> Any:
    """What `talk(client)` returns, with a server of its own."""

    async def live() -> Any:
        server = StdioServerParameters(
            command=sys.executable, args=[*SERVE, *options], cwd=str(ROOT)
        )
        with Path("/dev/null").open("w") as errors:
            async with (
                stdio_client(server, errors) as (read, write),
                ClientSession(read, write) as session,
            ):
                begun = await session.initialize()
                return await talk(Client(session, begun.instructions))

    return asyncio.run(asyncio.wait_for(live(), 60))


def right_jar(seed: int, split: str) -> tuple[str, int]:
    """(the first observation, the task) of a seed in this process."""
    world = Jars()
    seen, _ = world.reset(seed=seed, options={"split": split})
    return seen, world.task


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_operator_chooses_the_tasks_and_reads_the_rewards_which_the_model_does_not(
    tmp_path: Path,
) -> None:
    async def talk(client: Client) -> list[Any]:
        listed = (await client.session.list_tools()).tools
        seen = [await client.call("new_episode")]
        seen.append(await client.call("open", jar=right_jar(7, "heldout")[1]))
        seen.append(await client.call("open", jar=1))
        seen.append(await client.call("new_episode"))
        seen.append(await client.call("weigh"))
        return [client.instructions, listed, seen]

    kept = tmp_path / "rewards.jsonl"
    options = ["--seed", "7", "--split", "heldout", "--rewards", str(kept)]
    instructions, listed, seen = with_client(talk, *options)
    assert "new_episode" in instructions and "Open the right jar of 50." in instructions
    (begin,) = (tool for tool in listed if tool.name == "new_episode")
    assert begin.input_schema["properties"] == {}, "nothing to choose"
    assert [failed for _, failed in seen] == [False, False, True, False, False]
    texts = [text for text, _ in seen]
    assert texts[0] == right_jar(7, "heldout")[0]
    assert texts[1].endswith("(the episode has ended)") and "new_episode" in texts[2]
    for hidden in ("reward", "signal", "heldout", "seed", "null"):
        assert not any(hidden in text for text in texts), hidden

    solved, weighed, left = lines_of(kept)
    assert (solved["seed"], solved["split"], solved["reward"]) == (7, "heldout", 1.0)
    assert (solved["return"], solved["ending"]) == (1.0, "terminated")
    assert (weighed["episode"], weighed["seed"], weighed["ending"]) == (2, 8, "none")
    assert weighed["reward"] is None and weighed["return"] is None, "unknown, never 0"
    assert weighed["signals"] == {"weight": None}
    assert (left["episode"], left["ending"], left["return"]) == (2, "cancelled", None)


def test_a_model_that_asks_for_a_seed_or_a_split_is_refused_in_words() -> None:
    async def talk(client: Client) -> list[tuple[str, bool]]:
        asked = [await client.call("new_episode", seed=3)]
        asked.append(await client.call("new_episode", split="heldout"))
        asked += [await client.call("new_episode") for _ in range(3)]
        return asked

    answers = with_client(talk, "--episodes", "2")
    assert [failed for _, failed in answers] == [True, True, False, False, True]
    assert "takes no arguments" in answers[0][0] and "no more" in answers[4][0]


def test_every_failure_is_an_answer_in_words_and_the_next_episode_goes_on(tmp_path: Path) -> None:
    async def talk(client: Client) -> dict[str, tuple[str, bool]]:
        said = {"early": await client.call("look")}
        await client.call("new_episode")
        said["unknown"] = await client.call("dance")
        said["missing"] = await client.call("open")
        said["outside"] = await client.call("open", jar=50)
        said["fallen"] = await client.call("fall")
        said["after"] = await client.call("look")
        await client.call("new_episode")
        said["hung"] = await client.call("wait", seconds=30.0)
        said["again"] = await client.call("new_episode")
        said["alive"] = await client.call("look")
        return said

    kept = tmp_path / "rewards.jsonl"
    said = with_client(talk, "--deadline", "0.5", "--rewards", str(kept))
    words = {
        "early": "call new_episode first",
        "unknown": "no tool dance",
        "missing": "write: open jar",
        "outside": "jar from 0 to 49",
        "fallen": "the world failed (KeyError)",
        "after": "call new_episode first",
        "hung": "did not answer within 0.5 s",
    }
    for name, expected in words.items():
        text, failed = said[name]
        assert failed and expected in text and "Traceback" not in text, (name, text)
    assert not said["again"][1] and not said["alive"][1], "a new world for the next episode"
    endings = [(line["ending"], line["reward"]) for line in lines_of(kept)]
    assert endings == [
        ("none", -0.1),
        ("none", -0.1),
        ("env_error", None),
        ("timeout", None),
        ("none", 0.0),
        ("cancelled", None),
    ]
    assert f"jar {right_jar(0, 'train')[1]}" in lines_of(kept)[2]["error"], "for the operator"
    assert said["fallen"][0] == "the world failed (KeyError), and the episode is over"


def test_a_picture_of_the_world_is_part_of_the_answer() -> None:
    async def talk(client: Client) -> Any:
        await client.call("new_episode")
        return (await client.session.call_tool("look", {})).content

    text, picture = with_client(talk)
    assert text.text == "jars 0 to 49; look: red"
    assert picture.type == "image" and picture.mime_type == "image/png"


def test_what_an_operator_writes_wrongly_is_said_before_anything_is_served(tmp_path: Path) -> None:
    from envs.bridges.serving.over_stdio import Choices, serve
    from experience.errors import ConfigError

    with pytest.raises(ConfigError, match="--split gold: Jars has train and heldout"):
        serve(Jars, None, Choices(split="gold"))
    with pytest.raises(ConfigError, match=r"--rewards .*: No such file"):
        serve(Jars, None, Choices(rewards=tmp_path / "none" / "x"))
    with pytest.raises(ConfigError, match="no typed actions"):
        serve(lambda: gymnasium.make("envs:KeyDoor-v0").unwrapped, None)


def test_a_world_that_cannot_be_made_is_said_without_a_traceback() -> None:
    command = [sys.executable, "-m", "envs", "serve", "envs:Jars-v0"]
    done = subprocess.run(command, cwd=ROOT, input="", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert "envs:Jars-v0 is not registered" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(ROOT)
    server = [sys.executable, *SERVE, "--seed", "3"]
    made = gymnasium.make("envs:Mcp-v0", command=server, task="begin an episode").unwrapped
    yield made
    made.close()


def test_a_servers_tools_are_a_world_whose_reward_is_unknown_without_a_checker(world: Any) -> None:
    world.reset(seed=0)
    assert "new_episode" in world.instructions and "open" in world.instructions
    seen, *_ = world.step("new_episode {}")
    assert seen == right_jar(3, "train")[0]
    seen, reward, *_, info = world.step(f'open {{"jar": {right_jar(3, "train")[1]}}}')
    assert seen.endswith("(the episode has ended)")
    assert reward != reward and info["signals"]["score"] is None, "nobody measured it"


def test_what_a_server_does_not_take_is_told(world: Any) -> None:
    world.reset(seed=0)
    seen, _, _, _, info = world.step('open {"jar": 1}')
    assert "new_episode first" in seen and info["signals"]["tool_errors"] == 1.0
    for nonsense in ("dance {}", "open [1]", "open {"):
        _, _, _, _, info = world.step(nonsense)
        assert "invalid_action" in info["signals"]


def test_a_checker_that_says_nan_leaves_the_score_unknown() -> None:
    from envs.bridges.mcp_server import _score

    assert _score("NaN") is None and _score('{"score": Infinity}') is None
    assert _score('{"score": 0.5}') == 0.5


def test_a_server_that_cannot_be_started_is_an_environment_failure() -> None:
    with pytest.raises(EnvironmentFailure, match="could not be reached"):
        gymnasium.make("envs:Mcp-v0", command=[sys.executable, "-c", "print('no server')"])
