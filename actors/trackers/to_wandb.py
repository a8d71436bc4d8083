"""Weights & Biases: a run of the project `xp`, or of WANDB_PROJECT.

It sends to WANDB_BASE_URL unless WANDB_MODE=offline: the metrics and the settings, but neither
code, nor what git knows, nor what is printed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from actors.trackers.tracker import Tracked, Tracker

PACKAGE = "wandb"


def track(tracked: Tracked) -> Tracker:
    import wandb

    return _Wandb(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", "xp"),
            name=tracked.name,
            id=tracked.name,
            resume="allow",  # `xp resume` goes on with the same curves
            dir=str(tracked.folder),
            config=dict(tracked.settings),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )
    )


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, values: Mapping[str, float], version: int) -> None:
        self._run.log(dict(values), step=version)

    def close(self) -> None:
        self._run.finish()
