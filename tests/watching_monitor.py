"""A stranger's monitor: halts a run at its second version."""

from __future__ import annotations

from experience.evaluation.monitors import OK, Finding, Window


def second_version(window: Window) -> Finding:
    if window[-1]["version"] < 2:
        return OK
    return Finding("halt", "the second version is enough")


def always(window: Window) -> Finding:
    return Finding("warn", "look at this")
