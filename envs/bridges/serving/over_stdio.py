"""`./xp env serve ID`: a world as an MCP server on stdin and stdout.

The operator chooses seeds and split by options, and reads the rewards in a file of theirs. The
model gets tools, observations and words, and chooses nothing but its actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.bridges.serving.play import Play, Turn
from envs.bridges.serving.tool_server import (
    as_action,
    check_tools,
    in_words,
    library,
    rules,
    tool_server,
)
from envs.bridges.serving.world_thread import ANSWER_SECONDS
from experience.errors import ConfigError, EnvironmentFailure
from experience.text.strict_json import dumps

NEW = "new_episode"
_FIRST = f"Call {NEW} to begin an episode, and again after its end."


@dataclass(frozen=True)
class Choices:
    """What the operator of a server chooses.

    seed: of the first episode; each later one has the next number. split: empty is the world's
    first one. episodes: how many a client may begin; 0 is any number. rewards: the file that gets a
    line of JSON for each turn. seconds: how long the world may take to answer.
    """

    seed: int = 0
    split: str = ""
    episodes: int = 0
    rewards: Path | None = None
    seconds: float = ANSWER_SECONDS


class Sitting:
    """The episodes of one client, one after another, and their record for the operator."""

    def __init__(self, make: Callable[[], Any], choices: Choices) -> None:
        self._make = make
        self._choices = choices
        self._begun = 0
        self.play = Play(make, choices.seconds)
        if choices.rewards is not None:
            self._write()  # fails now, not after an episode

    async def call(self, name: str, arguments: dict[str, Any]) -> Turn:
        """Begins an episode, or does an action of the one under way."""
        if name == NEW:
            return await self._begin(arguments)
        if self.play.ended:
            raise ValueError(f"no episode is under way: call {NEW} first")
        action = as_action(name, arguments)
        try:
            turn = await self.play.do(action)
        except Exception as error:
            raise self._failed(action, error) from error
        self._note(action, turn, _ending(turn))
        return turn

    async def _begin(self, arguments: dict[str, Any]) -> Turn:
        if arguments:
            raise ValueError(f"{NEW} takes no arguments: who serves the world chooses the episodes")
        if 0 < self._choices.episodes <= self._begun:
            raise ValueError(f"all {self._begun} episodes are over; there are no more")
        self.leave()
        if self.play.is_lost:
            self.play = Play(self._make, self._choices.seconds)
        seed = self._choices.seed + self._begun
        self._begun += 1
        try:
            return await self.play.begin(seed, self._choices.split)
        except Exception as error:
            raise self._failed("", error) from error

    def _failed(self, action: str, error: Exception) -> EnvironmentFailure:
        """Records a failure; returns what the model is told.

        A world's own message is for the operator: it may name what the task hides.
        """
        if self.play.is_lost:
            self._note(action, None, "timeout", str(error))
            return EnvironmentFailure(f"{in_words(error)}; the episode is over")
        self._note(action, None, "env_error", f"{type(error).__name__}: {error}")
        return EnvironmentFailure(
            f"the world failed ({type(error).__name__}), and the episode is over"
        )

    def leave(self) -> None:
        """Records that the client left the episode under way, if there is one."""
        if not self.play.ended:
            self._note("", None, "cancelled")

    def _note(self, action: str, turn: Turn | None, ending: str, error: str = "") -> None:
        if self._choices.rewards is None:
            return
        # A failed episode has no return: what it earned before is not what it would have earned.
        counts = turn is not None or ending == "cancelled"
        self._write(
            {
                "episode": self._begun,
                "seed": self._choices.seed + self._begun - 1,
                "split": self._choices.split or next(iter(self.play.about.splits), ""),
                "task_id": self.play.task_id,
                "turn": self.play.turns,
                "action": action,
                "reward": turn.reward if turn is not None else None,
                "signals": dict(turn.signals) if turn is not None else {},
                "tag": turn.tag if turn is not None else "",
                "late": dict(turn.late) if turn is not None else {},
                "return": self.play.reward if counts else None,
                "ending": ending,
                "error": error,
            }
        )

    def _write(self, record: dict[str, Any] | None = None) -> None:
        path = self._choices.rewards
        assert path is not None
        try:
            with path.open("a", encoding="utf-8") as file:
                if record is not None:
                    file.write(dumps(record) + "\n")
        except OSError as error:
            raise ConfigError(
                f"--rewards {path}: {error.strerror}", "name a file that can be written"
            ) from error


def _ending(turn: Turn) -> str:
    if turn.terminated:
        return "terminated"
    return "truncated" if turn.truncated else "none"


def serve(make: Callable[[], Any], answers: Any, choices: Choices | None = None) -> None:
    """Serves the world of `make` on stdin and `answers`, a text stream, until the client leaves.

    Raises ConfigError for a world without typed actions and for a split that it does not have.
    """
    asyncio.run(_serve(make, answers, choices or Choices()))


async def _serve(make: Callable[[], Any], answers: Any, choices: Choices) -> None:
    library()
    import anyio
    from mcp.server.stdio import stdio_server

    sitting = Sitting(make, choices)
    try:
        about = await sitting.play.look()
        check_tools(about)
        if choices.split and choices.split not in about.splits:
            raise ConfigError(
                f"--split {choices.split}: {about.name} has {' and '.join(about.splits)}",
                f"write --split {about.splits[0]}",
            )
        server = tool_server(
            about, sitting.call, rules(about, _FIRST), {NEW: "Begin an episode; shows its start."}
        )
        async with stdio_server(stdout=anyio.wrap_file(answers)) as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        sitting.leave()
        sitting.play.close()
