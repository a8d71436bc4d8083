"""Values of Gymnasium's spaces as text: laid out for a reader, or on one line as an action.

Laid out, a part has its own line or an indented block under its name:

    mission: get to the green goal square
    image:
      2,5,0 2,5,0 1,0,0
      2,5,0 10,0,0 1,0,0

As an action, numbers stand on one line, and a composed value is JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.text.numerals import EMPTY, laid_out, numerals, plain
from envs.text.parts import Arrays, Composed, edges_of, items_of, nodes_of
from envs.text.pixels import is_pixels, said

_PLAIN_LABEL = re.compile(r"\w[^:\n]*")
_INDENT = "  "
OBSERVATION = "observation"
"""The path of a whole observation, which names its picture."""


@dataclass(frozen=True)
class Style:
    """How values are laid out."""

    digits: int | None = None
    """Significant digits of a float; None for as many as it takes to read it back."""
    pictures: bool = False
    """Whether the text only names pixels, because the reader gets them as pictures."""
    codes: frozenset[str] = frozenset()
    """Paths of arrays whose numbers are codes of characters, and are shown as these."""


def parts_of_codes(space: spaces.Space[Any]) -> set[str]:
    """Keys of a dictionary's parts that may be codes of characters: arrays of uint8."""
    if not isinstance(space, spaces.Dict):
        return set()
    parts = space.spaces.items()
    return {str(key) for key, part in parts if isinstance(part, Arrays) and part.dtype == np.uint8}


def shown(
    space: spaces.Space[Any], value: Any, style: Style | None = None, path: str = OBSERVATION
) -> str:
    """A value of `space`, laid out in lines. `path` names the value's own picture."""
    style = style or Style()
    match space:
        case spaces.Text():
            return text_as_shown(str(value))
        case spaces.Discrete():
            return laid_out(np.asarray(value))
        case spaces.Box() if path in style.codes:
            return as_characters(np.asarray(value))
        case spaces.Box() if style.pictures and is_pixels(space):
            return said(space, path)
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return laid_out(np.asarray(value), style.digits)
    if not isinstance(space, Composed):
        return _of_a_strange_space(space, value)
    entries = [
        _entry(label, shown(part, one, style, f"{path}.{label}"), part)
        for label, part, one in _labelled(space, value)
    ]
    if isinstance(space, spaces.Graph):
        entries += _edges(space, value, style, path)
    return "\n".join(entries) or EMPTY


def as_characters(array: np.ndarray) -> str:
    """Codes of characters as JSON strings, one a row; zeros at a row's end are left out."""
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    texts = [row.astype(np.uint8).tobytes().rstrip(b"\0").decode("latin-1") for row in rows]
    return "\n".join(_quoted(text) for text in texts) or EMPTY


def _labelled(space: spaces.Space[Any], value: Any) -> Iterable[tuple[str, spaces.Space[Any], Any]]:
    """(label, space, value) of each part."""
    match space:
        case spaces.Dict():
            return [(label_of(key), part, value[key]) for key, part in space.spaces.items()]
        case spaces.Tuple():
            pairs = zip(space.spaces, value, strict=True)
            return [(str(at), part, one) for at, (part, one) in enumerate(pairs)]
        case spaces.OneOf():
            chosen = int(value[0])
            return [(str(chosen), space.spaces[chosen], value[1])]
        case spaces.Sequence():
            found = enumerate(items_of(space, value))
            return [(str(at), space.feature_space, one) for at, one in found]
        case spaces.Graph():
            nodes = tuple(nodes_of(space, value))
            return [("nodes", spaces.Sequence(space.node_space), nodes)]
    raise TypeError(f"{space} has no parts")


def _edges(space: spaces.Graph, value: Any, style: Style, path: str) -> list[str]:
    edges = edges_of(space, value)
    if edges is None or space.edge_space is None:
        return []
    lines = [
        _entry(f"{start} -> {end}", shown(space.edge_space, one, style, path), space.edge_space)
        for start, end, one in edges
    ]
    return [_entry("edges", "\n".join(lines) or EMPTY, space)]


def _entry(label: str, text: str, part: spaces.Space[Any]) -> str:
    if "\n" not in text and (text == EMPTY or not isinstance(part, Composed)):
        return f"{label}: {text}"
    return f"{label}:\n" + "\n".join(_INDENT + line for line in text.split("\n"))


def label_of(key: Any) -> str:
    """A key of a dictionary as a label; in quotes if it could be taken for something else."""
    name = str(key)
    if _PLAIN_LABEL.fullmatch(name) and name.isprintable() and name == name.strip():
        return name
    return _quoted(name)


def text_as_shown(text: str) -> str:
    """A text as it is, or as a JSON string where spaces, quotes or control characters need it."""
    lines = text.replace("\n", "")
    plain_text = text and text == text.strip() and not text.startswith('"') and text != EMPTY
    return text if plain_text and lines.isprintable() else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _of_a_strange_space(space: spaces.Space[Any], value: Any) -> str:
    if isinstance(value, str):
        return text_as_shown(value)
    return json.dumps(as_tree(space, value), ensure_ascii=False)


def written(space: spaces.Space[Any], action: Any) -> str:
    """An action of `space` on one line, which `read` reads."""
    if isinstance(space, Arrays) and len(space.shape or ()) < 2:
        return " ".join(numerals(np.asarray(action))) or EMPTY
    if isinstance(space, Arrays | spaces.Discrete):
        return json.dumps(as_tree(space, action))
    if isinstance(action, str):
        shown_text = text_as_shown(action)
        return _quoted(action) if "\n" in shown_text else shown_text
    line = json.dumps(as_tree(space, action), ensure_ascii=False)
    return line if line.isprintable() else json.dumps(as_tree(space, action))


def as_tree(space: spaces.Space[Any], value: Any) -> Any:
    """A value of `space` as what JSON can hold."""
    match space:
        case spaces.Text():
            return str(value)
        case spaces.Discrete() | spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return plain(np.asarray(value))
        case spaces.Dict():
            return {str(key): as_tree(part, value[key]) for key, part in space.spaces.items()}
        case spaces.OneOf():
            return [int(value[0]), as_tree(space.spaces[int(value[0])], value[1])]
        case spaces.Tuple() | spaces.Sequence():
            return [as_tree(part, one) for _, part, one in _labelled(space, value)]
        case spaces.Graph():
            return _graph_as_tree(space, value)
    tree: Any = space.to_jsonable([value])[0]
    return tree


def _graph_as_tree(space: spaces.Graph, value: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "nodes": [as_tree(space.node_space, node) for node in nodes_of(space, value)]
    }
    edges = edges_of(space, value)
    if edges is not None and space.edge_space is not None:
        tree["edges"] = [[s, e, as_tree(space.edge_space, one)] for s, e, one in edges]
    return tree
