"""Does the same thing happen again?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from envs.check.subject import Failed, Skipped, Subject, check
from envs.episode import Episode, begin, difference, do_nothing, do_random, replay, take
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.signal import read_signals
from experience.step import Ending, Step
from experience.world import WorldCard

ROOT = Path(__file__).resolve().parent.parent.parent
_SECONDS = 600


@check
def seed_control(subject: Subject) -> str:
    """A seed names a task and its start; other seeds give others."""
    firsts = {seed: begin(subject.world, seed, subject.split) for seed in range(8)}
    again = {seed: begin(subject.world, seed, subject.split) for seed in range(8)}
    for seed, first in firsts.items():
        if (first.seen, first.task) != (again[seed].seen, again[seed].task):
            raise Failed(f"seed {seed} gave two different starts")
    tasks = len({e.task for e in firsts.values()})
    if tasks < 2:
        raise Failed("eight seeds gave one task")
    return f"8 seeds, {tasks} tasks"


@check
def episode_determinism(subject: Subject) -> str:
    """Seed and actions give the same observations, rewards and signals in another process."""
    return again_elsewhere(subject, [*subject.lived[:2], *subject.random[:2]])


@check
def network_policy(subject: Subject) -> str:
    """The same episodes happen where there is no network card."""
    bare = [*namespaces(), "--net"]  # loopback stays
    try:
        subprocess.run([*bare, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise Skipped(f"a network namespace cannot be made here: {error}") from error
    return (
        again_elsewhere(subject, subject.lived[:2], bare, "--loopback") + ", without a network card"
    )


def namespaces() -> list[str]:
    """The start of a command that runs another in new namespaces, as the same user with the same rights: in an own user
    namespace, whose capabilities the second process drops once it has set things up, where the user is not root."""
    return ["unshare", *([] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"])]


def again_elsewhere(
    subject: Subject, episodes: Sequence[Episode], prefix: Sequence[str] = (), *words: str
) -> str:
    """Lives `episodes` again in a second process. Raises Failed where they go otherwise."""
    theirs = elsewhere(subject, episodes, prefix, *words)["told"]
    for episode, again in zip(episodes, theirs, strict=True):
        if what := difference(episode.told, again):
            raise Failed(f"seed {episode.seed} and the same {len(episode.actions)} actions: {what}")
    steps = sum(len(e.actions) for e in episodes)
    return f"{len(episodes)} episodes, {steps} steps, the same in a second process"


def elsewhere(
    subject: Subject, episodes: Sequence[Episode], prefix: Sequence[str] = (), *words: str
) -> dict[str, Any]:
    """What a second process tells of the same episodes: `told`, one an episode; where it is asked for `--layer`, also
    `left`, the files that it left in the folders `layered`. Raises Failed where that process ends badly or hangs."""
    request = json.dumps(
        {
            "id": subject.env_id,
            "arguments": subject.arguments,
            "path": sys.path,
            "episodes": [asdict(e) for e in episodes],
        }
    )
    command = [*prefix, sys.executable, "-m", "envs.check", *words]
    with tempfile.TemporaryDirectory(prefix="xp-check-") as scratch:
        try:
            done = subprocess.run(
                command,
                input=request,
                cwd=ROOT,
                text=True,
                capture_output=True,
                timeout=_SECONDS,
                env=os.environ | {"TMPDIR": scratch},
            )
        except subprocess.TimeoutExpired as late:
            raise Failed(f"the second process did not end within {_SECONDS} s") from late
    if done.returncode:
        raise Failed(
            f"the second process ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    answer: dict[str, Any] = {"left": [], "layered": []}
    for line in done.stdout.splitlines():
        answer |= json.loads(line)
    return answer


@check
def episode_isolation(subject: Subject) -> str:
    """Two episodes that take turns equal the same two alone."""
    if len(subject.random) < 2:
        raise Skipped("two episodes are needed: raise --episodes")
    alone, other = subject.random[0], subject.random[1]
    second = subject.make()
    try:
        first_log = begin(subject.world, alone.seed, alone.split)
        second_log = begin(second, other.seed, other.split)
        for i in range(max(len(alone.actions), len(other.actions))):
            if i < len(alone.actions):
                take(subject.world, first_log, alone.actions[i])
            if i < len(other.actions):
                take(second, second_log, other.actions[i])
    finally:
        second.close()
    if what := difference(alone.told, first_log.told) or difference(other.told, second_log.told):
        raise Failed(f"an episode saw something of the other: {what}")
    return f"{len(alone.actions)} and {len(other.actions)} steps, in turns"


@check
def replayability(subject: Subject) -> str:
    """From its shard alone an episode happens again, with the same rewards bit for bit."""
    episode = subject.lived[0]
    steps = through_a_shard(subject, episode)
    again = replay(
        subject.world,
        {
            "seed": steps[0].seed,
            "split": steps[0].split,
            "actions": [s.decision.text for s in steps if s.decision],
        },
    )
    if not np.array_equal(again.rewards, episode.rewards, equal_nan=True):
        raise Failed(f"rewards {again.rewards} after replay, {episode.rewards} before")
    return f"{len(again.actions)} steps from the shard's actions"


@check
def snapshot_restore(subject: Subject) -> str:
    """Snapshot, 20 steps, restore, the same 20 steps: the same observations and signals."""
    if not WorldCard.of(subject.world).goes_back:
        raise Skipped("the world offers no snapshots")
    world, rng, steps = subject.world, np.random.default_rng(5), 0
    for seed in range(6):
        before = begin(world, seed, subject.split)
        take(world, before, do_nothing(world, rng))
        if before.ended:
            continue
        saved = world.snapshot()
        first = _go_on(subject, seed, [do_random(world, rng) for _ in range(20)])
        observation, _ = world.restore(saved)
        if observation != before.seen[-1]:
            raise Failed("what is seen after restore is not what was seen before")
        second = _go_on(subject, seed, first.actions)
        if what := difference(first.told, second.told):
            raise Failed(f"seed {seed} and the same {len(first.actions)} actions: {what}")
        steps += len(first.actions)
    if not steps:
        raise Skipped("no episode lasted beyond its first step")
    return f"{steps} steps twice"


def _go_on(subject: Subject, seed: int, actions: Sequence[str]) -> Episode:
    episode = Episode(seed, subject.split)
    for action in actions:
        if not episode.ended:
            take(subject.world, episode, action)
    return episode


def through_a_shard(subject: Subject, episode: Episode) -> list[Step]:
    """The episode's steps, written to a shard and read from it."""
    from experience.policy import Decision

    with tempfile.TemporaryDirectory(prefix="xp-check-") as scratch:
        journal = Journal(Path(scratch) / "checker", subject.catalogue)
        last = len(episode.actions) - 1
        for t, action in enumerate(episode.actions):
            ending: Ending = "none"
            if t == last and episode.ended:
                ending = "terminated" if episode.terminated else "truncated"
            journal.append(
                Step(
                    b"c" * 16,
                    t,
                    subject.env_id,
                    episode.seen[t],
                    seed=episode.seed,
                    split=episode.split,
                    task_id=episode.task,
                    decision=Decision(action, 0),
                    ending=ending,
                    signals=read_signals({"signals": episode.signals[t]}, subject.catalogue),
                )
            )
        journal.close()
        return [s for block in Catalog(Path(scratch)).follow() for s in block]
