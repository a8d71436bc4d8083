"""The desk: where slots wait for their agents' decisions, while their worlds go on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Failed
from actors.collecting.loop.lanes import Lanes
from actors.collecting.slot import Slot
from actors.collecting.work import Lane
from experience.models.weights import PolicyBundle
from experience.policy import Decision

_MOST_AT_ONCE = 256
"""Requests that a server is sent side by side, at most."""


@dataclass(frozen=True)
class Broken:
    """The agents cannot go on: the collector ends with this error."""

    error: BaseException


@dataclass(frozen=True)
class Asked:
    """A slot that waits, and the ticket of its wait."""

    slot: Slot
    ticket: int


class Desk:
    """Asks the agents for the decisions of slots, and puts each decision into the mailbox.

    In step, the caller's thread asks about all slots at once, so that a repeated run is the same.
    Otherwise an engine in this process has one thread, which answers all slots that wait when the
    engine is free. A server is asked about each slot on a thread of its own, so that no slot waits
    for the slowest answer. What is put is (slot, ticket, decision or Failed).
    """

    def __init__(self, lanes: Lanes, mailbox: Mailbox, in_step: bool, slots: int) -> None:
        self._lanes = lanes
        self._mailbox = mailbox
        self._in_step = in_step
        self._waiting: queue.SimpleQueue[Asked | Callable[[], None] | None] = queue.SimpleQueue()
        self._servers: ThreadPoolExecutor | None = None
        if lanes.answers_alone and not in_step:
            self._servers = ThreadPoolExecutor(min(slots, _MOST_AT_ONCE), "server")
        elif not in_step:
            threading.Thread(target=self._serve, daemon=True, name="engine").start()

    def load(self, policy: PolicyBundle) -> None:
        """The policy for training steps from now on. An older one than the present is ignored."""
        self._between_batches(lambda: self._lanes.load(policy))

    def pin(self, policy: PolicyBundle) -> None:
        """Keeps a policy for the evaluations that are ordered for its version."""
        self._between_batches(lambda: self._lanes.pin(policy))

    def keep_pinned(self, versions: set[int]) -> None:
        """Drops the policies of every other version."""
        self._between_batches(lambda: self._lanes.keep_pinned(versions))

    def ask(self, slots: Sequence[Slot]) -> None:
        """Asks for the next decision of each slot."""
        asked = [Asked(slot, slot.wait_for("model")) for slot in slots]
        if self._in_step:
            self._answer(asked)
        elif self._servers is not None:
            for one in asked:
                self._servers.submit(self._answer, [one])
        else:
            for one in asked:
                self._waiting.put(one)

    def close(self) -> None:
        """Ends the threads, at once or when they come back from the engine."""
        self._waiting.put(None)
        if self._servers is not None:
            self._servers.shutdown(wait=False, cancel_futures=True)
        self._lanes.close()

    def _between_batches(self, change: Callable[[], None]) -> None:
        if self._in_step or self._servers is not None:
            change()
        else:
            self._waiting.put(change)

    def _serve(self) -> None:
        """The engine's thread: answers everything that waits, then looks again."""
        while True:
            items = [self._waiting.get()]
            while not self._waiting.empty():
                items.append(self._waiting.get())
            asked = [item for item in items if isinstance(item, Asked)]
            for item in items:
                if item is None:
                    return
                if not isinstance(item, Asked):
                    self._guarded(item)
            self._answer(asked)

    def _guarded(self, change: Callable[[], None]) -> None:
        try:
            change()
        except BaseException as error:  # noqa: BLE001  the collector's own thread raises it again
            self._mailbox.put(Broken(error))

    def _answer(self, asked: Sequence[Asked]) -> None:
        """Decides for all, each lane, version and rival together."""
        groups: dict[tuple[Lane, int, str], list[Asked]] = {}
        for one in asked:
            work = one.slot.work
            if work is not None:
                groups.setdefault((work.lane, work.version, work.rival), []).append(one)
        for (lane, version, _), those in groups.items():
            try:
                found = self._lanes.decide(lane, version, [one.slot for one in those])
            except BaseException as error:  # noqa: BLE001  the loop's thread raises it again
                self._mailbox.put(Broken(error))
                return
            self._deliver(those, found)

    def _deliver(self, asked: Sequence[Asked], found: Sequence[Decision | Failed]) -> None:
        for one, decision in zip(asked, found, strict=True):
            self._mailbox.put((one.slot, one.ticket, decision))
