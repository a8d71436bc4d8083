"""How a world draws a turn: one static method, `draw_turn(step)`, that returns blocks.

    @staticmethod
    def draw_turn(step):                     # experience.step.Step
        return [{"kind": "code", "title": "program", "text": step.decision.text}]

A block is a mapping with `kind` and `title`, and what its kind needs:

    text      text
    code      text, and perhaps language
    table     head (names), rows (lists of words or numbers)
    curve     series: [{name, x, y}], and perhaps x_name, y_name
    proof     goals: [{hypotheses, conclusion}]
    grid      rows of words: a small map, one cell a word

What is no such block is left out and said. The page shows all of it as text and figures; no block
can bring markup or a script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.reading.viewer.shelf.worlds import world_class
from actors.runs.directory import RunDirectory
from experience.step import Step

NAME = "draw_turn"
_MOST_BLOCKS = 12
_MOST_POINTS = 20_000
_TURNSTILE = re.compile(r"(?:(?<=\s)|^)\|- ", re.MULTILINE)
"""As a prover writes it that has no sign for it."""


class Drawer:
    """Draws turns by the functions of their worlds, and by what a text is where they have none."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def draw(self, step: Step) -> list[dict[str, Any]]:
        """The blocks of a turn; empty where its text says all."""
        world = world_class(step.env_id, self._directory)
        function: Callable[[Step], Any] | None = getattr(world, NAME, None)
        if not callable(function):
            return _by_itself(step)
        try:
            drawn = function(step)
        except Exception as error:  # noqa: BLE001  a world's code may raise anything
            return [_said(f"{NAME} of {step.env_id} raised {type(error).__name__}: {error}")]
        if not isinstance(drawn, Sequence) or isinstance(drawn, str):
            return [_said(f"{NAME} of {step.env_id} gave no list of blocks")]
        return [_block(found) for found in drawn[:_MOST_BLOCKS]]


def _said(text: str) -> dict[str, Any]:
    return {"kind": "note", "title": "drawing", "text": text[:2000]}


def _by_itself(step: Step) -> list[dict[str, Any]]:
    """Goals of a proof, which any prover writes with a turnstile."""
    seen = _TURNSTILE.sub("⊢ ", step.obs_text)
    if "⊢" not in seen:
        return []
    goals = []
    hypotheses: list[str] = []
    for line in seen.splitlines():
        before, turnstile, conclusion = line.partition("⊢")
        if turnstile:
            given = [*hypotheses, before.strip()] if before.strip() else hypotheses
            goals.append({"hypotheses": given, "conclusion": conclusion.strip()})
            hypotheses = []
        elif line.strip():
            hypotheses.append(line.strip())
        else:
            hypotheses = []
    return [{"kind": "proof", "title": "proof state", "goals": goals}]


def _block(found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return _said(f"a block is a mapping, not a {type(found).__name__}")
    kind, title = str(found.get("kind")), str(found.get("title", ""))
    check = _CHECKS.get(kind)
    if check is None:
        return _said(f"no block is called {kind!r}; there are: {', '.join(_CHECKS)}")
    try:
        return {"kind": kind, "title": title, **check(found)}
    except (KeyError, TypeError, ValueError) as error:
        return _said(f"the block {kind} {title!r} cannot be drawn: {error!r}")


def _text(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": str(found["text"]), "language": str(found.get("language", ""))}


def _table(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[_cell(cell) for cell in row] for row in found["rows"]]
    return {"head": [str(name) for name in found["head"]], "rows": rows}


def _cell(value: Any) -> str | float | None:
    if value is None or isinstance(value, str):
        return value
    return _number(value)


def _curve(found: Mapping[str, Any]) -> dict[str, Any]:
    series = []
    for line in found["series"]:
        xs, ys = list(line["x"])[:_MOST_POINTS], list(line["y"])[:_MOST_POINTS]
        points = [[_number(x), _number(y)] for x, y in zip(xs, ys, strict=True)]
        series.append({"name": str(line.get("name", "")), "points": points})
    names = {name: str(found.get(name, "")) for name in ("x_name", "y_name")}
    return {"series": series, **names}


def _proof(found: Mapping[str, Any]) -> dict[str, Any]:
    goals = []
    for goal in found["goals"]:
        hypotheses = [str(line) for line in goal.get("hypotheses", ())]
        goals.append({"hypotheses": hypotheses, "conclusion": str(goal["conclusion"])})
    return {"goals": goals}


def _grid(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows": [[str(cell)[:40] for cell in row] for row in found["rows"]]}


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


_CHECKS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "text": _text,
    "code": _text,
    "table": _table,
    "curve": _curve,
    "proof": _proof,
    "grid": _grid,
}
