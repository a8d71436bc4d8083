"""How the laboratory's turns are drawn: yields over temperature, simulated and measured."""

from __future__ import annotations

import re
from typing import Any

_LINE = re.compile(
    r"(?:^|- )(sim|lab|simulated at|measured at) (\d+)(?: K, ratio)? ([\d.]+)(?:=|: yield )(-?[\d.]+)$"
)


def notebook_drawn(seen: str) -> list[dict[str, Any]]:
    """A curve and a table of the results that an observation lists; empty if it lists none."""
    found = [match.groups() for line in seen.splitlines() if (match := _LINE.search(line))]
    if not found:
        return []
    series = []
    for name, begins in (("simulated", "sim"), ("measured", ("lab", "mea"))):
        own = sorted((float(k), float(y)) for how, k, _, y in found if how.startswith(begins))
        if own:
            series.append({"name": name, "x": [k for k, _ in own], "y": [y for _, y in own]})
    rows = [
        ["simulated" if how.startswith("sim") else "measured", float(k), float(ratio), float(y)]
        for how, k, ratio, y in found
    ]
    return [
        {
            "kind": "curve",
            "title": "yield of synthesis gas so far",
            "series": series,
            "x_name": "set temperature in K",
            "y_name": "yield",
        },
        {
            "kind": "table",
            "title": "results so far",
            "head": ["how", "K", "fuel-air ratio", "yield"],
            "rows": rows,
        },
    ]
