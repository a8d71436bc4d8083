"""Chooses the pool that the configuration asks for."""

from __future__ import annotations

from pathlib import Path

from actors.config.schema import Config
from actors.pool.local import LocalPool
from actors.pool.pool import Follows, Pool
from actors.pool.ray_pool import RayPool


def make_pool(
    config: Config, run_id: str, directory: Path, catalog: Follows, rewards: str = ""
) -> Pool:
    """A Ray pool of `config.workers` collectors; a pool in this process if `workers` is 0.

    directory: where the collectors write their shards. catalog: reads the same directory.
    rewards: version of the reward that every collector must compute; empty: whatever it does.
    """
    pool = RayPool if config.workers else LocalPool
    return pool(config, run_id, directory, catalog, rewards)
