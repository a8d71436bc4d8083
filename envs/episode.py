"""Runs one episode of a world with a simple actor (oracle, random, no-op, script); times its steps.

For checks and commands that examine a world without a policy or a store.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from types import FrameType
from typing import Any

import numpy as np

from experience.answers import reset_parts, step_parts
from experience.errors import EnvironmentFailure
from experience.world import WorldCard
from experience.world import random_action as do_random

Choose = Callable[[Any, np.random.Generator], str]
MOST_STEPS = 400
ANSWER_SECONDS = 120.0
"""How long one reset or step may take before the world counts as hung."""
_ACTOR = 0xAC7
"""Mixed into the seed of an actor, so that it never shares random numbers with the world."""
_OURS = frozenset({"signals", "late", "tag", "task_id", "split", "state", "images"})
"""Keys of `info` that the framework reads; all other keys are the world's own."""


@dataclass
class Episode:
    """The log of one episode: `seen` has one entry more than `actions`, the other lists one each.

    `aside` is the first `info` as JSON, without the keys that the framework reads. `outside` holds
    the observations that lie outside their declared space.
    """

    seed: int
    split: str
    actions: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    task: str = ""
    aside: str = ""
    outside: list[str] = field(default_factory=list)
    ended: bool = False
    terminated: bool = False

    @property
    def total(self) -> float:
        return float(np.nansum(self.rewards))

    def ending_at(self, turn: int) -> str:
        """How the episode ended with that turn; "none" where it went on."""
        if not self.ended or turn < len(self.actions) - 1:
            return "none"
        return "terminated" if self.terminated else "truncated"

    @property
    def transcript(self) -> dict[str, list[str]]:
        """All observations, rewards and signals, each turn as JSON."""
        return {name: _as_json(getattr(self, name)) for name in ("seen", "rewards", "signals")}


def _as_json(values: Sequence[Any]) -> list[str]:
    return [json.dumps(value, default=str) for value in values]


def difference(first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]) -> str:
    """The first difference between two transcripts, in words; empty if they are equal."""
    for name, before in first.items():
        turns = zip_longest(before, second[name], fillvalue="nothing")
        for turn, (one, other) in enumerate(turns):
            if one != other:
                at = max(_equal_characters(one, other) - 20, 0)
                return f"{name} {turn}: …{one[at : at + 60]}… and then …{other[at : at + 60]}…"
    return ""


def _equal_characters(one: str, other: str) -> int:
    """The number of characters before the first difference; 0 if one text starts the other."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), 0)


def do_oracle(world: Any, _: np.random.Generator) -> str:
    return str(world.oracle_action())


def do_nothing(_: Any, __: np.random.Generator) -> str:
    return "(nothing)"


def scripted(actions: Sequence[str]) -> Choose:
    """An actor that does `actions` in order, and then repeats the last one."""
    left = list(actions)
    return lambda _world, _rng: left.pop(0) if len(left) > 1 else left[0]


def actor_rng(seed: int) -> np.random.Generator:
    """Random numbers for the actor in the episode of `seed`, independent of the world's.

    The world seeds its own with `seed` alone: an actor with the same numbers would draw the task's
    secret.
    """
    return np.random.default_rng([seed, _ACTOR])


def live(
    world: Any, seed: int, choose: Choose, split: str = "train", most: int = MOST_STEPS
) -> Episode:
    """The log of one episode, in which `choose` picks each action; at most `most` steps, and of an
    endless world one segment."""
    most = min(most, WorldCard.of(world).segment_turns or most)
    episode = begin(world, seed, split)
    rng = actor_rng(seed)
    while not episode.ended and len(episode.actions) < most:
        take(world, episode, choose(world, rng))
    return episode


@contextmanager
def answering(what: str, seconds: float = ANSWER_SECONDS) -> Iterator[None]:
    """Raises EnvironmentFailure if the body takes longer than `seconds`.

    A signal (SIGALRM) interrupts the main thread. In another thread, or in a call that never
    returns to Python, there is no deadline.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise EnvironmentFailure(
            f"{what} did not answer within {seconds:g} s",
            "a world must answer, or raise EnvironmentFailure itself",
        )

    # A program that embeds us may use SIGALRM too: its handler is put back at the end.
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def begin(world: Any, seed: int, split: str) -> Episode:
    """A new episode, after its reset.

    Raises EnvironmentFailure if `reset` hangs or does not answer as Gymnasium's does.
    """
    with answering("reset", _deadline(world)):
        answer = world.reset(seed=seed, options={"split": split})
    observation, info = reset_parts(_name(world), answer)
    aside = {name: value for name, value in info.items() if name not in _OURS}
    episode = Episode(
        seed,
        split,
        seen=[observation],
        task=str(info.get("task_id", seed)),
        aside=json.dumps(aside, default=str) if aside else "",
    )
    _compare_with_space(world, episode)
    return episode


def take(world: Any, episode: Episode, action: str) -> None:
    """Does one step and adds it to `episode`.

    Raises EnvironmentFailure if `step` hangs or does not answer as Gymnasium's does.
    """
    with answering("step", _deadline(world)):
        answer = world.step(action)
    observation, reward, terminated, truncated, info = step_parts(_name(world), answer)
    episode.actions.append(action)
    episode.seen.append(observation)
    episode.rewards.append(float(reward))
    episode.signals.append(dict(info.get("signals", {"env_reward": float(reward)})))
    episode.ended = bool(terminated or truncated)
    episode.terminated = bool(terminated)
    _compare_with_space(world, episode)


def _deadline(world: Any) -> float:
    own = getattr(world, "deadline_seconds", None)
    return float(own) if isinstance(own, int | float) and own > 0 else ANSWER_SECONDS


def _name(world: Any) -> str:
    spec = getattr(world, "spec", None)
    return str(spec.id) if spec is not None else type(world).__name__


def _compare_with_space(world: Any, episode: Episode) -> None:
    """Adds the newest observation to `outside` if it lies outside its declared space.

    If the world shows another environment as text, that environment's own observation is compared
    with its own space too.
    """
    inner = getattr(world, "inner", None)
    raw = getattr(world, "_seen_inside", None)
    if not world.observation_space.contains(episode.seen[-1]):
        episode.outside.append(repr(episode.seen[-1])[:80])
    elif inner is not None and raw is not None and not inner.observation_space.contains(raw):
        episode.outside.append(f"{str(raw)[:60]} is outside {inner.observation_space}"[:160])


def replay(world: Any, log: Mapping[str, Any]) -> Episode:
    """The episode of `log` again, from its seed, split and actions alone."""
    episode = begin(world, log["seed"], log["split"])
    for action in log["actions"]:
        take(world, episode, action)
    return episode


def measure(world: Any, seconds: float = 2.0) -> dict[str, float]:
    """The cost of random episodes that run for `seconds`.

    Wall time per step (p50, p99); resets per second; CPU time per step, including resets and child
    processes; memory of this process and its children.
    """
    import psutil

    me = psutil.Process()
    rng = actor_rng(0)
    splits = WorldCard.of(world).splits
    steps: list[float] = []
    resets: list[float] = []
    cpu = _cpu(me)
    seed = 0
    until = time.perf_counter() + seconds
    # One deadline for all: to set one for each step would cost more than a fast world's step.
    with answering("measuring", 10 * seconds + 5 * ANSWER_SECONDS):
        while time.perf_counter() < until:
            started = time.perf_counter()
            world.reset(seed=seed, options={"split": splits[0]})
            resets.append(time.perf_counter() - started)
            seed += 1
            done = False
            # However long a reset takes, at least three steps are measured.
            while not done and (time.perf_counter() < until + seconds or len(steps) < 3):
                action = do_random(world, rng)  # before the clock starts: the actor's own time
                started = time.perf_counter()
                _, _, terminated, truncated, _ = world.step(action)
                steps.append(time.perf_counter() - started)
                done = terminated or truncated
    spent = (_cpu(me) - cpu) / max(len(steps), 1)
    memory = sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]) / 2**20
    p50, p99 = np.quantile(steps, [0.5, 0.99]) * 1000
    return {
        "step_p50_ms": float(p50),
        "step_p99_ms": float(p99),
        "resets_per_second": float(1 / np.median(resets)),
        "cpu_ms_per_step": spent * 1000,
        "memory_mib": memory,
    }


def _cpu(process: Any) -> float:
    """CPU seconds that a process and its children have used."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with suppress(Exception):  # a child may end before it is asked
            times = each.cpu_times()
            total += times.user + times.system
    return total
