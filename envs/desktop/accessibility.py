"""What programs say about themselves over AT-SPI, asked from outside their place: one line for each
thing shown.

A level of the tree is asked as a whole (all questions sent, then all answers read), so that a
window of a hundred things takes some tens of milliseconds. Hidden branches are not entered.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from experience.errors import EnvironmentFailure, MissingPartError

Address = tuple[str, str]
"""(bus name, object path) of a thing."""

_ROOT: Address = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
_A11Y, _PROPERTIES = "org.a11y.atspi.Accessible", "org.freedesktop.DBus.Properties"
_STATES = {1: "active", 4: "checked", 12: "focused", 20: "pressed", 23: "selected", 25: "showing"}
_ENABLED = 8
_TEXT_ROLES = frozenset(
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
_WINDOW_ROLES = frozenset(("frame", "dialog", "alert", "window", "file chooser"))
_PLAIN = frozenset(
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
"""Shown only for what is within them."""
_MOST_NODES, _MOST_CHILDREN = 1500, 300
_SHEET = (12, 6)
"""Rows and columns of a sheet that are read."""
_MOST_CHARACTERS = 1000
_ANSWER_SECONDS = 3.0


@dataclass
class Node:
    """A thing on the screen: what it is, its name and text, its middle in pixels."""

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

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def line(self) -> str:
        """`role name = text @x,y (states)`"""
        x, y = self.middle
        told = f" = {self.text}" if self.text and self.text != self.name else ""
        marks = sorted(self.states & {"checked", "focused", "pressed", "selected", "disabled"})
        return (
            f"{self.role} {self.name}".strip()
            + told
            + f" @{x},{y}"
            + (f" ({', '.join(marks)})" if marks else "")
        )


class Accessibility:
    """The accessibility bus of one desktop.

    A program that does not answer is left out after some seconds.
    """

    def __init__(self, connected: socket.socket) -> None:
        try:
            from jeepney.io.blocking import DBusConnection
        except ImportError as missing:
            raise MissingPartError(
                f"a desktop needs jeepney: {missing}", "./xp setup worlds"
            ) from missing
        connected.sendall(b"\0AUTH ANONYMOUS\r\n")
        if not connected.recv(1024).startswith(b"OK"):
            raise EnvironmentFailure("the accessibility bus refused this process")
        connected.sendall(b"BEGIN\r\n")
        self._bus = DBusConnection(connected)

    def close(self) -> None:
        self._bus.close()

    def ready(self) -> bool | None:
        """True once programs can register, None before."""
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
        return (
            self._ask(
                [(bus, "org.freedesktop.DBus", "NameHasOwner", "s", (_ROOT[0],))],
                time.monotonic() + 1,
            )[0]
            or None
        )

    def windows(self) -> list[Node]:
        """The top-level windows of all programs, with everything that is shown in them."""
        until = time.monotonic() + _ANSWER_SECONDS
        programs = self._ask([(_ROOT, _A11Y, "GetChildren", "", ())], until)[0] or []
        lists = self._ask([(tuple(p), _A11Y, "GetChildren", "", ()) for p in programs], until)
        nodes = [Node((a[0], a[1])) for found in lists for a in found or []]
        self._describe(nodes, until)
        shown = [n for n in nodes if "showing" in n.states and n.role in _WINDOW_ROLES]
        level, count = shown, len(shown)
        while level and count < _MOST_NODES:
            level = self._descend(level, until)
            count += len(level)
        for node in shown:
            _place(node)
        return shown

    def _descend(self, level: Sequence[Node], until: float) -> list[Node]:
        sheets = [n for n in level if n.role == "table"]
        asked = [n for n in level if n not in sheets]
        found: list[Node] = []
        for node, children in zip(
            asked,
            self._ask([(n.address, _A11Y, "GetChildren", "", ()) for n in asked], until),
            strict=True,
        ):
            node.children = [Node((a[0], a[1])) for a in (children or [])[:_MOST_CHILDREN]]
            found += node.children
        for sheet in sheets:
            sheet.children = self._cells(sheet, until)
            found += sheet.children
        self._describe(found, until)
        for node in level:
            node.children = [c for c in node.children if "showing" in c.states]
        self._read_texts(
            [n for n in found if "showing" in n.states and n.role in _TEXT_ROLES], until
        )
        return [
            n
            for n in found
            if "showing" in n.states and not (n.role == "table cell" and (n.name or n.text))
        ]

    def _cells(self, sheet: Node, until: float) -> list[Node]:
        table = "org.a11y.atspi.Table"
        size = self._ask(
            [
                (sheet.address, _PROPERTIES, "Get", "ss", (table, "NRows")),
                (sheet.address, _PROPERTIES, "Get", "ss", (table, "NColumns")),
            ],
            until,
        )
        rows, columns = (
            min(int(s[1]), most) if s else 0 for s, most in zip(size, _SHEET, strict=True)
        )
        found = self._ask(
            [
                (sheet.address, table, "GetAccessibleAt", "ii", (r, c))
                for r in range(rows)
                for c in range(columns)
            ],
            until,
        )
        return [Node((a[0], a[1])) for a in found if a]

    def _describe(self, nodes: Sequence[Node], until: float) -> None:
        roles = self._ask([(n.address, _A11Y, "GetRoleName", "", ()) for n in nodes], until)
        names = self._ask(
            [(n.address, _PROPERTIES, "Get", "ss", (_A11Y, "Name")) for n in nodes], until
        )
        states = self._ask([(n.address, _A11Y, "GetState", "", ()) for n in nodes], until)
        boxes = self._ask(
            [(n.address, "org.a11y.atspi.Component", "GetExtents", "u", (0,)) for n in nodes], until
        )
        for node, role, name, state, box in zip(nodes, roles, names, states, boxes, strict=True):
            bits = (state[0] | state[1] << 32) if state else 0
            node.role, node.name = role or "unknown", str(name[1]) if name else ""
            node.states = frozenset(word for bit, word in _STATES.items() if bits >> bit & 1)
            if not bits >> _ENABLED & 1 and node.role in ("push button", "menu item", "entry"):
                node.states |= {"disabled"}
            node.box = tuple(box) if box else (0, 0, 0, 0)

    def _read_texts(self, nodes: Sequence[Node], until: float) -> None:
        said = self._ask(
            [(n.address, "org.a11y.atspi.Text", "GetText", "ii", (0, -1)) for n in nodes], until
        )
        for node, text in zip(nodes, said, strict=True):
            node.text = (text or "")[:_MOST_CHARACTERS].rstrip()

    def _ask(
        self, questions: Sequence[tuple[Any, str, str, str, tuple[Any, ...]]], until: float
    ) -> list[Any]:
        """The first value of each answer, in order; None where a program refused or did not answer."""
        from jeepney import DBusAddress, MessageType, new_method_call

        waiting: dict[int, int] = {}
        answers: list[Any] = [None] * len(questions)
        try:
            for i, ((bus, path), interface, method, signature, body) in enumerate(questions):
                serial = next(self._bus.outgoing_serial)
                self._bus.send(
                    new_method_call(
                        DBusAddress(path, bus, interface), method, signature or None, body
                    ),
                    serial=serial,
                )
                waiting[serial] = i
                if len(waiting) >= 64:
                    self._answer(waiting, answers, until, MessageType.method_return)
            self._answer(waiting, answers, until, MessageType.method_return)
        except (ConnectionError, EOFError, OSError) as gone:
            raise EnvironmentFailure(
                f"the accessibility bus is gone: {gone}", "the desktop is built anew"
            ) from gone
        return answers

    def _answer(self, waiting: dict[int, int], answers: list[Any], until: float, good: Any) -> None:
        from jeepney import HeaderFields

        while waiting:
            left = until - time.monotonic()
            if left <= 0:
                waiting.clear()
                return
            try:
                message = self._bus.receive(timeout=left)
            except TimeoutError:
                continue
            index = waiting.pop(message.header.fields.get(HeaderFields.reply_serial, -1), None)
            if index is not None and message.header.message_type is good and message.body:
                answers[index] = message.body[0]


def _place(node: Node) -> None:
    """Moves what LibreOffice draws itself: it tells its root pane's place without the menu bar
    above it."""
    for child in node.children:
        if child.role == "root pane":
            right, down = node.box[0] - child.box[0], node.box[1] - child.box[1]
            for below in child.walk():
                x, y, width, height = below.box
                below.box = (x + right, y + down, width, height)
            child.children = [
                c for c in child.children if c.role != "menu bar"
            ]  # a second one, never drawn
        _place(child)


def lines(windows: Iterable[Node]) -> list[str]:
    """What an agent reads: the things of the windows that can be used or read; of a sheet, the
    cells that hold something."""
    return [
        node.line()
        for window in windows
        for node in window.walk()
        if node.box[2] > 0 and _is_shown(node)
    ]


def _is_shown(node: Node) -> bool:
    if node.role in _PLAIN:
        return False
    if node.role == "table cell":
        return bool(node.text) or bool(node.states & {"selected", "focused"})
    return bool(
        node.name
        or node.text
        or "focused" in node.states
        or node.role in _TEXT_ROLES - {"label", "paragraph"}
    )
