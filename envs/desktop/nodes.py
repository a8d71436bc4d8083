"""What programs show, as a tree of accessible nodes, and the lines that an agent reads of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Address = tuple[str, str]
"""(bus name, object path) of an accessible object."""

TEXT_ROLES = frozenset(
    (
        "text",
        "paragraph",
        "terminal",
        "entry",
        "heading",
        "password text",
        "icon",
        "table cell",
        "label",
    )
)
"""Roles whose text is asked for, beside their name."""
_CONTAINER_ROLES = frozenset(
    (
        "filler",
        "panel",
        "scroll pane",
        "root pane",
        "viewport",
        "split pane",
        "separator",
        "scroll bar",
        "redundant object",
        "unknown",
        "tool bar",
        "layered pane",
        "section",
        "grouping",
    )
)
"""Roles that get no line of their own: an agent can use only what they contain."""
_STATES_SHOWN = frozenset(("checked", "focused", "pressed", "selected", "disabled"))


@dataclass
class Node:
    """A thing on the screen: its role, name, text and states.

    `box` is (x, y, width, height) in pixels of the screen.
    """

    address: Address
    role: str = ""
    name: str = ""
    text: str = ""
    states: frozenset[str] = frozenset()
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    children: list[Node] = field(default_factory=list)

    @property
    def middle(self) -> tuple[int, int]:
        x, y, width, height = self.box
        return x + width // 2, y + height // 2

    @property
    def is_showing(self) -> bool:
        return "showing" in self.states

    def walk(self) -> Iterator[Node]:
        """This node and all below it, each parent before its children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def line(self) -> str:
        """`role name = text @x,y (states)`"""
        x, y = self.middle
        words = f"{self.role} {self.name}".strip()
        if self.text and self.text != self.name:
            words += f" = {self.text}"
        words += f" @{x},{y}"
        marks = sorted(self.states & _STATES_SHOWN)
        return f"{words} ({', '.join(marks)})" if marks else words


def lines(windows: Iterable[Node]) -> list[str]:
    """What an agent reads: one line for each node of the windows that can be used or read."""
    nodes = (node for window in windows for node in window.walk())
    return [node.line() for node in nodes if node.box[2] > 0 and _has_a_line(node)]


def _has_a_line(node: Node) -> bool:
    if node.role in _CONTAINER_ROLES:
        return False
    if node.role == "table cell":
        # Most cells of a sheet are empty: each would be a line that tells nothing.
        return bool(node.text) or bool(node.states & {"selected", "focused"})
    if node.name or node.text or "focused" in node.states:
        return True
    # An empty text field can be typed into; an empty label or paragraph is of no use.
    return node.role in TEXT_ROLES - {"label", "paragraph"}


def correct_positions(node: Node) -> None:
    """Moves the boxes of what LibreOffice draws itself to where they are on the screen.

    LibreOffice gives positions in its root pane as if no menu bar stood above it, so the boxes are
    off by the distance between the pane's origin and the window's.
    """
    for child in node.children:
        if child.role == "root pane":
            right = node.box[0] - child.box[0]
            down = node.box[1] - child.box[1]
            for below in child.walk():
                x, y, width, height = below.box
                below.box = (x + right, y + down, width, height)
            # The pane lists a second menu bar, which is never drawn.
            child.children = [c for c in child.children if c.role != "menu bar"]
        correct_positions(child)
