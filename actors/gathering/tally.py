"""The tally of a store: which works are done, and what their episodes earned."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from experience.episode import Episode, EpisodeReader
from experience.step import OTHERS, Step

_NEWEST = 64


@dataclass(frozen=True, slots=True)
class Lived:
    """One episode that was lived to an end. total: its return; None if a reward is unknown, or if
    it failed, which says nothing about the policy."""

    env_id: str
    seed: int
    failed: bool
    total: float | None
    agents: int = 1

    def beside(self, other: Lived | None) -> Lived:
        """The episode of two agents that the policy played at once: their mean return."""
        if other is None:
            return self
        agents = other.agents + 1
        total = None
        if self.total is not None and other.total is not None:
            total = (other.total * other.agents + self.total) / agents
        return replace(self, failed=self.failed or other.failed, total=total, agents=agents)


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
        self._counted: set[tuple[bytes, str]] = set()
        """Finished work, and its agent where it has several."""
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
        first = episode.first
        work_id = episode.closing.work_id
        if first.split == OTHERS:
            return  # another than the policy acted in it
        if (work_id, first.agent_id) in self._counted:
            return  # two collectors lived it, one of which was cut off meanwhile
        self._counted.add((work_id, first.agent_id))
        self.finished.add(work_id)
        total = None if episode.failed else episode.total_reward
        if episode.failed:
            self.broken.add(work_id)
        if total is not None:
            self.newest[first.env_id].append(total)
        if self._keeps:
            before = self.lived.get(work_id)
            self.lived[work_id] = Lived(first.env_id, first.seed, episode.failed, total).beside(
                before
            )
