"""Checks that the same seed and actions lead to the same episode, wherever it is repeated."""

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
    """A seed always gives the same task and start; other seeds give other tasks."""
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
    """The same seed and actions give the same observations, rewards, signals in a new process."""
    return again_elsewhere(subject, [*subject.lived[:2], *subject.random[:2]])


@check
def network_policy(subject: Subject) -> str:
    """The same episodes happen without a network card."""
    bare = [*namespaces(), "--net"]  # loopback stays
    try:
        subprocess.run([*bare, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise Skipped(f"a network namespace cannot be made here: {error}") from error
    repeated = again_elsewhere(subject, subject.lived[:2], bare, "--loopback")
    return f"{repeated}, without a network card"


def namespaces() -> list[str]:
    """The `unshare` prefix of a command that runs in new namespaces, as the same user.

    A user who is not root needs a user namespace of his own for that. Its capabilities last until
    the second process has set up the namespaces, and drops them.
    """
    if os.geteuid() == 0:
        return ["unshare"]
    return ["unshare", "--map-current-user", "--keep-caps"]


def again_elsewhere(
    subject: Subject, episodes: Sequence[Episode], prefix: Sequence[str] = (), *words: str
) -> str:
    """Repeats `episodes` in a second process. Raises Failed if one of them differs there."""
    transcripts = elsewhere(subject, episodes, prefix, *words)["transcripts"]
    for episode, transcript in zip(episodes, transcripts, strict=True):
        if what := difference(episode.transcript, transcript):
            raise Failed(f"seed {episode.seed} and the same {len(episode.actions)} actions: {what}")
    steps = sum(len(e.actions) for e in episodes)
    return f"{len(episodes)} episodes, {steps} steps, the same in a second process"


def elsewhere(
    subject: Subject, episodes: Sequence[Episode], prefix: Sequence[str] = (), *words: str
) -> dict[str, Any]:
    """The answer of a second process that repeats `episodes`; its command starts with `prefix`.

    The answer has `transcripts`, one for each episode. If `words` ask for `--layer`, it also has
    `left`, the files that the world left behind, and `layered`, the folders where these were looked
    for. Raises Failed if the process ends with an error or hangs.
    """
    request = json.dumps(
        {
            "id": subject.env_id,
            "arguments": subject.arguments,
            "path": sys.path,
            "episodes": [asdict(e) for e in episodes],
        }
    )
    # The second process gets our `sys.path` in the request: a world may lie anywhere on it.
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
    """Two episodes that run in turns equal the same two run alone."""
    if len(subject.random) < 2:
        raise Skipped("two episodes are needed: raise --episodes")
    alone, other = subject.random[:2]
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
    what = difference(alone.transcript, first_log.transcript)
    what = what or difference(other.transcript, second_log.transcript)
    if what:
        raise Failed(f"an episode saw something of the other: {what}")
    return f"{len(alone.actions)} and {len(other.actions)} steps, in turns"


@check
def replayability(subject: Subject) -> str:
    """An episode can be repeated from its shard alone, with bitwise equal rewards."""
    episode = subject.lived[0]
    steps = through_a_shard(subject, episode)
    actions = [s.decision.text for s in steps if s.decision]
    log = {"seed": steps[0].seed, "split": steps[0].split, "actions": actions}
    again = replay(subject.world, log)
    if not np.array_equal(again.rewards, episode.rewards, equal_nan=True):
        raise Failed(f"rewards {again.rewards} after replay, {episode.rewards} before")
    return f"{len(again.actions)} steps from the shard's actions"


@check
def snapshot_restore(subject: Subject) -> str:
    """After a restore, the same 20 actions give the same observations and signals."""
    if not WorldCard.of(subject.world).goes_back:
        raise Skipped("the world offers no snapshots")
    world = subject.world
    rng = np.random.default_rng(5)
    steps = 0
    for seed in range(6):
        before = begin(world, seed, subject.split)
        # A step first: a `restore` that only resets the world would pass at the start.
        take(world, before, do_nothing(world, rng))
        if before.ended:
            continue
        saved = world.snapshot()
        first = _go_on(subject, seed, [do_random(world, rng) for _ in range(20)])
        observation, _ = world.restore(saved)
        if observation != before.seen[-1]:
            raise Failed("what is seen after restore is not what was seen before")
        second = _go_on(subject, seed, first.actions)
        if what := difference(first.transcript, second.transcript):
            raise Failed(f"seed {seed} and the same {len(first.actions)} actions: {what}")
        steps += len(first.actions)
    if not steps:
        raise Skipped("no episode lasted beyond its first step")
    return f"{steps} steps twice"


def _go_on(subject: Subject, seed: int, actions: Sequence[str]) -> Episode:
    """The log of `actions`, done from the world's present state, without a reset."""
    episode = Episode(seed, subject.split)
    for action in actions:
        if not episode.ended:
            take(subject.world, episode, action)
    return episode


def through_a_shard(subject: Subject, episode: Episode) -> list[Step]:
    """The episode's steps, after they were written to a shard and read back."""
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
                    step_in_episode=t,
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
