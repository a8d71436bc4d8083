"""Checks of worlds with several agents: what all of them together must keep."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from envs.check.subject import Failed, Skipped, Subject, check
from envs.contract import INVALID
from envs.episode import MOST_STEPS, actor_rng
from experience.several.agents import Agents, Told, agents_of, seat_of
from experience.world import random_action


@check
def agents_take_their_turns(subject: Subject) -> str:
    """Every agent is asked, may do what is drawn for it, is paid in signals that are declared, and
    ends once; the same seed and actions tell every agent the same."""
    world = subject.shared
    if world is None:
        raise Skipped("the world has one agent")
    agents = agents_of(world)
    asked = dict.fromkeys(agents, 0)
    steps = episodes = 0
    until = time.perf_counter() + subject.seconds
    for seed in range(subject.episodes):
        told = _live(subject, world, seed)
        if seed < 2 and repr(told) != repr(_live(subject, world, seed)):
            raise Failed(f"seed {seed} and the same actions told the agents two different things")
        for one in told:
            asked[one.agent] += one.is_asked
        steps += len(told)
        episodes += 1
        if time.perf_counter() > until:
            break
    if never := [agent for agent in agents if not asked[agent]]:
        raise Failed(f"{', '.join(never)} was never asked for an action")
    return f"{len(agents)} agents, {episodes} episodes, {steps} times told: {', '.join(agents)}"


def _live(subject: Subject, world: Any, seed: int) -> list[Told]:
    """All that the agents of one episode are told, while each acts at random."""
    all_of_them = Agents(type(world).__name__, agents_of(world))
    rng = actor_rng(seed)
    found = all_of_them.reset(world.reset(seed=seed, options={"split": subject.split}))
    for _ in range(MOST_STEPS):
        if all_of_them.is_over:
            return found
        told = all_of_them.step(world.step(_actions(world, all_of_them.asked, rng)))
        for one in told:
            _check(subject, one)
        found += told
    raise Skipped(f"an episode of random actions has not ended after {MOST_STEPS} steps")


def _actions(world: Any, asked: tuple[str, ...], rng: np.random.Generator) -> dict[str, str]:
    return {agent: random_action(seat_of(world, agent), rng) for agent in asked}


def _check(subject: Subject, one: Told) -> None:
    observation, _, _, _, info = one.answer
    if not subject.world.observation_space.contains(observation):
        raise Failed(f"{one.agent} saw {str(observation)[:80]!r}, outside the observation space")
    signals = info.get("signals", {})
    subject.measured(signals)
    if INVALID in signals:
        raise Failed(f"{one.agent}: an action drawn at random was refused: {signals[INVALID]}")
