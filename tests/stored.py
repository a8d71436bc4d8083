"""A replay on a store of its own, which is given steps as a collector would write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.journal import Journal
from experience.signal import SignalKind
from experience.step import Step
from tests.conftest import CATALOGUE


class StoredReplay(Replay):
    """`add` writes steps durably, and then has the index and the replay take them."""

    def __init__(
        self,
        store: Path,
        *args: Any,
        catalogue: dict[str, SignalKind] | None = None,
        reward: RewardModel | None = None,
        **how: Any,
    ) -> None:
        self.journal = Journal(store / "test", catalogue or CATALOGUE, durability="os")
        super().__init__(EpisodeIndex.open(store, reward), *args, **how)

    def add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.journal.append(step)
        self.journal.commit()
        self.index.refresh()
        self.refresh()
