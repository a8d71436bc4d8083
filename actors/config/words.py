"""Keys and values in words: what a key takes, which key was meant, why a value is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from experience.command.plain_yaml import Node, Problems
from experience.text.near import did_you_mean, nearest

_SHAPES = {
    "list_type": "list",
    "dict_type": "mapping of keys to values",
    "model_type": "mapping of keys to values",
    "model_attributes_type": "mapping of keys to values",
}
_TYPES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, pydantic field) of every leaf of a section."""
    for name, info in model.model_fields.items():
        inner = _model_of(info.annotation)
        if inner is None:
            yield prefix + name, info
        else:
            is_list = get_origin(info.annotation) is list
            yield from keys(inner, f"{prefix}{name}{'[]' if is_list else ''}.")


def takes(field: FieldInfo) -> str:
    """The values that a key takes: its choices, or its type and range; "" if it takes anything."""
    if field.examples:
        return ", ".join(map(str, field.examples))
    kind = field.annotation
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [
        ", ".join(map(str, get_args(k))) if get_origin(k) is Literal else _TYPES.get(k, "")
        for k in kinds
    ]
    bounds = {
        name: value
        for part in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(part, name, None)) is not None
    }
    limits = [
        f"{word} {bounds[name]}"
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        if name in bounds
    ]
    pattern = next(
        (f"that matches {p.pattern}" for p in field.metadata if getattr(p, "pattern", None)), ""
    )
    words = [next(filter(None, choices), ""), *limits, pattern]
    whole = " ".join(word for word in words if word)
    return f"{whole}, or null" if whole and type(None) in kinds else whole


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind a field's type: itself, or a list's items."""
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def check_keys(
    node: Node, model: type[BaseModel], root: type[BaseModel], path: str, problems: Problems
) -> None:
    """Reports every key that its section, `model`, does not have."""
    if not isinstance(node.value, dict):
        return
    for key, child in node.value.items():
        here = f"{path}{key}"
        if key not in model.model_fields:
            close = _suggest(key, model, root, path)
            problems.add(
                child.place,
                f"{here}: unknown key",
                f"did you mean '{close}'?"
                if close
                else f"known here: {', '.join(model.model_fields)}",
            )
            continue
        inner = _model_of(model.model_fields[key].annotation)
        if inner is None:
            continue
        if isinstance(child.value, list):
            for i, item in enumerate(child.value):
                check_keys(item, inner, root, f"{here}[{i}].", problems)
        else:
            check_keys(child, inner, root, f"{here}.", problems)


def _suggest(key: str, model: type[BaseModel], root: type[BaseModel], path: str) -> str | None:
    """The nearest known key, or None.

    First the same name in another section, then a similar spelling (in this section, then
    anywhere), then a key that shares a word.
    """
    here = {name: path + name for name in model.model_fields}
    everywhere = {name.rpartition(".")[2]: name for name, _ in keys(root)} | {
        n: n for n in root.model_fields
    }
    # Right name, wrong section: the commonest mistake, and certain where a guess is not.
    if key in everywhere:
        return everywhere[key]
    for known in (here, everywhere):
        if close := nearest(key, known, 0.75):
            return known[close]
    words = set(key.split("_"))
    for known in (here, everywhere):
        for name, full in known.items():
            if words & set(name.split("_")):
                return full
    return None


def explain_error(error: Any, merged: Node, root: type[BaseModel], problems: Problems) -> None:
    """Reports a value that pydantic refused: where it was set, and what its key takes."""
    node = merged
    path = ""
    for part in error["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else str(part)
        try:
            node = node.value[part]
        except (KeyError, IndexError, TypeError):
            break
    hint = ""
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        message = f"{problems.shown(error['input'])} is not one of {', '.join(allowed)}"
        hint = did_you_mean(str(error["input"]), allowed, 0.5)
    elif error["type"] in _SHAPES:
        message = f"{problems.shown(error['input'])} is no {_SHAPES[error['type']]}"
    elif not isinstance(error["input"], dict | list):
        message = f"{problems.shown(error['input'])}: {message}"
        known = dict(keys(root)).get(re.sub(r"\[\d+\]", "[]", path))
        wrong_kind = error["type"] != "value_error"  # which says itself what is wrong
        hint = (
            f"it takes {taken}"
            if wrong_kind and known is not None and (taken := takes(known))
            else ""
        )
    problems.add(node.place, f"{path}: {message}", hint)
