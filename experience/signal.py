"""Signals: what was measured as a consequence of an action."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from experience.errors import RecordError

SignalSource = Literal["env_state", "verifier", "instrument", "human", "model"]


@dataclass(frozen=True, slots=True)
class SignalKind:
    """What a signal's number means: its unit and who measured it."""

    unit: str
    source: SignalSource


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured consequence. `value` is None when it could not be measured: unknown is never 0."""

    name: str
    value: float | None
    unit: str
    source: SignalSource
    evidence: str = ""


def read_signals(
    info: Mapping[str, Any], catalogue: Mapping[str, SignalKind]
) -> tuple[Signal, ...]:
    """The signals that an environment put into `info["signals"]`, checked against its catalogue.

    `info["signals"]` maps a name to a number, None, or (number | None, evidence).
    Raises RecordError for a name outside the catalogue and for NaN or infinite values.
    """
    signals = []
    for name, reported in info.get("signals", {}).items():
        value, evidence = reported if isinstance(reported, tuple) else (reported, "")
        if name not in catalogue:
            raise RecordError(
                f"signal {name!r} is not in the environment's signal catalogue {sorted(catalogue)}",
                "declare it in `signal_catalogue` with its unit and source",
            )
        if value is not None and not math.isfinite(value):
            raise RecordError(
                f"signal {name!r} is {value}; a signal is a finite number, or None when unknown",
                "report None for what could not be measured",
            )
        kind = catalogue[name]
        signals.append(
            Signal(
                name, None if value is None else float(value), kind.unit, kind.source, str(evidence)
            )
        )
    return tuple(signals)
