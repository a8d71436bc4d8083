"""trackio: the project `xp` in the run's `metrics/trackio`, or in TRACKIO_DIR for all runs together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from actors.trackers.tracker import Tracked, Tracker

PACKAGE = "trackio"


def track(tracked: Tracked) -> Tracker:
    os.environ.setdefault("TRACKIO_DIR", str((tracked.folder / "trackio").resolve()))
    import trackio  # only now: it reads the variable when it is imported

    run = trackio.init(project="xp", name=tracked.name, config=dict(tracked.settings))
    return _Trackio(run)


class _Trackio:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, values: Mapping[str, float], version: int) -> None:
        self._run.log(dict(values), step=version)

    def close(self) -> None:
        self._run.finish()
