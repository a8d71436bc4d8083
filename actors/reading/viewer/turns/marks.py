"""Where an action points in the picture that was seen: the pixels that it names.

Covers calls of tools with numbers x and y (or a `coordinate` of two), and actions in words: `click
12 40`, `drag_to x=3 y=9`, `click(12, 40)`, `@12,40`. Does not cover an element that is named by
its number: the record has no pixel of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from experience.policy import Decision

_POINTING = re.compile(r"click|tap|press|move|drag|mouse|hover|scroll|touch", re.IGNORECASE)
_PAIR = re.compile(
    r"(?<![\w.])(?:@|x\s*=\s*)?(-?\d{1,5}(?:\.\d+)?)(?:\s*,\s*|\s+)(?:y\s*=\s*)?"
    r"(-?\d{1,5}(?:\.\d+)?)(?![\w.])"
)
_COORDINATES = ("coordinate", "position", "point", "start", "end")
_MOST_TEXT = 400
"""A longer action is a program or an essay, in which a pair of numbers points nowhere."""


def marks(decision: Decision) -> list[dict[str, Any]]:
    """Each place as {x, y, what}, in pixels of the picture, in the order of the action."""
    if decision.tool_calls:
        called = [(call.name, _arguments(call.arguments)) for call in decision.tool_calls]
        return [mark for name, given in called for mark in _of_call(name, given)]
    text = decision.text.strip()
    if len(text) > _MOST_TEXT:
        return []
    if text.startswith("{"):
        given = _arguments(text)
        inner = given.get("arguments")
        return _of_call(str(given.get("name", "")), inner if isinstance(inner, Mapping) else given)
    verb = re.match(r"\w*", text)
    pair = _PAIR.search(text)
    if verb is None or pair is None or not _POINTING.search(verb[0]):
        return []
    return _mark(pair[1], pair[2], verb[0])


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, Mapping) else {}


def _of_call(name: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    what = str(given.get("action", name))
    found = _mark(given.get("x"), given.get("y"), what)
    for key in _COORDINATES:
        pair = given.get(key)
        if isinstance(pair, list | tuple) and len(pair) == 2:
            found += _mark(pair[0], pair[1], what)
    return found


def _mark(x: Any, y: Any, what: str) -> list[dict[str, Any]]:
    try:
        place = float(x), float(y)
    except (TypeError, ValueError, OverflowError):
        return []
    # A tool may be called with anything: what lies on no screen is no place.
    if not all(0 <= value < 1e5 for value in place):
        return []
    return [{"x": place[0], "y": place[1], "what": what[:40]}]
