"""Layers of configuration: each file or override is merged over the layers before it."""

from __future__ import annotations

from collections.abc import Iterator

from actors.config.reader import OVERRIDE
from actors.config.section import Section
from experience.command.plain_yaml import Node, Problems

_NAMED = "learning.recipe"
"""A key that takes a name or a mapping."""


def merge(into: Node, new: Node, problems: Problems, path: str = "") -> None:
    """Puts the keys of the mapping `new` into the mapping `into`; what both hold as mappings is
    merged in turn."""
    for key, node in new.value.items():
        old = into.value.get(key)
        into.value[key] = node if old is None else _merged(old, node, problems, f"{path}{key}")


def _merged(old: Node, new: Node, problems: Problems, path: str) -> Node:
    """What stands at `path` once `new` was set over `old`."""
    if path == _NAMED and isinstance(old.value, str) and isinstance(new.value, dict):
        # A row's name stands for {like: NAME}: cells that are set later belong to that row.
        old = Node({"like": old}, old.place)
    if isinstance(old.value, dict) and isinstance(new.value, dict):
        merge(old, new, problems, f"{path}.")
    elif isinstance(old.value, list) and new.is_path:
        _merge_item(old.value, new, problems, path)
    elif isinstance(old.value, list) and new.appends and isinstance(new.value, list):
        old.value += new.value
    else:
        return new
    return old


def _merge_item(items: list[Node], new: Node, problems: Problems, path: str) -> None:
    """Puts what `new` has under the number of an item into that item."""
    for key, node in new.value.items():
        here = f"{path}.{key}"
        if not key.isdecimal():
            problems.add(
                node.place,
                f"{here}: an item of a list is named by its number; {_how_many(items, path)}",
            )
        # The length first: a number of a million digits would keep int() busy for minutes.
        elif len(key) > 9 or int(key) >= len(items):
            problems.add(node.place, f"{here}: {_how_many(items, path)}", f"{path}+=[...] adds one")
        else:
            items[int(key)] = _merged(items[int(key)], node, problems, here)


def _how_many(items: list[Node], path: str) -> str:
    count = len(items)
    last = f", the last is {path}.{count - 1}" if items else ""
    return f"{path} holds {count} item{'s' if count != 1 else ''}{last}"


def note_places(section: Section, given: Node) -> None:
    """Notes in `section`, and in the sections inside it, where each key was set."""
    for name, child in given.value.items():
        section._places[name] = child.place
        inner = getattr(section, name)
        pairs = (
            zip(inner, child.value, strict=True) if isinstance(inner, list) else [(inner, child)]
        )
        for part, node in pairs:
            if isinstance(part, Section):
                note_places(part, node)


def origins(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, who set it) of every leaf: file:line or override; of a list all who did."""
    if isinstance(node.value, dict) and node.value:
        for key, child in node.value.items():
            yield from origins(child, f"{path}.{key}" if path else key)
    elif path:
        yield path, ", ".join(dict.fromkeys([node.place, *_overrides_in(node)]))


def _overrides_in(node: Node) -> Iterator[str]:
    """The overrides that reached into a list, which may be of a file or of the defaults."""
    if node.place.startswith(OVERRIDE):
        yield node.place
    inner = node.value.values() if isinstance(node.value, dict) else node.value
    for child in inner if isinstance(node.value, dict | list) else ():
        yield from _overrides_in(child)
