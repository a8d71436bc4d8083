"""Chromium's accessibility tree as lines of text, and its elements by number or by name.

Agents read these lines instead of HTML: the tree holds what a person would see or hear, and each
line names one element that an action can refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.refused import Refused

Node = Mapping[str, Any]
"""An `AXNode` of the DevTools protocol."""

# Roles that only group or repeat what their children say.
_HIDDEN_ROLES = {
    "InlineTextBox",
    "generic",
    "none",
    "RootWebArea",
    "LabelText",
    "paragraph",
    "LayoutTable",
    "Section",
    "LayoutTableRow",
    "LayoutTableCell",
    "MenuListPopup",
    "rowgroup",
    "Canvas",
    "ListMarker",
    "LineBreak",
}
_STATES = ("checked", "selected", "expanded", "disabled", "focused", "pressed")
_CONTROLS = {
    "button": "button",
    "link": "link",
    "textbox": "text",
    "combobox": "list",
    "checkbox": "check",
    "radio": "radio",
}


@dataclass(frozen=True)
class Elements:
    """The elements that one reading of a page numbered: element 1 is the first.

    `nodes` are Chromium's own ids of the elements, `names` their accessible names.
    """

    nodes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def node(self, number: int) -> int:
        """Chromium's id of an element. Raises ValueError for a number that none has."""
        if not 1 <= number <= len(self.nodes):
            raise Refused(f"no element {number}", f"The page has elements 1 to {len(self.nodes)}.")
        return self.nodes[number - 1]

    def find(self, words: str) -> tuple[int, str]:
        """The element that `words` begins with, by number or whole name, and the words after it.

        Of several names that fit, the longest counts. Raises ValueError if no element fits, or if
        several elements have that name.
        """
        first, _, rest = words.partition(" ")
        if first.isdigit():
            self.node(int(first))
            return int(first), rest
        fitting = [n for n in set(self.names) if n and f"{words} ".startswith(f"{n} ")]
        if not fitting:
            raise Refused(
                f"no element {first}",
                f"No element has that number or name: {words[:40]!r}. Write its number first.",
            )
        name = max(fitting, key=len)
        if self.names.count(name) > 1:
            raise Refused(
                f"several elements {name}: use a number",
                f"Several elements have the name {name!r}: write the number instead.",
            )
        return self.names.index(name) + 1, words[len(name) + 1 :]


def ax_lines(nodes: Sequence[Node], number: Callable[[int], int]) -> list[str]:
    """All that can be read or used, one line an element: [number] role "name" = value (states).

    `nodes` is an accessibility tree as Chromium gives it, the lines are in the order of the
    document. `number` gives the number to show for Chromium's id of an element.
    """
    lines = [
        _line(node, number(node["backendDOMNodeId"]))
        for node in _in_order(nodes)
        if _can_be_read(node)
    ]
    return _without_repeated_text(lines)


def numbered_lines(nodes: Sequence[Node]) -> tuple[list[str], Elements]:
    """The lines of `ax_lines`, numbered from 1 in this reading, and the elements they number."""
    # A label's text has the same name as its field. Only the field may be meant by that name.
    names = {
        node["backendDOMNodeId"]: _name(node)
        for node in nodes
        if "backendDOMNodeId" in node and _role(node) in _CONTROLS
    }
    found: list[int] = []

    def number(node: int) -> int:
        found.append(node)
        return len(found)

    lines = ax_lines(nodes, number)
    return lines, Elements(tuple(found), tuple(names.get(node, "").strip() for node in found))


def control_lines(nodes: Sequence[Node]) -> tuple[list[str], Elements]:
    """Only what can be used, one line a control: `kind name=value`; line n is element n + 1."""
    by_id = {node["nodeId"]: node for node in nodes}
    controls = [n for n in _in_order(nodes) if not n.get("ignored") and _role(n) in _CONTROLS]
    lines = [f"{_CONTROLS[_role(n)]} {_name(n)}{_control_value(n, by_id)}" for n in controls]
    ids = tuple(n["backendDOMNodeId"] for n in controls)
    return lines, Elements(ids, tuple(_name(n) for n in controls))


def _in_order(nodes: Sequence[Node]) -> Iterator[Node]:
    """The nodes below the first one, and itself, in the order of the document."""
    if nodes:
        yield from _below(nodes[0], {node["nodeId"]: node for node in nodes})


def _below(top: Node, by_id: Mapping[str, Node]) -> Iterator[Node]:
    """`top` and all below it, depth first. A stack, because a page can nest deeper than Python."""
    waiting = [top]
    while waiting:
        node = waiting.pop()
        yield node
        # Chromium may name children that it left out of the tree.
        children = (by_id[child] for child in node.get("childIds", []) if child in by_id)
        waiting += reversed(list(children))


def _role(node: Node) -> str:
    return str(node.get("role", {}).get("value", ""))


def _name(node: Node) -> str:
    return str(node.get("name", {}).get("value", ""))


def _properties(node: Node) -> dict[str, Any]:
    return {p["name"]: p["value"].get("value") for p in node.get("properties", [])}


def _can_be_read(node: Node) -> bool:
    if node.get("ignored") or "backendDOMNodeId" not in node:
        return False
    role = _role(node)
    empty_text = role == "StaticText" and not _name(node).strip()
    return role not in _HIDDEN_ROLES and not empty_text


def _line(node: Node, number: int) -> str:
    role = _role(node)
    name = _name(node).strip()
    value = str(node.get("value", {}).get("value", ""))
    properties = _properties(node)
    states = [s for s in _STATES if properties.get(s) in (True, "true")]
    line = f"[{number}] {'text' if role == 'StaticText' else role}"
    if name:
        line += f' "{name}"'
    if value and value != name:
        line += f" = {value}"
    if states:
        line += f" ({', '.join(states)})"
    return line


def _without_repeated_text(lines: Sequence[str]) -> list[str]:
    """Drops the text of an element whose own line has just said it, as that of a button."""
    kept: list[str] = []
    for line in lines:
        role, _, name = line.partition("] ")[2].partition(" ")
        before = kept[-1].partition("] ")[2].partition(" ")[2] if kept else None
        if role == "text" and before is not None and before.startswith(name):
            continue
        kept.append(line)
    return kept


def _control_value(node: Node, by_id: Mapping[str, Node]) -> str:
    """`=value`, with a list's options behind it; `=on` or `=off` for boxes."""
    role = _role(node)
    if role in ("checkbox", "radio"):
        return "=on" if _properties(node).get("checked") in ("true", True) else "=off"
    if role in ("button", "link"):
        return ""
    value = f"={node.get('value', {}).get('value', '')}"
    if role == "combobox":
        options = [_name(n) for n in _below(node, by_id) if _role(n) == "option"]
        value += f" ({'|'.join(options)})"
    return value
