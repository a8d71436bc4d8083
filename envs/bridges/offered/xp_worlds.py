"""Our worlds as a taskset of verifiers: vf-eval xp-worlds --env.taskset.world envs:KeyDoor-v0

The world plays the user: each reply of the model is an action, and the next observation is the
user's next turn. The trace holds the sum of the steps' rewards and the total of each signal.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import verifiers.v1 as vf

_ROOT = str(Path(__file__).resolve().parents[3])


class XpData(vf.TaskData):
    world: str
    arguments: dict[str, Any]
    split: str
    seed: int


class XpTask(vf.Task[XpData]):
    """A seed of a world."""


class XpConfig(vf.TasksetConfig):
    world: str = "envs:KeyDoor-v0"
    """Any Gymnasium id with text in and out."""
    arguments: dict[str, Any] = {}
    split: str = "train"
    num_tasks: int = 100


class XpEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


def _made(data: XpData) -> Any:
    import gymnasium

    if _ROOT not in sys.path:
        sys.path.insert(0, _ROOT)
    return gymnasium.make(data.world, **data.arguments).unwrapped


class XpEnv(vf.Env[XpEnvConfig]):
    async def run(self, task: XpTask, agents: Any) -> None:
        world = await asyncio.to_thread(_made, task.data)
        total = 0.0
        signals = dict[str, float]()
        try:
            # In threads: a world's step may take seconds, and other rollouts share this loop.
            seen, _ = await asyncio.to_thread(
                world.reset, seed=task.data.seed, options={"split": task.data.split}
            )
            async with agents.player.interaction(task) as interaction:
                segment = await interaction.turn(f"{world.instructions}\n\n{seen}")
                while not segment.terminated:
                    seen, reward, terminated, truncated, info = await asyncio.to_thread(
                        world.step, segment.last_reply
                    )
                    total += 0.0 if reward != reward else reward  # NaN: the reward is unknown
                    for name, value in info["signals"].items():
                        number = value[0] if isinstance(value, tuple) else value
                        signals[name] = signals.get(name, 0.0) + float(number or 0)
                    if terminated or truncated:
                        break
                    segment = await interaction.turn(seen)
        finally:
            await asyncio.to_thread(world.close)
        # A failure of the model or of its harness is no reward of 0: the trace stays without one.
        if interaction.trace.errors:
            return
        interaction.trace.record_reward("xp_reward", total)
        interaction.trace.record_metrics(signals)


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
                ),
                config.task,
            )


__all__ = ["XpEnv", "XpTaskset"]
