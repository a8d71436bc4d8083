"""Prometheus: the metrics of a run as gauges of Ray, which each node's Ray serves at /metrics.

deploy/grafana/xp.json is a board of them. Ray writes `ray_` before each name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

PACKAGE = "ray"


class Named(Protocol):
    """What is told of a run to all trackers (actors/trackers), as far as this one needs it."""

    @property
    def name(self) -> str: ...


def track(tracked: Named) -> RayMetrics:
    return RayMetrics(tracked.name)


class RayMetrics:
    """One gauge for each kind of number; which world or source it is of is a tag."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Any] = {}

    def log(self, values: Mapping[str, float], version: int) -> None:
        for name, value in {**values, "version": float(version)}.items():
            kind, tag = _kind_and_tag(name)
            self._gauge(kind).set(value, tags={"run": self._run, "of": tag})

    def _gauge(self, kind: str) -> Any:
        from ray.util.metrics import Gauge

        if kind not in self._gauges:
            about = f"{kind} of a run, as in metrics.jsonl"
            self._gauges[kind] = Gauge(f"xp_{kind}", description=about, tag_keys=("run", "of"))
        return self._gauges[kind]

    def close(self) -> None:
        """Ray drops the gauges when the run's process ends."""


def _kind_and_tag(name: str) -> tuple[str, str]:
    """`heldout/Reactor-v0/mean` as ("heldout_mean", "Reactor-v0"), `lag` as ("lag", "")."""
    first, _, rest = name.partition("/")
    middle, _, last = rest.rpartition("/")
    if first == "metrics" or not rest:
        return _word(name), ""
    return (_word(f"{first}_{last}"), middle) if middle else (_word(first), last)


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)
