"""The tally of a store: which works are done, and what their episodes earned."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from experience.episode import Episode, EpisodeReader
from experience.step import Step

_NEWEST = 64


@dataclass(frozen=True, slots=True)
class Lived:
    """One episode that was lived to an end. total: its return; None if a reward is unknown, or if
    it failed, which says nothing about the policy."""

    env_id: str
    seed: int
    failed: bool
    total: float | None


class Tally:
    """Counts whole episodes, each work once; its memory grows by one id for each.

    keeps: whether `lived` holds the episodes themselves, by the id of their work.
    """

    def __init__(self, keeps: bool = False) -> None:
        self.finished: set[bytes] = set()
        self.lived: dict[bytes, Lived] = {}
        self.steps: Counter[str] = Counter()
        """Answered turns by source."""
        self.training_steps = 0
        self.newest: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_NEWEST))
        """Newest returns by world."""
        self.broken: set[bytes] = set()
        """Works whose episodes the world, the engine or the machine ended."""
        self._keeps = keeps
        self._reader = EpisodeReader()

    @property
    def failed(self) -> int:
        return len(self.broken)

    def take(self, rows: Iterable[Step]) -> None:
        for row in rows:
            self.steps[row.source] += not row.is_closing
            self.training_steps += row.is_training
            for episode in self._reader.take(row):
                self._count(episode)

    def _count(self, episode: Episode) -> None:
        # cut off by a crash, or stopped midway: this work is lived again
        if episode.closing is None or episode.ending == "cancelled":
            return
        work_id = episode.closing.work_id
        if work_id in self.finished:
            return  # two collectors lived it, one of which was cut off meanwhile
        self.finished.add(work_id)
        total = None if episode.failed else episode.total_reward
        if episode.failed:
            self.broken.add(work_id)
        first = episode.first
        if total is not None:
            self.newest[first.env_id].append(total)
        if self._keeps:
            self.lived[work_id] = Lived(first.env_id, first.seed, episode.failed, total)
