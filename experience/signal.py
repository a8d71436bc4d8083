"""Signals: measured consequences of an action."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experience.errors import RecordError

SignalSource = Literal["env_state", "verifier", "instrument", "human", "model"]


@dataclass(frozen=True, slots=True)
class SignalKind:
    """The meaning of a signal's number: its unit, and who measured it."""

    unit: str
    source: SignalSource


LATE = (None, "late")
"""What a world reports as a signal that it will measure later: unknown until then."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured consequence. `value` is None if it could not be measured: unknown is never 0."""

    name: str
    value: float | None
    unit: str
    source: SignalSource
    evidence: str = ""

    @property
    def is_awaited(self) -> bool:
        """Whether the world said that it will measure this later (`LATE`)."""
        return self.value is None and self.evidence == LATE[1]


@dataclass(frozen=True, slots=True)
class LateSignals:
    """Signals of an earlier step, measured now.

    of: the tag that the step's answer gave it, or its number since the world's reset, the first
    being 0.
    """

    of: int | str
    signals: tuple[Signal, ...]


def as_number(value: Any) -> float | None:
    """`value` as a float if it is a number of Python or numpy, or an array of one; else None."""
    if (
        isinstance(value, np.ndarray | np.generic)
        and value.size == 1
        and value.dtype.kind in "biuf"
    ):
        return float(value.item())
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # a whole number beyond every float
        return None


def read_signals(
    info: Mapping[str, Any], catalogue: Mapping[str, SignalKind]
) -> tuple[Signal, ...]:
    """Reads the signals in an environment's `info["signals"]`, checked against its catalogue.

    `info["signals"]` maps a name to a number, None, or (number | None, evidence).
    Raises RecordError for a name outside the catalogue and for what is no number, NaN or infinite.
    """
    reported = info.get("signals", {})
    if not isinstance(reported, Mapping):
        raise RecordError(
            f"info['signals'] is one {type(reported).__name__}; signals are a mapping of names to "
            "numbers",
            "report {name: number}, or give another name to what is no signal",
        )
    return tuple(_signal(name, value, catalogue) for name, value in reported.items())


def _signal(name: str, reported: Any, catalogue: Mapping[str, SignalKind]) -> Signal:
    # Only a tuple: a list of two may be what a world wrongly reports as one number.
    has_evidence = isinstance(reported, tuple) and len(reported) == 2
    value, evidence = reported if has_evidence else (reported, "")
    if name not in catalogue:
        raise RecordError(
            f"signal {name!r} is not in the environment's signal catalogue {sorted(catalogue)}",
            "declare it in `signal_catalogue` with its unit and source",
        )
    number = as_number(value)
    if value is not None and (number is None or not math.isfinite(number)):
        found = number if number is not None else repr(value)[:80]
        raise RecordError(
            f"signal {name!r} is {found}; a signal is a finite number, or None when unknown",
            "report None for what could not be measured",
        )
    kind = catalogue[name]
    return Signal(name, number, kind.unit, kind.source, str(evidence))
