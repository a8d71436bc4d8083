"""`./xp bench methods`: rules of learning against figures that are published or known exactly.

`results.json` keeps the results, each with the command that makes it. A part that is measured again
replaces its rows. Curves that take minutes are kept in `curves/`, seed by seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.planning.bench import shown, table, with_results
from benchmarks.planning.record import Row
from experience.errors import ConfigError
from experience.text.strict_json import dumps

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
PARTS: dict[str, tuple[str, ...]] = {
    "perplexity": ("text", "slide", "markov"),
    "scaling": ("text", "scaling"),
    "rankings": ("preferences", "how_many"),
    "over-optimisation": ("preferences", "over_optimisation"),
}
"""Part -> its module here, and the functions of that module that yield its rows."""


def measured(part: str) -> Iterator[Row]:
    """Yields the rows of a part as they are measured."""
    module, *functions = PARTS[part]
    found = import_module(f"benchmarks.methods.{module}")
    for function in functions:
        yield from getattr(found, function)()


def main(only: str | None, as_json: bool, write: bool) -> bool:
    """Prints the rows as they are measured; True if every goal is met.

    write: keeps the results, and puts them and the images into docs/methods.md. Raises ConfigError
    for an unknown part.
    """
    if only is not None and only not in PARTS:
        raise ConfigError(
            f"no part {only!r} of the methods benchmark", f"there are: {', '.join(PARTS)}"
        )
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    met = True
    for name in [only] if only else PARTS:
        started = time.monotonic()
        rows = []
        for row in measured(name):
            rows.append(row.record())
            met = met and row.goal_met
            print(dumps(row.record(), ensure_ascii=False) if as_json else shown(row), flush=True)
        kept[name] = {
            "command": f"./xp bench methods --only {name} --write",
            "seconds": round(time.monotonic() - started),
            "rows": rows,
        }
    if write:
        from benchmarks.methods.draw import draw

        # Parts in their order, whichever was measured last.
        kept = {name: kept[name] for name in PARTS if name in kept}
        RESULTS.write_text(dumps(kept, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(with_results(PAGE.read_text(), table(kept)))
        draw(PAGE.parent / "img")
    return met
