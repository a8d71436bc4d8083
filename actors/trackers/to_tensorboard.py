"""TensorBoard: event files in the run's `metrics/tb`; `tensorboard --logdir runs` shows all runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.trackers.tracker import Tracked, Tracker

PACKAGE = "tensorboardX"


def track(tracked: Tracked) -> Tracker:
    from tensorboardX import SummaryWriter

    return _TensorBoard(SummaryWriter(str(tracked.folder / "tb")))


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, values: Mapping[str, float], version: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, version)
        self._writer.flush()  # a live run is looked at

    def close(self) -> None:
        self._writer.close()
