"""A host inside this process: a thread, for worlds that are trusted not to hang or to crash."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from actors.collecting.hosts.hosted_world import HostedWorld
from actors.collecting.hosts.messages import Close, Reply, Request


class InsideHost:
    """A world on a thread of its own. A thread cannot be killed: one that hangs is left behind.

    deliver: is given the ticket of each request with its reply, on the world's thread.
    """

    def __init__(self, hosted: HostedWorld, deliver: Callable[[int, Reply], None]) -> None:
        self._hosted = hosted
        self._deliver = deliver
        self._requests: queue.SimpleQueue[tuple[int, Request]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="world")
        self._thread.start()
        self.is_dead = False

    def send(self, ticket: int, request: Request) -> None:
        self._requests.put((ticket, request))

    def kill(self) -> None:
        """Gives the world up. Its thread closes it when the present call returns."""
        self.is_dead = True
        self.send(0, Close())

    def close(self) -> None:
        """Begins to close the world; `has_ended` tells when that is done."""
        self.send(0, Close())

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            ticket, request = self._requests.get()
            reply = self._hosted.reply(request)
            if isinstance(request, Close):
                return
            self._deliver(ticket, reply)
