"""Events of a run: what happened, as typed facts that anyone may subscribe to.

The main loop emits events and knows no subscriber. Progress, metrics, checkpoints, evaluation and
monitors subscribe. Handlers run in the order in which they subscribed, in the thread that emits.
A handler of one's own is one function of one event:

    events.subscribe(Updated, lambda event: print(event.version))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from experience.step import Step


@dataclass(frozen=True)
class PhaseBegan:
    """A phase of the run began. `counts`: how many of how many are done, by what is counted."""

    phase: str
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RowsCommitted:
    """Rows of any collector were committed and read. Failures of worlds stand in their endings."""

    rows: Sequence[Step]


@dataclass(frozen=True)
class Learned:
    """One part of an update was done, from real or imagined experience. Empty metrics: nothing."""

    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Updated:
    """The learner published `version`, and the collectors were sent it."""

    version: int


@dataclass(frozen=True)
class Imitated:
    """Imitation has done `done` of its optimiser steps, and is not over."""

    done: int


@dataclass(frozen=True)
class Logged:
    """One line of metrics was written: counts, means and curves of the run so far."""

    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Warned:
    """A monitor found something that the user should know; the run goes on."""

    monitor: str
    finding: str


Event = PhaseBegan | RowsCommitted | Learned | Updated | Imitated | Logged | Warned
Kind = TypeVar("Kind", bound=Event)


class Events:
    """Passes each event to the handlers of its type."""

    def __init__(self) -> None:
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type[Kind], handler: Callable[[Kind], None]) -> None:
        self._handlers.setdefault(kind, []).append(handler)

    def emit(self, event: Event) -> None:
        """Calls the handlers. An error of a handler is an error of the run."""
        for handler in self._handlers.get(type(event), ()):
            handler(event)
