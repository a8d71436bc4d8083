"""Episodes of a run: chosen, shown turn by turn, and replayed in their world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.reading.survey import Lived
from experience.errors import XpError
from experience.reward import RewardModel, context_of_step
from experience.signal import Signal, read_signals
from experience.step import WORLD_STEP, Boundary, Step
from experience.text.characters import readable


def choose(
    found: Sequence[Lived],
    *,
    world: str | None = None,
    split: str | None = None,
    version: int | None = None,
    best: int = 0,
    worst: int = 0,
    episode: int = -1,
) -> list[Lived]:
    """Closed episodes of `found`: the `best` and the `worst` by return, else the one at `episode`.

    `episode` counts in the order of endings; -1 is the last. Raises XpError if there is none.
    """
    left = [
        e
        for e in found
        if e.ending is not None
        and world in (None, e.env_id)
        and split in (None, e.split)
        and version in (None, e.version)
    ]
    ranked = sorted(
        (e for e in left if e.whole and e.total is not None), key=lambda e: -(e.total or 0.0)
    )
    if best or worst:
        chosen = [*ranked[:best], *ranked[max(len(ranked) - worst, 0) :]]
    else:
        chosen = left[episode:][:1] if -len(left) <= episode else []
    if not chosen:
        asked = ", ".join(
            f"{name} {value}"
            for name, value in (("world", world), ("split", split), ("version", version))
            if value is not None
        )
        of = f" of {asked}" if asked else ""
        raise XpError(
            f"none of the {len(left)} closed episodes{of} ({len(ranked)} of known return) "
            "is the one you asked for",
            "see: ./xp query RUN 'select * from episodes'",
        )
    return list(dict.fromkeys(chosen))


def relive(steps: Sequence[Step], world: Any, rewards: RewardModel) -> str:
    """The first difference when the episode is replayed from its seed and actions, or "".

    `rewards` computes the rewards of the replayed signals.
    """
    # Rewards of two versions differ by design: a comparison would blame the world.
    if steps[0].reward_version != rewards.version:
        return (
            f"its rewards are of version {steps[0].reward_version}, "
            f"and the run's configuration gives {rewards.version}: they cannot be compared"
        )
    if steps[0].boundary & Boundary.CONTINUES:
        return "it goes on where another segment of its stream stopped: a reset does not lead there"
    if any(WORLD_STEP in step.info for step in steps):
        return "it is one agent's part of an episode of several: a replay needs all their actions"
    observation, _ = world.reset(seed=steps[0].seed, options={"split": steps[0].split})
    for step in steps:
        if observation != step.obs_text:
            return f"turn {step.step_in_episode} shows something else"
        if step.decision is None:
            return ""
        # The row chose an option, or is a note: the world was not acted in.
        if step.is_aside:
            continue
        observation, given, _, _, info = world.step(step.decision.text)
        signals = answered(given, info, world)
        reward = rewards.reward(step.env_id, signals, context_of_step(step))
        if (reward is None) != (step.reward is None) or abs(
            (reward or 0.0) - (step.reward or 0.0)
        ) > 1e-9:
            return f"turn {step.step_in_episode} is worth {reward}, not {step.reward}"
    return ""


def answered(reward: float, info: Mapping[str, Any], world: Any) -> tuple[Signal, ...]:
    """What a world measured in a step, as a collector takes it."""
    if "signals" in info:
        return read_signals(info, world.signal_catalogue)
    return (Signal("env_reward", float(reward), "1", "env_state"),)


def described(step: Step) -> str:
    """A turn for reading: what was seen, done and measured, and what it was worth.

    Control characters are escaped, which could move the cursor of a terminal.
    """
    head = f"--- {step.env_id} turn {step.step_in_episode}, {step.task_id}\n{step.obs_text}"
    head = readable(head)
    if step.decision is None:
        return f"{head}\n    the episode's end: {step.ending}" + (
            f", {step.info['error']}" if "error" in step.info else ""
        )
    signals = "".join(
        f"  {s.name} {'unknown' if s.value is None else f'{s.value:g}'}" for s in step.signals
    )
    reward = "unknown" if step.reward is None else f"{step.reward:g}"
    return f"{head}\n> {readable(step.decision.text)}\n    reward {reward}{signals}"


def as_record(step: Step) -> dict[str, Any]:
    """The same as data."""
    return {
        "env_id": step.env_id,
        "stream": step.stream_id.hex(),
        "t": step.t,
        "task": step.task_id,
        "seed": step.seed,
        "split": step.split,
        "version": step.decision and step.decision.policy_version,
        "seen": step.obs_text,
        "action": step.decision and step.decision.text,
        "signals": {s.name: s.value for s in step.signals},
        "reward": step.reward,
        "ending": step.ending,
        "info": dict(step.info),
    }
