"""The mailbox of a collector: what the collector waits for is delivered here; nothing is polled.

Threads put what they have done (`put`); descriptors are read when they have something (`watch`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """A queue of what ended, whose reader sleeps until something does.

    `put` may be called by any thread; everything else by the thread that reads.
    """

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._selector = selectors.DefaultSelector()
        self._bell, self._button = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._button, False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._drain)
        self._asleep = False

    def put(self, item: Any) -> None:
        """Delivers an item, and wakes the reader."""
        self._items.append(item)
        if self._asleep:
            self._asleep = False  # one ring is enough for all that is put until the reader wakes
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._button, b"\0")

    def watch(self, descriptor: int, ready: Callable[[], None], writes: bool = False) -> None:
        """Calls `ready` from `take` when there is something to be read; with `writes`, also when
        something can be written. A second call for a descriptor replaces the first."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, ready)
        else:
            self._selector.register(descriptor, events, ready)

    def unwatch(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def take(self, seconds: float) -> list[Any]:
        """Everything delivered by now; waits up to `seconds` for a first item. May be empty."""
        self._asleep = True
        # looked at after the flag is set: what is put between the two rings the bell
        timeout = 0.0 if self._items else max(seconds, 0.0)
        for key, _ in self._selector.select(timeout):
            key.data()
        self._asleep = False
        items = list(self._items)
        for _ in items:
            self._items.popleft()
        return items

    def close(self) -> None:
        self._selector.close()
        os.close(self._bell)
        os.close(self._button)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._bell, 4096):
                pass
