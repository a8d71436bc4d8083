"""Checks that a world can be learned from: its splits are disjoint, its steps fast enough."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import numpy as np

from envs.check.subject import Failed, Skipped, Subject, check
from envs.episode import Episode, begin, do_oracle, live, measure
from experience.world import WorldCard

_NONCE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}"  # a UUID
    r"|\b(?=\w*[0-9])(?=\w*[a-zA-Z])\w{6,}\b"  # letters and digits mixed
    r"|[#@]\w+"
)
"""Names and numbers by which copies of one task differ, though the task is the same."""
_STEP_SECONDS = 1.0
_SECONDS = 10.0


@check
def split_disjointness(subject: Subject) -> str:
    """No task is in both splits, neither under one name nor under two."""
    if WorldCard.of(subject.world).splits == ("heldout",):
        raise Skipped("held-out tasks only: for evaluation")
    train = set(_names(subject, "train"))
    held_out = set(_names(subject, "heldout"))
    if shared := train & held_out:
        raise Failed(f"{len(shared)} tasks are in both, e.g. {min(shared)[:60]!r}")
    twins = _under_two_names(subject)
    return f"{len(train)} training tasks, {len(held_out)} held out, none in both; {twins}"


def _names(subject: Subject, split: str) -> Iterator[str]:
    """The names of up to 200 tasks of `split`; of 20 if each needs a reset of the world."""
    world = subject.world
    draws = hasattr(world, "tasks")
    until = time.perf_counter() + _SECONDS
    for seed in range(200 if draws else 20):
        if time.perf_counter() > until:
            return
        if draws:
            yield str(world.signature(world.tasks(split, np.random.default_rng(seed))))
        else:
            yield begin(world, seed, split).task


def _under_two_names(subject: Subject) -> str:
    """Raises Failed if an oracle's episode is the same in both splits, apart from nonces."""
    try:
        held_out = {_lived(episode): episode for episode in subject.oracle}
    except Skipped:
        return "no oracle by which to know a task under another name"
    train = _oracle_in_training(subject)
    for episode in train:
        twin = held_out.get(_lived(episode))
        if twin is not None:
            raise Failed(
                f"training task {episode.task[:40]!r} is held-out task {twin.task[:40]!r} "
                "under another name: the same observations, actions and rewards, "
                f"e.g. {episode.seen[0][:40]!r}"
            )
    return f"{len(train)} of them lived by the oracle, none as a held-out one"


def _oracle_in_training(subject: Subject) -> Sequence[Episode]:
    episodes: list[Episode] = []
    until = time.perf_counter() + 4 * subject.seconds
    for seed in range(10_000, 10_000 + 2 * subject.episodes):
        if episodes and time.perf_counter() > until:
            break
        episodes.append(live(subject.world, seed, do_oracle, "train"))
    return episodes


def _lived(episode: Episode) -> str:
    """All observations, actions and rewards as one text, each nonce replaced by '*'."""
    return _NONCE.sub("*", repr((episode.seen, episode.actions, episode.rewards)))


@check
def resource_envelope(subject: Subject) -> str:
    """A step takes at most `step_seconds` at the median (1 s if the world declares nothing).

    Also measures what a step and a reset cost.
    """
    found = measure(subject.world)
    most = float(getattr(subject.world, "step_seconds", _STEP_SECONDS))
    if found["step_p50_ms"] > 1000 * most:
        raise Failed(
            f"a step takes {found['step_p50_ms'] / 1000:.2f} s at the median: "
            f"more than {most:g} s; mend it, or declare `step_seconds`"
        )
    return "; ".join(f"{name} {value:.3g}" for name, value in found.items())
