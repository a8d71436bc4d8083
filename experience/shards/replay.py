"""Replay: which stored steps a learner sees, and the bound on how far collecting may run ahead of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from experience.errors import ShardError
from experience.step import FAILED, Boundary, Source, Step


@dataclass(frozen=True)
class Episode:
    """The successive answered turns of one episode, and the closing row if it was reached."""

    steps: tuple[Step, ...]
    closing: Step | None

    @property
    def first(self) -> Step:
        return self.steps[0]

    @property
    def total_reward(self) -> float | None:
        """Sum of the rewards, None if any is unknown."""
        rewards = [s.reward for s in self.steps]
        return None if any(r is None for r in rewards) else float(sum(r for r in rewards if r is not None))

    @property
    def failed(self) -> bool:
        return self.steps[-1].ending in FAILED


@dataclass(frozen=True)
class Group:
    """Episodes of the same task from the same start: what a group baseline is taken over."""

    group_id: str
    episodes: tuple[Episode, ...]

    @property
    def oldest_version(self) -> int:
        return min(s.decision.policy_version for e in self.episodes for s in e.steps if s.decision)


@dataclass
class Dropped:
    """Experience that learning left out, by reason. Nothing is dropped without being counted here."""

    stale: int = 0
    failed: int = 0
    unknown_reward: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)


class Replay:
    """All steps read so far, and the samples taken from them.

    Invariants: only split `train` is ever given out; sources never mix unless asked for; a window never crosses
    an episode's end, a restart or a gap.
    """

    def __init__(self, group_size: int, max_lag: int, seed: int = 0) -> None:
        self.group_size, self.max_lag = group_size, max_lag
        self.dropped = Dropped()
        self.steps_by_source: dict[str, int] = defaultdict(int)
        self._open: dict[bytes, list[Step]] = {}
        self._waiting: dict[str, list[Episode]] = defaultdict(list)
        self._ready: list[Group] = []
        self.episodes: dict[Source, list[Episode]] = defaultdict(list)
        self._held_out: list[Episode] = []
        self._rng = np.random.default_rng(seed)

    def add(self, steps: Iterable[Step]) -> None:
        """Takes committed rows, in the order of their streams."""
        for step in steps:
            self._extend(step)

    def _extend(self, step: Step) -> None:
        if step.boundary & (Boundary.RESET | Boundary.WORKER_RESTART):
            self._open.pop(step.stream_id, None)  # the episode before was cut off by a crash: it has no return
        if step.is_closing:
            steps = self._open.pop(step.stream_id, None)
            if steps:
                self._file(Episode(tuple(steps), step))
            return
        self.steps_by_source[step.source] += 1
        self._open.setdefault(step.stream_id, []).append(step)

    def _file(self, episode: Episode) -> None:
        first = episode.first
        if first.split != "train":
            self._held_out.append(episode)
            return
        self.episodes[first.source].append(episode)
        if first.source != "real" or not first.group_id:
            return
        waiting = self._waiting[first.group_id]
        waiting.append(episode)
        if len(waiting) == self.group_size:
            self._ready.append(Group(first.group_id, tuple(self._waiting.pop(first.group_id))))

    @property
    def ready_groups(self) -> int:
        return len(self._ready)

    def window(self, version: int, most: int | None = None) -> list[Group]:
        """The whole groups not given out yet (the oldest `most`), less those older than `max_lag` versions.

        Failed episodes and episodes of unknown reward leave their group; each is counted in `dropped`.
        """
        given, self._ready = self._ready[:most], self._ready[most:] if most else []
        fresh = []
        for group in given:
            if version - group.oldest_version > self.max_lag:
                self.dropped.stale += len(group.episodes)
                continue
            kept = []
            for episode in group.episodes:
                if episode.failed:
                    self.dropped.failed += 1
                elif episode.total_reward is None:
                    self.dropped.unknown_reward += 1
                else:
                    kept.append(episode)
            if len(kept) > 1:
                fresh.append(Group(group.group_id, tuple(kept)))
        return fresh

    def held_out(self, version: int, env_id: str | None = None) -> list[Episode]:
        """Held-out episodes acted by policy `version`: for evaluation, never for learning."""
        return [e for e in self._held_out if e.first.decision and e.first.decision.policy_version == version
                and (env_id is None or e.first.env_id == env_id)]

    def sample_steps(self, n: int, sources: Sequence[Source] = ("real",)) -> list[Step]:
        """`n` steps drawn uniformly, with replacement, from training episodes of `sources`."""
        return [w[0] for w in self.windows(n, 1, sources)]

    def windows(self, n: int, length: int, sources: Sequence[Source] = ("real",)) -> list[tuple[Step, ...]]:
        """`n` uniform windows of `length` successive turns of one episode, with replacement.

        Raises ShardError if no training episode of `sources` is that long.
        """
        episodes = [e for s in sources for e in self.episodes[s] if len(e.steps) >= length and not e.failed]
        if not episodes:
            raise ShardError(f"no training episode of {'/'.join(sources)} has {length} turns yet",
                             "collect more, or ask for shorter windows")
        starts = np.cumsum([len(e.steps) - length + 1 for e in episodes])
        windows = []
        for draw in self._rng.integers(starts[-1], size=n):
            which = int(np.searchsorted(starts, draw, side="right"))
            first = int(draw - (starts[which - 1] if which else 0))
            windows.append(episodes[which].steps[first:first + length])
        return windows

    def transitions(self, sources: Sequence[Source] = ("real", "demonstration")) -> Iterator[tuple[Step, Step]]:
        """(row, next row) pairs of training episodes: what a world model learns from."""
        for source in sources:
            for episode in self.episodes[source]:
                if episode.closing is None or episode.failed:
                    continue
                yield from zip(episode.steps, (*episode.steps[1:], episode.closing), strict=True)


@dataclass(frozen=True)
class StalenessLimiter:
    """How many groups may have been started when the learner is at a version.

    capacity = (η + version + 1)·B − started, after AReaL (arXiv 2505.24298), eq. 3:
    with B groups an update, no group is older than η versions when it is learned from.
    """

    groups_per_update: int
    max_lag: int

    def allowed(self, version: int) -> int:
        return (self.max_lag + version + 1) * self.groups_per_update
