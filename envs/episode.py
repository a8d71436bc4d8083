"""Episodes lived by hand: by the oracle, at random, by doing nothing, by a script; and what a step costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

Choose = Callable[[Any, np.random.Generator], str]
MOST_STEPS = 400


@dataclass
class Episode:
    """What happened from one reset to its end."""

    seed: int
    split: str
    actions: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    task: str = ""
    ended: bool = False
    terminated: bool = False

    @property
    def total(self) -> float:
        return float(np.nansum(self.rewards))

    @property
    def told(self) -> dict[str, list[str]]:
        """Everything that was seen and measured, as JSON, turn by turn."""
        return {name: [json.dumps(one, default=str) for one in getattr(self, name)]
                for name in ("seen", "rewards", "signals")}


def difference(told: Mapping[str, Sequence[str]], again: Mapping[str, Sequence[str]]) -> str:
    """Where the same episode first told something else, in words; nothing where it did not."""
    for name, before in told.items():
        for turn, (one, other) in enumerate(zip_longest(before, again[name], fillvalue="nothing")):
            if one != other:
                same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
                at = max(same - 20, 0)
                return f"{name} {turn}: …{one[at:at + 60]}… and then …{other[at:at + 60]}…"
    return ""


def do_oracle(world: Any, _: np.random.Generator) -> str:
    return str(world.oracle_action())


def do_random(world: Any, rng: np.random.Generator) -> str:
    return str(world.random_action(rng))


def do_nothing(_: Any, __: np.random.Generator) -> str:
    return "(nothing)"


def scripted(actions: Sequence[str]) -> Choose:
    """Those actions one after another, the last again and again."""
    left = list(actions)
    return lambda _world, _rng: left.pop(0) if len(left) > 1 else left[0]


def live(world: Any, seed: int, choose: Choose, split: str = "train", most: int = MOST_STEPS) -> Episode:
    episode, rng = begin(world, seed, split), np.random.default_rng(seed)
    while not episode.ended and len(episode.actions) < most:
        take(world, episode, choose(world, rng))
    return episode


def begin(world: Any, seed: int, split: str) -> Episode:
    observation, info = world.reset(seed=seed, options={"split": split})
    return Episode(seed, split, seen=[observation], task=str(info.get("task_id", seed)))


def take(world: Any, episode: Episode, action: str) -> None:
    observation, reward, terminated, truncated, info = world.step(action)
    episode.actions.append(action)
    episode.seen.append(observation)
    episode.rewards.append(float(reward))
    episode.signals.append(dict(info.get("signals", {"env_reward": float(reward)})))
    episode.ended, episode.terminated = bool(terminated or truncated), bool(terminated)


def replay(world: Any, log: Mapping[str, Any]) -> Episode:
    """The episode again, from its seed and actions alone."""
    episode = begin(world, log["seed"], log["split"])
    for action in log["actions"]:
        take(world, episode, action)
    return episode


def measure(world: Any, seconds: float = 2.0) -> dict[str, float]:
    """Wall time per step (p50, p99), resets per second, CPU time per step (resets and children included), memory of
    this process and its children: of random episodes lived for `seconds`."""
    import psutil

    me, rng = psutil.Process(), np.random.default_rng(0)
    steps: list[float] = []
    resets: list[float] = []
    cpu = _cpu(me)
    until, seed = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        started = time.perf_counter()
        world.reset(seed=seed, options={"split": getattr(world, "splits", ("train",))[0]})
        resets.append(time.perf_counter() - started)
        seed, done = seed + 1, False
        while not done and (time.perf_counter() < until + seconds or len(steps) < 3):  # however long a reset takes
            action = world.random_action(rng)
            started = time.perf_counter()
            _, _, terminated, truncated, _ = world.step(action)
            steps.append(time.perf_counter() - started)
            done = terminated or truncated
    spent = (_cpu(me) - cpu) / max(len(steps), 1)
    memory = sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]) / 2**20
    p50, p99 = np.quantile(steps, [0.5, 0.99]) * 1000
    return {"step_p50_ms": float(p50), "step_p99_ms": float(p99), "resets_per_second": float(1 / np.median(resets)),
            "cpu_ms_per_step": spent * 1000, "memory_mib": memory}


def _cpu(process: Any) -> float:
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with suppress(Exception):
            times = one.cpu_times()
            total += times.user + times.system
    return total
