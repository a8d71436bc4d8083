"""Our worlds as a taskset of verifiers: vf-eval xp-worlds --env.taskset.world envs:KeyDoor-v0

The world plays the user: each reply of the model is an action, and the next observation is the
user's next turn. Typed actions of a world are tools of the model, too. The model gets no other
tool: the default harness is verifiers' `null`, not its `bash`.

The trace holds the sum of the steps' rewards, and the total of each signal. If a part of the
reward is unknown, or the world failed, the trace is marked as failed and has no reward:
verifiers counts a reward that is missing as 0, unless the trace has an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
import verifiers.v1 as vf
from verifiers.v1.mcp import SharedToolServer
from verifiers.v1.runtimes import SubprocessConfig

_ROOT = str(Path(__file__).resolve().parents[3])
# This checkout is no package of that Python: only this folder is installed there.
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from envs.bridges.serving.play import Play, Turn  # noqa: E402  only after the path
from envs.bridges.serving.tool_server import (  # noqa: E402
    as_action,
    rules,
    tool_server,
)
from envs.make import make_as_text  # noqa: E402
from experience.errors import EnvironmentFailure  # noqa: E402

_REWARD = "xp_reward"


class RewardUnknown(Exception):
    """A part of the episode's reward could not be measured."""


class XpData(vf.TaskData):
    world: str
    arguments: dict[str, Any]
    split: str
    seed: int
    deadline_seconds: float


class XpTask(vf.Task[XpData]):
    """A seed of a world."""

    game: Game | None = None
    """The episode of one rollout: rollouts of the same seed have copies of the task."""

    @vf.stop
    async def world_is_over(self, trace: vf.Trace) -> bool:
        """After the end of the episode the model is not asked for another reply."""
        return self.game is not None and self.game.is_over


class XpConfig(vf.TasksetConfig):
    world: str = "envs:KeyDoor-v0"
    """Any Gymnasium id; a world that is not text is shown by envs:Text-v0."""
    arguments: dict[str, Any] = {}
    split: str = "train"
    num_tasks: int = 100
    deadline_seconds: float = 120.0
    """How long a reset or a step may take, unless the world says it itself."""


class XpEnvConfig(vf.EnvConfig):
    # `null` runs nothing of the model's, so that a process of this machine is place enough.
    # verifiers' own default, `bash`, would give the model a shell there.
    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})


class Game:
    """The episode of one rollout, and what went wrong in it."""

    def __init__(self, data: XpData) -> None:
        self.play = Play(lambda: make_as_text(data.world, data.arguments)[2], data.deadline_seconds)
        self.failure: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.play.ended

    async def say(self, text: str) -> Turn:
        """Does what the model wrote."""
        try:
            return await self.play.do(text)
        except Exception as error:
            self.failure = error
            raise

    async def call(self, name: str, arguments: dict[str, Any]) -> Turn:
        """Does a tool call of the model."""
        if self.is_over:
            raise ValueError("the episode has ended")
        try:
            return await self.say(as_action(name, arguments))
        except Exception as error:
            # A world's own message may name what the task hides: the trace has it, not the model.
            raise EnvironmentFailure("the world failed, and the episode is over") from error


class XpEnv(vf.Env[XpEnvConfig]):
    async def run(self, task: XpTask, agents: Any) -> None:
        game = Game(task.data)
        task = task.with_data()
        task.game = game
        try:
            start = await game.play.begin(task.data.seed, task.data.split)
            local = isinstance(agents.player.runtime_config, SubprocessConfig)
            async with _tools(game, local) as tools:
                await _played(game, task, agents.player, start, tools)
        finally:
            game.play.close()


async def _played(game: Game, task: XpTask, player: Any, start: Turn, tools: Any) -> None:
    about = game.play.about
    first = rules(about) if tools else about.instructions
    async with player.interaction(task, tools=tools) as interaction:
        segment = await interaction.turn(f"{first}\n\n{start.seen}".lstrip())
        while not (segment.terminated or game.is_over):
            turn = await game.say(segment.last_reply)
            if not turn.ended:
                segment = await interaction.turn(turn.seen)
        if game.failure is not None:
            raise game.failure
    _record(interaction.trace, game.play)


def _record(trace: vf.Trace, play: Play) -> None:
    trace.metrics |= play.signals
    # A failure of the model or of its harness is no reward of 0: the trace stays without one.
    if trace.errors:
        return
    if play.reward is None:
        trace.rewards[_REWARD] = None
        unknown = ", ".join(name for name, value in play.signals.items() if value is None)
        trace.record_error(RewardUnknown(f"a part of the reward is unknown: {unknown}"))
        return
    trace.record_reward(_REWARD, play.reward)


class _Web(uvicorn.Server):
    """A server among others of this process: signals are for verifiers."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def _tools(game: Game, local: bool) -> AsyncIterator[dict[str, SharedToolServer]]:
    """The world's typed actions as a tool server; none for a world without such actions, and none
    for a harness on another machine, which writes its actions as text."""
    if not game.play.about.tools or not local:
        yield {}
        return
    # A path that nobody guesses: other programs of this machine reach the port as well.
    path = f"/{secrets.token_urlsafe(16)}/mcp"
    server = tool_server(game.play.about, game.call, rules(game.play.about))
    app = server.streamable_http_app(
        streamable_http_path=path, json_response=True, stateless_http=True
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        web = _Web(uvicorn.Config(app, log_level="critical"))
        serving = asyncio.create_task(web.serve(sockets=[listening]))
        try:
            # Without a name, tools have no prefix; `external`: verifiers adds nothing to the address.
            url = f"http://127.0.0.1:{port}{path}"
            yield {"": SharedToolServer(url=url, local=True, external=True)}
        finally:
            web.should_exit = True
            await serving


class XpTaskset(vf.Taskset[XpTask, XpConfig]):
    def load(self) -> Iterator[XpTask]:
        config = self.config
        for seed in range(config.num_tasks):
            yield XpTask(
                XpData(
                    name=f"{config.world}#{seed}",
                    world=config.world,
                    arguments=config.arguments,
                    split=config.split,
                    seed=seed,
                    deadline_seconds=config.deadline_seconds,
                ),
                config.task,
            )


__all__ = ["XpEnv", "XpTaskset"]
