"""Trackers: the metrics of a run in TensorBoard, Weights & Biases, MLflow, trackio or Prometheus.

A tracker is one hook of the event `Logged` (running/events.py). metrics.jsonl is written in any
case; nothing leaves this machine unless a tracker is named that sends it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from actors.config.schema import Config
from actors.running.events import Events, Logged, Warned
from experience.errors import ConfigError, MissingPartError
from experience.shards.redaction.redact import Redactor
from experience.text.near import did_you_mean


class Tracker(Protocol):
    """Where the metrics of one run go."""

    def log(self, values: Mapping[str, float], version: int) -> None:
        """Takes the metrics by name that were measured of a policy version."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run. `settings`: the configuration, without secrets."""

    name: str
    folder: Path
    settings: Mapping[str, Any]


TRACKERS = {
    "tensorboard": "actors.trackers.to_tensorboard",
    "wandb": "actors.trackers.to_wandb",
    "mlflow": "actors.trackers.to_mlflow",
    "trackio": "actors.trackers.to_trackio",
    "prometheus": "actors.pool.ray_metrics",
}
"""Name -> the module whose function `track(tracked)` makes the tracker."""


def check(names: Iterable[str], workers: int) -> None:
    """Raises ConfigError for an unknown tracker, MissingPartError where a package is missing.

    workers: of the run; Prometheus reads the metrics from Ray, which a run without any has not.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"--log {name}: no such tracker",
                f"{did_you_mean(name, TRACKERS)} there are: {', '.join(TRACKERS)}".lstrip(),
            )
        if name == "prometheus" and not workers:
            raise ConfigError(
                "--log prometheus: a run with workers=0 has no Ray, which serves the metrics",
                "set workers=1 or more, or choose --log tensorboard",
            )
        package = import_module(TRACKERS[name]).PACKAGE
        if find_spec(package) is None:
            raise MissingPartError(
                f"--log {name} needs {package}, which is not installed",
                f"pip install 'xp-experience[{name}]', or in a checkout: .venv/bin/uv pip install "
                f"-p .venv {package}",
            )


@contextmanager
def tracked(names: Sequence[str], config: Config, path: Path, events: Events) -> Iterator[None]:
    """Sends the metrics of a run in directory `path` to the trackers of these names.

    A tracker that fails is dropped, with a warning in the run's report: the run goes on.
    """
    about = Tracked(
        path.name,
        path / "metrics",
        Redactor.current().value(config.model_dump(mode="json")),
    )
    open_: dict[str, Tracker] = {}

    def attempt(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  another project's code may raise anything
            open_.pop(name, None)
            events.emit(Warned(f"--log {name}", f"stopped: {type(error).__name__}: {error}"))

    def log(event: Logged) -> None:
        values, version = flat(event.metrics), int(event.metrics["version"])
        for name, tracker in list(open_.items()):
            attempt(name, lambda tracker=tracker: tracker.log(values, version))  # type: ignore[misc]

    for name in names:
        open_[name] = import_module(TRACKERS[name]).track(about)
    if open_:
        events.subscribe(Logged, log)
    try:
        yield
    finally:
        for name, tracker in list(open_.items()):
            attempt(name, tracker.close)


def flat(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by name, such as `heldout/Reactor-v0/mean`.

    Of the held-out returns only those of the newest version that was evaluated; what is unknown is
    left out.
    """
    found = dict(_numbers({k: v for k, v in line.items() if k not in ("returns", "version")}))
    for world, by_version in line.get("returns", {}).items():
        known = [v for v, mean in by_version.items() if mean.get("n")]
        if known:
            newest = max(known, key=int)
            found |= _numbers(by_version[newest], f"heldout/{world}/")
            found[f"heldout/{world}/of_version"] = float(newest)
    return {_name(name): value for name, value in found.items()}


def _numbers(of: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for name, value in of.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{before}{name}", float(value)


def _name(name: str) -> str:
    """A name that all trackers take: a world's package is left out, as in `Reactor-v0`."""
    return re.sub(r"[^\w./-]", "_", re.sub(r"[\w.]+:", "", name))
