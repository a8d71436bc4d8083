"""The accessibility bus of a desktop: D-Bus calls from outside its place, many at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from envs.desktop.nodes import Address
from experience.errors import EnvironmentFailure, MissingPartError

ACCESSIBLE = "org.a11y.atspi.Accessible"
PROPERTIES = "org.freedesktop.DBus.Properties"
_MOST_UNANSWERED = 64
"""Calls sent before answers are read: if both sockets were full, each side would wait."""


@dataclass(frozen=True)
class Call:
    """A D-Bus method call: to which object, and with which arguments."""

    address: Address
    interface: str
    method: str
    signature: str = ""
    arguments: tuple[Any, ...] = ()


def children(address: Address) -> Call:
    return Call(address, ACCESSIBLE, "GetChildren")


def property_of(address: Address, interface: str, name: str) -> Call:
    """Reads a property; its answer is (D-Bus type, value)."""
    return Call(address, PROPERTIES, "Get", "ss", (interface, name))


class AccessibilityBus:
    """A connection to one accessibility bus. Every method may raise EnvironmentFailure."""

    def __init__(self, connected: socket.socket) -> None:
        try:
            from jeepney.io.blocking import DBusConnection
        except ImportError as missing:
            raise MissingPartError(
                f"a desktop needs jeepney: {missing}", "./xp setup worlds"
            ) from missing
        # Not EXTERNAL: that compares user ids, and ours has no meaning in the place's namespace.
        connected.sendall(b"\0AUTH ANONYMOUS\r\n")
        if not connected.recv(1024).startswith(b"OK"):
            raise EnvironmentFailure("the accessibility bus refused this process")
        connected.sendall(b"BEGIN\r\n")
        self._connection = DBusConnection(connected)

    def close(self) -> None:
        self._connection.close()

    def has_owner(self, name: str) -> bool:
        """Whether a program answers to the bus name `name` within a second."""
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
        call = Call(bus, "org.freedesktop.DBus", "NameHasOwner", "s", (name,))
        return bool(self.ask([call], time.monotonic() + 1)[0])

    def ask(self, calls: Sequence[Call], until: float) -> list[Any]:
        """The first value of each answer, in the order of the calls.

        It is None where a program refused, or did not answer before the monotonic time `until`.
        """
        unanswered: dict[int, int] = {}
        answers: list[Any] = [None] * len(calls)
        try:
            for index, call in enumerate(calls):
                unanswered[self._send(call)] = index
                if len(unanswered) >= _MOST_UNANSWERED:
                    self._read_answers(unanswered, answers, until)
            self._read_answers(unanswered, answers, until)
        except (ConnectionError, EOFError, OSError) as gone:
            raise EnvironmentFailure(
                f"the accessibility bus is gone: {gone}", "the desktop is built anew"
            ) from gone
        return answers

    def _send(self, call: Call) -> int:
        """Sends a call; returns its serial number, which the answer will name."""
        from jeepney import DBusAddress, new_method_call

        bus, path = call.address
        serial = next(self._connection.outgoing_serial)
        message = new_method_call(
            DBusAddress(path, bus, call.interface),
            call.method,
            call.signature or None,
            call.arguments,
        )
        self._connection.send(message, serial=serial)
        return int(serial)

    def _read_answers(self, unanswered: dict[int, int], answers: list[Any], until: float) -> None:
        """Reads until every serial of `unanswered` (serial -> index) has its answer, or `until`."""
        from jeepney import HeaderFields, MessageType

        while unanswered:
            seconds_left = until - time.monotonic()
            if seconds_left <= 0:
                unanswered.clear()
                return
            try:
                message = self._connection.receive(timeout=seconds_left)
            except TimeoutError:
                continue
            # Signals, and answers that came too late for an earlier call, name no serial of ours.
            serial = message.header.fields.get(HeaderFields.reply_serial, -1)
            index = unanswered.pop(serial, None)
            is_answer = message.header.message_type is MessageType.method_return
            if index is not None and is_answer and message.body:
                answers[index] = message.body[0]
