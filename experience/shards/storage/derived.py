"""Files beside a store's rows that are made from the rows, and may be made again at any time."""

from __future__ import annotations

from pathlib import Path

from experience.shards.storage.disk import REAL, Disk

EPISODES = "EPISODES"
"""The saved index of episodes: see experience/shards/episodes/saved.py."""


def drop_derived(store: Path, disk: Disk = REAL) -> None:
    """Deletes what was made from rows: a removed row must not live on there."""
    if disk.exists(store / EPISODES):
        disk.remove(store / EPISODES)
