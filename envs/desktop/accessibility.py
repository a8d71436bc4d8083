"""Reads what programs say about themselves over AT-SPI, from outside their place.

The tree is asked level by level (all calls of a level are sent, then all answers read), so that a
window of a hundred nodes takes some tens of milliseconds. Hidden branches are not entered.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from envs.desktop.accessibility_bus import (
    ACCESSIBLE,
    AccessibilityBus,
    Call,
    children,
    property_of,
)
from envs.desktop.nodes import TEXT_ROLES, Address, Node, correct_positions

_ROOT: Address = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
_STATES = {1: "active", 4: "checked", 12: "focused", 20: "pressed", 23: "selected", 25: "showing"}
"""Bit of AT-SPI's state set -> name."""
_ENABLED_BIT = 8
_WINDOW_ROLES = frozenset(("frame", "dialog", "alert", "window", "file chooser"))
# An agent's program may publish as many nodes as it likes: each count is bounded.
_MOST_NODES = 1500
_MOST_CHILDREN = 300
_MOST_CHARACTERS = 1000
_MOST_ROWS_AND_COLUMNS = (12, 6)
"""Part of a sheet that is read: LibreOffice offers millions of cells as children."""
_ANSWER_SECONDS = 3.0


class Accessibility:
    """The accessible nodes of one desktop.

    Nodes of a program that does not answer within some seconds are left out.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._bus = AccessibilityBus(connected)

    def close(self) -> None:
        self._bus.close()

    def ready(self) -> bool | None:
        """True once programs can register, None before."""
        return self._bus.has_owner(_ROOT[0]) or None

    def windows(self) -> list[Node]:
        """The top-level windows of all programs, with everything that is shown in them."""
        until = time.monotonic() + _ANSWER_SECONDS
        programs = self._bus.ask([children(_ROOT)], until)[0] or []
        answers = self._bus.ask([children(tuple(program)) for program in programs], until)
        nodes = [node for answer in answers for node in _nodes(answer)]
        self._describe(nodes, until)
        shown = [node for node in nodes if node.is_showing and node.role in _WINDOW_ROLES]
        level = shown
        count = len(shown)
        while level and count < _MOST_NODES:
            level = self._descend(level, until)
            count += len(level)
        for node in shown:
            correct_positions(node)
        return shown

    def _descend(self, level: Sequence[Node], until: float) -> list[Node]:
        """Gives the nodes of `level` their children; returns those whose children come next."""
        sheets = [node for node in level if node.role == "table"]
        others = [node for node in level if node.role != "table"]
        answers = self._bus.ask([children(node.address) for node in others], until)
        for node, answer in zip(others, answers, strict=True):
            node.children = _nodes((answer or [])[:_MOST_CHILDREN])
        for sheet in sheets:
            sheet.children = self._cells(sheet, until)
        below = [child for node in (*others, *sheets) for child in node.children]
        self._describe(below, until)
        for node in level:
            node.children = [child for child in node.children if child.is_showing]
        shown = [node for node in below if node.is_showing]
        self._read_texts([node for node in shown if node.role in TEXT_ROLES], until)
        return [node for node in shown if not _is_filled_cell(node)]

    def _cells(self, sheet: Node, until: float) -> list[Node]:
        table = "org.a11y.atspi.Table"
        sizes = [property_of(sheet.address, table, name) for name in ("NRows", "NColumns")]
        counts = []
        for size, most in zip(self._bus.ask(sizes, until), _MOST_ROWS_AND_COLUMNS, strict=True):
            counts.append(min(int(size[1]), most) if size else 0)
        rows, columns = counts
        calls = [
            Call(sheet.address, table, "GetAccessibleAt", "ii", (row, column))
            for row in range(rows)
            for column in range(columns)
        ]
        cells = self._bus.ask(calls, until)
        return _nodes([cell for cell in cells if cell])

    def _describe(self, nodes: Sequence[Node], until: float) -> None:
        """Gives the nodes their roles, names, states and boxes."""
        addresses = [node.address for node in nodes]
        roles = self._bus.ask([Call(a, ACCESSIBLE, "GetRoleName") for a in addresses], until)
        names = self._bus.ask([property_of(a, ACCESSIBLE, "Name") for a in addresses], until)
        states = self._bus.ask([Call(a, ACCESSIBLE, "GetState") for a in addresses], until)
        component = "org.a11y.atspi.Component"
        of_the_screen = (0,)
        extents = [Call(a, component, "GetExtents", "u", of_the_screen) for a in addresses]
        boxes = self._bus.ask(extents, until)
        for node, role, name, words, box in zip(nodes, roles, names, states, boxes, strict=True):
            node.role = role or "unknown"
            node.name = str(name[1]) if name else ""
            node.states = _named_states(words, node.role)
            node.box = tuple(box) if box else (0, 0, 0, 0)

    def _read_texts(self, nodes: Sequence[Node], until: float) -> None:
        whole = (0, -1)
        calls = [Call(n.address, "org.a11y.atspi.Text", "GetText", "ii", whole) for n in nodes]
        for node, text in zip(nodes, self._bus.ask(calls, until), strict=True):
            node.text = (text or "")[:_MOST_CHARACTERS].rstrip()


def _nodes(references: Sequence[Sequence[str]] | None) -> list[Node]:
    """A node for each (bus name, object path) of an answer; no nodes for no answer."""
    return [Node((reference[0], reference[1])) for reference in references or []]


def _named_states(words: Sequence[int] | None, role: str) -> frozenset[str]:
    """The states that matter, from AT-SPI's two words of 32 bits (None: the program was silent)."""
    bits = words[0] | words[1] << 32 if words else 0
    found = {name for bit, name in _STATES.items() if bits >> bit & 1}
    if not bits >> _ENABLED_BIT & 1 and role in ("push button", "menu item", "entry"):
        found.add("disabled")
    return frozenset(found)


def _is_filled_cell(node: Node) -> bool:
    """Whether the node is a cell with its text known: the paragraphs below it would repeat it."""
    return node.role == "table cell" and bool(node.name or node.text)
