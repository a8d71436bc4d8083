"""The inbox of a collector's loop: what its slots were answered, and what comes too late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from actors.collecting.hosting import Hosting
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.loop.desk import Broken
from actors.collecting.slot import Slot

Answer = tuple[Slot, Any]
"""A slot, and a decision of its agent or a reply of its world."""


class Inbox:
    """Takes answers out of the mailbox, and leaves out those that nobody waits for any more.

    in_step: the answers of all busy worlds are waited for, and given in the order of the slots.
    """

    def __init__(
        self, slots: Sequence[Slot], hosting: Hosting, mailbox: Mailbox, in_step: bool
    ) -> None:
        self._slots = slots
        self._hosting = hosting
        self._mailbox = mailbox
        self._in_step = in_step

    def answers(self, patience_seconds: float) -> list[Answer]:
        """The answers that are there; waits for a first one, or in step for those of all worlds."""
        if not self._in_step:
            return self.arrived(patience_seconds)
        found: list[Answer] = []
        while any(slot.waits_for == "world" for slot in self._slots):
            found += self.arrived(math.inf)
        return sorted(found, key=lambda answer: answer[0].number)

    def arrived(self, seconds: float) -> list[Answer]:
        """What came within `seconds`, and the failure of each world that passed its deadline.

        Raises the error that an agent cannot go on after.
        """
        found: list[Answer] = []
        for item in self._mailbox.take(min(seconds, self._hosting.seconds_left)):
            if isinstance(item, Broken):
                raise item.error
            if callable(item):  # the dispatcher's reply, or a policy that was fetched
                item()
                continue
            slot, ticket, answer = item
            if slot.waits_for and slot.ticket == ticket:  # else it comes too late
                slot.waits_for = ""
                found.append((slot, answer))
        # after what has come: the loop may not have run while the learner learned
        for slot, late in self._hosting.overdue():
            slot.waits_for = ""
            found.append((slot, late))
        return found
