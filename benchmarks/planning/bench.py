"""`./xp bench planning`: every claim about planning, with published figures and controls.

`results.json` keeps the results, each with the command that makes it. A part that is measured again
replaces its rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.planning.record import Row
from experience.errors import ConfigError
from experience.evaluation.statistics import shown as seed_values
from experience.text.strict_json import dumps

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "planning-results.md"

PARTS: dict[str, tuple[str, ...]] = {
    "dyna": ("dyna", "figure_8_2", "changing_mazes", "sweeping"),
    "options": ("options", "planning", "stomp", "learning"),
    "science": ("science", "campaigns"),
    "labs": ("labs", "campaigns"),
    "proofs": ("proofs", "expert_iteration"),
    "language": ("language", "world_model"),
    "bundled": ("bundled", "bundled"),
    "lookahead": ("language", "lookahead"),
    "hierarchy": ("language", "hierarchy"),
    "cartpole": ("language", "cartpole"),
    "language-dyna": ("language", "dyna"),
}
"""Part -> its module here, and the functions of that module that yield its rows."""

HOURS = ("bundled", "cartpole", "language-dyna", "lookahead")
"""Parts that take hours: measured only if `--only` names them."""


def measured(part: str) -> Iterator[Row]:
    """Yields the rows of a part as they are measured."""
    module, *functions = PARTS[part]
    # Imported only now: one part's missing package must not stop the others.
    found = import_module(f"benchmarks.planning.{module}")
    for function in functions:
        yield from getattr(found, function)()


def main(only: str | None, as_json: bool, write: bool) -> bool:
    """Prints the rows as they are measured; True if every goal is met.

    Raises ConfigError for an unknown part.
    """
    if only is not None and only not in PARTS:
        raise ConfigError(
            f"no part {only!r} of the planning benchmark", f"there are: {', '.join(PARTS)}"
        )
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    met = True
    for name in [only] if only else [part for part in PARTS if part not in HOURS]:
        started = time.monotonic()
        rows = []
        for row in measured(name):
            rows.append(row.record())
            met = met and row.goal_met
            print(dumps(row.record(), ensure_ascii=False) if as_json else shown(row), flush=True)
        kept[name] = {
            "command": f"./xp bench planning --only {name} --write",
            "seconds": round(time.monotonic() - started),
            "rows": rows,
        }
    if write:
        RESULTS.write_text(dumps(kept, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(with_results(PAGE.read_text(), table(kept)))
    return met


def with_results(page: str, results: str) -> str:
    """The page with `results` between its two marks, and everything else as it was."""
    head, _, rest = page.partition("<!-- results -->")
    tail = rest.partition("<!-- end -->")[2]
    return f"{head}<!-- results -->\n{results}<!-- end -->{tail}"


def table(kept: dict[str, dict[str, object]]) -> str:
    """The kept results as Markdown, each part under the command that makes it."""
    lines = []
    for part in kept.values():
        took = f" ({part['seconds']} s on 2 cores)" if part["seconds"] else ""
        lines += [
            "",
            f"`{part['command']}`{took}:",
            "",
            "| claim | published | here (95 % interval, or each seed) | goal | seeds | beside it |",
            "|---|---|---|---|---|---|",
        ]
        for kept_row in part["rows"]:  # type: ignore[attr-defined]
            row = Row.read(kept_row)
            beside = "; ".join(f"{k} {v:.4g}" for k, v in row.controls.items())
            goal = row.goal if row.goal_met else f"{row.goal}, **missed**"
            lines.append(
                f"| {row.name} | {row.published} | {row.here} | {goal} | {row.seeds} | {beside} |"
            )
    return "\n".join(lines) + "\n"


def shown(row: Row) -> str:
    """A row as lines for a terminal."""
    lines = [
        f"{'met   ' if row.goal_met else 'MISSED'} {row.name}: {row.here}, goal {row.goal}, "
        f"{row.seeds} seeds",
        f"       published: {row.published}   ({row.note})",
    ]
    if row.interval:
        lines.append(f"       each seed: {seed_values(row.values)}")
    if row.controls:
        lines.append(
            "       beside it: " + ", ".join(f"{k} {v:.4g}" for k, v in row.controls.items())
        )
    return "\n".join(lines)
